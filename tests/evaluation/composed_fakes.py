"""A matcher of plain vectors for composed queries, and datasets with them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from xretrieve.data.base import Triplet
from xretrieve.data.triplets import ComposedDataset, Listed, Lost
from xretrieve.heads import create_head
from xretrieve.tokens import Prepared

WIDTH = 16


class Sums:
    """Image vectors by id, text vectors by their words; the query is their normalised sum."""

    source = "nowhere"

    def __init__(self, name: str = "sums", seed: int = 0, collapsed: bool = False) -> None:
        self.name, self.seed, self.collapsed, self.encoded = name, seed, collapsed, 0
        self.head = create_head("cosine", image_dim=WIDTH, text_dim=WIDTH)

    def _vectors(self, names: list[str]) -> Prepared:
        rows = []
        for name in names:
            key = "same" if self.collapsed else name
            rng = np.random.default_rng([self.seed, *key.encode()])
            rows.append(rng.standard_normal(WIDTH))
        vectors = torch.tensor(np.array(rows), dtype=torch.float32)
        return Prepared.from_pooled(torch.nn.functional.normalize(vectors, dim=-1))

    def encode_images(self, items: Any, ids: Any = None, batch_size: int = 64, cache: Any = None,
                      progress: bool = False) -> Prepared:  # fmt: skip
        self.encoded += 1
        return self._vectors(list(ids))

    def encode_texts(self, texts: list[str], batch_size: int = 256, cache: Any = None) -> Prepared:
        return self._vectors(list(texts))


def make_composed(name: str = "fashion_iq", lost: int = 0, folder: Path | None = None) -> ComposedDataset:
    """40 images in two halves (Fashion-IQ's categories), 30 triplets with two captions, kinds, positives, subsets."""
    n = 40
    triplets = []
    for k in range(30):
        category, base = ("dress", 0) if k < 18 else ("shirt", 20)
        reference, target = base + k % 20, base + (k * 7 + 3) % 20
        target = target if target != reference else base + (k + 1) % 20
        fits = tuple(sorted({target, *((base + (k + step) % 20) for step in (5, 11) if (k + step) % 20 != k % 20)}))
        members = tuple(dict.fromkeys([reference, target, *(base + (k + step) % 20 for step in (2, 4, 6, 8))]))
        texts, kind = (f"make it {k}", f"and longer by {k}"), ("colour", "size")[k % 2]
        category = category if name == "fashion_iq" else ""
        extra = {"same_model": k % 3 == 0}
        triplets.append(Triplet(reference, texts, target, kind, f"q{k}", category, fits, members, extra))
    gone = [Lost(f"lost{k}", ("x", "y"), (f"gone{k}",), "colour", "dress") for k in range(lost)]
    paths = [folder / f"p{i}.png" if folder else Path(f"absent-{i}.png") for i in range(n)]
    for i, path in enumerate(paths if folder else ()):
        Image.new("RGB", (20, 20), (6 * i, 90, 120)).save(path)
    galleries = {
        "original/dress": Listed(np.arange(20), 20 + lost), "original/shirt": Listed(np.arange(20, 40), 20),
        "val-union/dress": Listed(np.arange(20), 20 + lost), "val-union/shirt": Listed(np.arange(20, 40), 20),
        "split": Listed(np.arange(n), n + lost), "val": Listed(np.arange(n), n + lost),
        "all": Listed(np.arange(n), n + lost),
    }  # fmt: skip
    return ComposedDataset(name, "val", [f"p{i}" for i in range(n)], paths, [], [], np.zeros(0), n + lost, "toy",
                           triplets=triplets, galleries=galleries, lost=gone)  # fmt: skip
