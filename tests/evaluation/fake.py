"""A tiny matcher and dataset: vectors are made from the ids, so no test waits for a model."""

from __future__ import annotations

import numpy as np
import torch
from PIL import Image

from xretrieve.data.base import RetrievalDataset
from xretrieve.tokens import Prepared, Tokens


class FakeMatcher:
    """Images and captions of one item share a direction; ``noise`` hides it."""

    name = "fake"
    source = "nowhere"

    def __init__(self, dataset, noise=0.5, seed=0):
        rng = np.random.default_rng(seed)
        base = rng.standard_normal((len(dataset), 16))
        texts = base[dataset.owner] + noise * rng.standard_normal((len(dataset.captions), 16))
        self.images = torch.tensor(base, dtype=torch.float32)
        self.texts = torch.tensor(texts, dtype=torch.float32)
        self.seed = seed
        self.scored = 0

    def encode_images(self, items, ids=None, batch_size=64, cache=None, progress=False):
        assert len(ids) == len(items)
        return Prepared(*vars(Tokens.from_pooled(self.images)).values())

    def encode_texts(self, texts, batch_size=256, cache=None):
        return Prepared(*vars(Tokens.from_pooled(self.texts)).values())

    def score(self, queries, gallery):
        self.scored += len(queries) * len(gallery)
        return queries.pooled @ gallery.pooled.T

    def fingerprint(self):
        return f"fake-{self.seed}"


def make_dataset(folder=None, n=30, expected=None, split="test", name="toy"):
    """n images with 1 to 4 captions in shuffled order; pictures are written when a folder is given."""
    rng = np.random.default_rng(0)
    owner = np.repeat(np.arange(n), rng.integers(1, 5, n))
    rng.shuffle(owner)
    images = []
    for i in range(n):
        images.append(folder / f"p {i}.jpg" if folder is not None else f"absent-{i}.jpg")
        if folder is not None:
            Image.new("RGB", (60 + i, 40), (8 * i % 255, 90, 120)).save(images[-1])
    return RetrievalDataset(
        name=name,
        split=split,
        image_ids=[f"p {i}.jpg" for i in range(n)],
        images=images,
        captions=[f"caption <{c}> & of picture {i}" for c, i in enumerate(owner)],
        caption_ids=[f"p {i}.jpg#{c}" for c, i in enumerate(owner)],
        owner=owner,
        expected_images=expected or n,
        layout="toy",
    )
