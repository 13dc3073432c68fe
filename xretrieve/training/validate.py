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
from xretrieve.heads.scoring import score_matrix
from xretrieve.tokens import Prepared, Tokens
from xretrieve.training.feeds import Feed, LiveFeed
from xretrieve.utils.precision import DTYPES


@torch.no_grad()
def score_split(
    head: Head, images: Feed, texts: Feed, dataset: RetrievalDataset, device: Any, chunk: int = 256,
    coarse: bool = False, precision: str = "32",
) -> tuple[Tensor, np.ndarray]:  # fmt: skip
    """Scores (N, C) float32 on the CPU and the owner map (C,), over the images that could be read.

    ``head`` and the backbones of live feeds must be in evaluation mode. ``coarse``: by the coarse vectors alone.
    ``precision`` (32, bf16 or fp16) is that of heads that score pair by pair.
    """
    place = np.full(len(dataset), -1)
    place[images.kept] = np.arange(len(images.kept))
    captions = np.flatnonzero(place[dataset.owner] >= 0)
    gallery = encode_feed(images, images.kept, head.prepare_gallery, device, chunk)
    queries = encode_feed(texts, captions, head.prepare_queries, device, chunk)
    if coarse:
        scores = head.coarse_scores(queries, gallery)
    else:
        scores = score_matrix(head, queries, gallery, dtype=DTYPES[precision] if head.pair_stage is not None else None)
    return scores.float().cpu().T.contiguous(), place[dataset.owner[captions]]


def encode_feed(
    feed: Feed, rows: np.ndarray, prepare: Callable[[Tokens], Prepared], device: Any, chunk: int = 256
) -> Prepared:
    """Prepared tokens of some of a feed's items; ``prepare`` is a head's side."""
    parts = []
    for start in range(0, len(rows), chunk):
        taken = feed.take(rows[start : start + chunk])
        tokens = feed.backbone(batch_to(taken, device)) if isinstance(feed, LiveFeed) else taken.to(device)
        parts.append(prepare(tokens))
    return Prepared.cat(parts)


def goal(metrics: dict[str, float], keep: str = "rsum") -> float:
    """The number to keep the best of; more is better, and it is never below 0. That of composed queries is the
    protocol's headline.

    >>> goal({"rsum": 200.0}), goal({"rsum": 200.0, "val_loss": 3.0}, "loss")
    (200.0, 0.25)
    """
    if keep == "loss":
        return 1 / (1 + metrics["val_loss"])
    return metrics["headline"] if "headline" in metrics else metrics[keep]


def recalls(scores: Tensor, owner: np.ndarray) -> dict[str, float]:
    """R@1/5/10 of both directions in percent and their sum ``rsum``; ties count by their expected rank."""
    from xretrieve.evaluation.metrics import pair_columns, values_of
    from xretrieve.evaluation.ranks import rank_counts

    counts = rank_counts(scores, owner)
    return values_of(c for c in pair_columns(counts.i2t(), counts.t2i()) if c.unit == "percent")
