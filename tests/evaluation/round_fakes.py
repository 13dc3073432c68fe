"""Query sets and a matcher of plain vectors: every sentence knows a part of its image, so each round helps."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from xretrieve.data.base import RetrievalDataset
from xretrieve.tokens import Prepared

WIDTH = 12


class Rounds:
    """Images and sentences as vectors; a set's score after a round is the mean of its sentences' so far.

    ``later`` changes how much later sentences count, so that the order of a set matters.
    """

    name = "fake rounds"
    source = "nowhere"

    def __init__(self, dataset: RetrievalDataset, noise: float = 1.0, seed: int = 0, later: float = 0.0) -> None:
        rng = np.random.default_rng(seed)
        base = rng.standard_normal((len(dataset), WIDTH))
        said = base[dataset.owner] + noise * rng.standard_normal((len(dataset.captions), WIDTH))
        self.vectors = {text: said[c] for c, text in enumerate(dataset.captions)}
        self.images, self.later = torch.tensor(base, dtype=torch.float32), later

    def encode_images(self, items: Any, ids: Any = None, batch_size: int = 64, cache: Any = None,
                      progress: bool = False) -> Prepared:  # fmt: skip
        return Prepared.from_local(self.images[:, None])

    def encode_texts(self, texts: list[str], batch_size: int = 256, cache: Any = None) -> Prepared:
        parts = [np.mean([self.vectors[part] for part in text.split(";")], 0) for text in texts]
        return Prepared.from_pooled(torch.tensor(np.stack(parts), dtype=torch.float32))

    def encode_sets(self, sets: list[list[str]], cache: Any = None) -> Prepared:
        longest = max(map(len, sets))
        local, mask = torch.zeros(len(sets), longest, WIDTH), torch.zeros(len(sets), longest, dtype=torch.bool)
        for row, said in enumerate(sets):
            local[row, : len(said)], mask[row, : len(said)] = self.encode_texts(said).pooled, True
        return Prepared(local, mask, local.sum(1) / mask.sum(1, keepdim=True))

    def score(self, queries: Prepared, gallery: Prepared) -> Tensor:
        return queries.pooled @ gallery.pooled.T

    def score_rounds(self, queries: Prepared, gallery: Prepared) -> Tensor:
        dots = torch.einsum("mtd,nd->tnm", queries.local, gallery.pooled)
        weights = 1 + self.later * torch.arange(len(dots))[:, None, None]
        return (weights * dots).cumsum(0) / weights.cumsum(0)  # not divided by a set's own size: only T of full sets


def make_sets(
    folder: Path | None = None, images: int = 30, turns: int = 4, short: int = 0, bare: int = 0, name: str = "toy"
) -> RetrievalDataset:
    """``images`` with ``turns`` sentences each, the first ``short`` with two, the last ``bare`` with none."""
    sizes = np.full(images, turns)
    sizes[:short] = 2
    sizes[images - bare :] = 0
    owner = np.repeat(np.arange(images), sizes)
    paths = [folder / f"p {i}.jpg" if folder else Path(f"absent-{i}.jpg") for i in range(images)]
    for i, path in enumerate(paths if folder else ()):
        Image.new("RGB", (60 + i, 40), (8 * i % 255, 90, 120)).save(path)
    return RetrievalDataset(
        name,
        "test",
        [f"p {i}.jpg" for i in range(images)],
        paths,
        [f"sentence <{c}> & of picture {i}" for c, i in enumerate(owner)],
        [f"s{c}" for c in range(len(owner))],
        owner,
        images,
        "toy",
    )
