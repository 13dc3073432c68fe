"""The recall of an index against exact search, and the effort that reaches a wanted one."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from xretrieve.index.base import Index

# option: the values that are tried, each twice the one before
EFFORTS = {"hnsw": ("ef_search", 32, 4096), "ivfpq": ("nprobe", 1, 65_536), "auto": ("rescored", 100, 51_200)}
NEAR, FAR = 0.9, 0.3  # cosine of a moved vector with the one it was


def recall_against_flat(index: Index, flat: Index, queries: np.ndarray, k: int = 10) -> float:
    """Share of the exact top ``k`` that ``index`` finds, averaged over ``queries`` (Q, D); 1.0 is exact."""
    return _share(index.search(queries, k)[1], flat.search(queries, k)[1])


def _share(found: np.ndarray, true: np.ndarray) -> float:
    shares = [
        len(set(f) & wanted) / len(wanted)
        for t, f in zip(true, found, strict=True)
        if (wanted := set(t[t >= 0].tolist()))
    ]
    return float(np.mean(shares)) if shares else 1.0


@dataclass(frozen=True)
class Fitted:
    """What an index finds: its ``recall``, whether that is what was wanted, and the last value of its ``option``."""

    recall: float
    met: bool
    option: str = ""
    value: int = 0


def fit_recall(index: Index, flat: Index, queries: np.ndarray, target: float | None, k: int = 10) -> Fitted:
    """The least effort with which ``index`` finds a share ``target`` of what ``flat`` does, set in its options.

    Queries (Q, D). Without a target, or for an exact index, nothing is set. Where no effort is enough, the greatest
    stays set, and ``met`` is false.
    """
    true = flat.search(queries, k)[1]
    if target is None or index.name not in EFFORTS:
        return Fitted(_share(index.search(queries, k)[1], true), True)
    option, _, _ = EFFORTS[index.name]
    recall, value = 0.0, 0
    for value in _efforts(index):
        index.options[option] = value  # type: ignore[attr-defined]
        recall = _share(index.search(queries, k)[1], true)
        if recall >= target:
            return Fitted(recall, True, option, value)
    return Fitted(recall, False, option, value)


def _efforts(index: Index) -> Iterator[int]:
    """Values from little to all: no more links, cells or vectors than there are."""
    _, value, most = EFFORTS[index.name]
    most = min(most, getattr(index, "cells", 0) or len(index))
    while value < most:
        yield value
        value *= 2
    yield most


def moved_vectors(vectors: np.ndarray) -> np.ndarray:
    """Queries that are in no gallery, from vectors (N, D) that are: half of them moved a little (cosine 0.9, as another
    picture of the same thing), half far (0.3, about as far as texts lie from their pictures).

    >>> moved_vectors(np.eye(2, 64, dtype=np.float32)).diagonal().round(2).astype(str).tolist()
    ['0.9', '0.3']
    """
    length = np.linalg.norm(vectors, axis=1, keepdims=True)
    unit = vectors / np.where(length > 0, length, 1)
    away = np.random.default_rng(0).standard_normal(vectors.shape)
    away -= (away * unit).sum(1, keepdims=True) * unit
    away /= np.maximum(np.linalg.norm(away, axis=1, keepdims=True), 1e-12)
    cosine = np.where(np.arange(len(vectors))[:, None] % 2 == 0, NEAR, FAR)
    moved: np.ndarray = length * (cosine * unit + np.sqrt(1 - cosine**2) * away)
    return moved.astype(np.float32)
