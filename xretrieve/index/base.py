"""What every index does."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np

from xretrieve.errors import XRetrieveError


@runtime_checkable
class Index(Protocol):
    """Vectors under int64 ids, searched by inner product.

    ``search`` returns scores (Q, k) float32, best first, and ids (Q, k) int64; where fewer than k vectors can be
    returned, the rest is -inf and -1. ``allowed`` (int64 ids) limits the search to these.
    ``save`` writes a folder that :func:`xretrieve.index.load_index` reads; it is whole or not there.
    """

    name: str
    dim: int

    def add(self, ids: np.ndarray, vectors: np.ndarray) -> None:
        """Add vectors (N, dim) under new ids (N,)."""

    def remove(self, ids: np.ndarray) -> None:
        """Remove by id; an id that is not there is an error."""

    def search(self, vectors: np.ndarray, k: int, allowed: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
        """The best ``k`` per query vector (Q, dim)."""

    def save(self, path: str | Path) -> None:
        """Write the index to a folder."""

    def __len__(self) -> int:
        """Vectors that can be found."""


def check_vectors(vectors: Any, dim: int, what: str) -> np.ndarray:
    """The vectors as a C-ordered float32 array (N, dim); a wrong shape is an error. float32 maps are not copied."""
    array = np.ascontiguousarray(vectors, dtype=np.float32)
    if array.ndim != 2 or array.shape[1] != dim:
        raise XRetrieveError(
            f"{what}: vectors of shape {array.shape} do not fit an index of width {dim}; give (N, {dim})"
        )
    return array


def check_ids(ids: Any, count: int, taken: np.ndarray) -> np.ndarray:
    """The ids as int64 (N,), checked to be new, not negative and unique."""
    array = np.asarray(ids, dtype=np.int64).reshape(-1)
    if len(array) != count:
        raise XRetrieveError(f"index: {len(array)} ids for {count} vectors")
    if len(array) and array.min() < 0:
        raise XRetrieveError(f"index: id {int(array.min())} is negative")
    unique, counts = np.unique(array, return_counts=True)
    if (counts > 1).any():
        raise XRetrieveError(f"index: id {int(unique[counts > 1][0])} is given twice")
    if len(taken) and (there := np.intersect1d(unique, taken)).size:
        raise XRetrieveError(f"index: id {int(there[0])} is already there; remove it first")
    return array
