"""Batches made of groups whose items look alike: few pairs to score, and most of them hard.

A head that scores token by token pays for every pair of a batch. Within groups of 16, a batch of 128 items has 2,048
pairs instead of 16,384. Groups are drawn so that their items lie near each other in the coarse space at the start of
the stage, which makes up for the negatives that are left out.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.numpy import load_file, save_file

from xretrieve.matcher import Matcher
from xretrieve.tokens import Prepared, Tokens
from xretrieve.training.samplers import BatchSampler
from xretrieve.training.validate import encode_feed
from xretrieve.utils.files import atomic_path


@dataclass(frozen=True)
class CoarseVectors:
    """Coarse vectors of a train split: texts (C,D) float32 per caption, images (N,D) per image; 0 where unreadable."""

    texts: np.ndarray
    images: np.ndarray

    @classmethod
    def of(cls, matcher: Matcher, split: Any, device: Any) -> CoarseVectors:
        """Encode a split (:class:`xretrieve.training.build.Split`) with the weights as they are; no dropout."""
        modes = [(part, part.training) for part in (matcher.image, matcher.text, matcher.head)]
        matcher.eval()
        filled = []
        for feed, count, prepare in (
            (split.texts, len(split.dataset.captions), matcher.head.prepare_queries),
            (split.images, len(split.dataset), matcher.head.prepare_gallery),
        ):
            with torch.no_grad():
                pooled = encode_feed(feed, feed.kept, partial(_coarse, prepare), device).pooled
            full = np.zeros((count, pooled.shape[1]), np.float32)
            full[feed.kept] = pooled.float().cpu().numpy()
            filled.append(full)
        for part, mode in modes:
            part.train(mode)
        return cls(*filled)

    def save(self, path: Path) -> None:
        """Write them; a stage that is resumed must draw the same groups."""
        path.parent.mkdir(exist_ok=True)
        with atomic_path(path) as part:
            save_file({"texts": self.texts, "images": self.images}, part)

    @classmethod
    def load(cls, path: Path) -> CoarseVectors:
        """Read what :meth:`save` wrote."""
        stored = load_file(path)
        return cls(stored["texts"], stored["images"])


def _coarse(prepare: Callable[[Tokens], Prepared], tokens: Tokens) -> Prepared:
    return Prepared.from_pooled(prepare(tokens).pooled)


@dataclass(frozen=True)
class GroupSampler:
    """The batches of another sampler, reordered so that every ``group`` items in a row lie near each other.

    Args:
        base: gives each epoch's items, (batches, K, items).
        vectors: coarse vectors; the first of an item's K captions stands for its texts.
        group: items of a group; the batch must be a multiple.
        pool: groups are made within this many items in the sampler's random order.

    Items of one image never share a group if that can be avoided. The order is a function of the seed and the epoch.
    """

    base: BatchSampler
    vectors: CoarseVectors
    group: int
    pool: int

    def __len__(self) -> int:
        """Batches of an epoch."""
        return len(self.base)

    def epoch(self, number: int) -> np.ndarray:
        """Caption rows of an epoch's batches, (batches, K, items) int64."""
        batches = self.base.epoch(number)
        count, k, block = batches.shape
        if block % self.group:  # a single batch smaller than asked for
            return batches
        rng = np.random.default_rng([self.base.seed, self.base.stage, number, self.group])
        rows = batches.swapaxes(0, 1).reshape(k, -1)  # (K,items)
        size = max(self.group, self.pool - self.pool % self.group)
        groups = [g + start for start in range(0, rows.shape[1], size)
                  for g in near_groups(*self._pool(rows[0, start : start + size]), self.group, rng)]  # fmt: skip
        order = np.concatenate([groups[i] for i in rng.permutation(len(groups))])  # (items,)
        return rows[:, order].reshape(k, count, block).swapaxes(0, 1)

    def _pool(self, captions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        owners = self.base.owner[captions]
        likeness = self.vectors.texts[captions] @ self.vectors.images[owners].T
        return likeness + likeness.T, owners


def near_groups(likeness: np.ndarray, owners: np.ndarray, group: int, rng: np.random.Generator) -> list[np.ndarray]:
    """Cut n items into n / group groups of near ones, greedily from random starts.

    Args:
        likeness: (n,n), symmetric.
        owners: (n,) items of one owner are kept apart where others are left.
        group: size of a group; n must be a multiple.
        rng: draws the starts.

    >>> near = np.array([[0, 9, 1, 2], [9, 0, 2, 1], [1, 2, 0, 9], [2, 1, 9, 0]])
    >>> sorted(sorted(g.tolist()) for g in near_groups(near, np.arange(4), 2, np.random.default_rng(0)))
    [[0, 1], [2, 3]]
    """
    free = np.ones(len(likeness), bool)
    made = []
    for start in rng.permutation(len(likeness)):
        if not free[start]:
            continue
        free[start] = False
        left = np.flatnonzero(free)
        # items of owners that are in the group already come last, then the less alike
        ranked = left[np.argsort(-likeness[start, left], kind="stable")]
        owned = owners[ranked]
        first = np.zeros(len(ranked), bool)
        first[np.unique(owned, return_index=True)[1]] = True
        first &= owned != owners[start]
        members = np.concatenate([ranked[first], ranked[~first]])[: group - 1]
        free[members] = False
        made.append(np.concatenate([[start], members]))
    return made
