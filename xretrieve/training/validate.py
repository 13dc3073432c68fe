"""The number that chooses the best weights: rsum of the whole validation split, with full ranks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from xretrieve.backbones.base import batch_to
from xretrieve.data.base import RetrievalDataset
from xretrieve.heads.base import Head
from xretrieve.tokens import Prepared, Tokens
from xretrieve.training.feeds import Feed


@torch.no_grad()
def score_split(
    head: Head, images: Feed, texts: Feed, dataset: RetrievalDataset, device: Any, chunk: int = 256
) -> tuple[Tensor, np.ndarray]:
    """Scores (N, C) float32 on the CPU and the owner map (C,), over the images that could be read.

    ``head`` and the backbones of live feeds must be in evaluation mode.
    """
    place = np.full(len(dataset), -1)
    place[images.kept] = np.arange(len(images.kept))
    captions = np.flatnonzero(place[dataset.owner] >= 0)
    gallery = _encode(images, images.kept, head.prepare_gallery, device, chunk)
    queries = _encode(texts, captions, head.prepare_queries, device, chunk)
    starts = range(0, len(captions), chunk)
    rows = [head.score(queries[i : i + chunk], gallery).float().cpu() for i in starts]  # each (chunk,N)
    return torch.cat(rows).T.contiguous(), place[dataset.owner[captions]]


def _encode(feed: Feed, rows: np.ndarray, prepare: Callable[[Tokens], Prepared], device: Any, chunk: int) -> Prepared:
    parts = []
    for start in range(0, len(rows), chunk):
        taken = feed.take(rows[start : start + chunk])
        tokens = feed.backbone(batch_to(taken, device)) if feed.live else taken.to(device)
        parts.append(prepare(tokens))
    return Prepared.cat(parts)


def recalls(scores: Tensor, owner: np.ndarray) -> dict[str, float]:
    """R@1/5/10 of both directions in percent and their sum ``rsum``; ties count by their expected rank."""
    from xretrieve.evaluation.metrics import compute
    from xretrieve.evaluation.ranks import rank_counts

    counts = rank_counts(scores, owner)
    values = compute(counts.i2t(), counts.t2i())
    return {name: value for name, value in values.items() if "_r" in name or name == "rsum"}
