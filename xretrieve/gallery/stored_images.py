"""Pictures of a gallery on disk as a head reads them: piece by piece, never all in memory (`heads/turns.py`)."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from xretrieve.gallery.store import Store
from xretrieve.tokens import Prepared

if TYPE_CHECKING:
    from xretrieve.matcher import Matcher

PASS = 4 * 2**20  # bytes of tokens (as float32) of one piece of a pass over all: what stays near the caches
PICK = 64 * 2**20  # the same of pictures that are picked out


class StoredImages:
    """Some rows of a store, N of them; :class:`xretrieve.heads.turns.Images`.

    Args:
        store: the gallery.
        matcher: the one that made it.
        rows: (N,) row numbers, ascending.
    """

    def __init__(self, store: Store, matcher: Matcher, rows: np.ndarray) -> None:
        self._store, self._matcher, self.rows = store, matcher, rows

    def __len__(self) -> int:
        return len(self.rows)

    @cached_property
    def frame(self) -> Prepared:
        """Masks and coarse vectors of all, without their tokens."""
        if not self._store.has_tokens:
            return self._prepared(self.rows)
        parts = [self._store.tokens(rows, local=False) for rows in self._cut(self.rows, PICK)]
        return Prepared.cat(parts).to(self._matcher.device)

    def read(self, rows: Tensor | None = None) -> Iterator[Prepared]:
        """All pictures, or those at places ``rows`` (C,) of them, as ``head.prepare_gallery`` gave them."""
        chosen, size = (self.rows, PASS) if rows is None else (self.rows[rows.cpu().numpy()], PICK)
        for piece in self._cut(chosen, size):
            yield self._prepared(piece)

    def _cut(self, rows: np.ndarray, size: int) -> Iterator[np.ndarray]:
        values = self._store.longest * self._store.info["tokens"]["dim"] if self._store.has_tokens else \
            self._store.info["dim"]  # fmt: skip
        step = max(1, size // (4 * values))
        return (rows[start : start + step] for start in range(0, len(rows), step))

    def _prepared(self, rows: np.ndarray) -> Prepared:
        device, head = self._matcher.device, self._matcher.head
        if not self._store.has_tokens:
            return Prepared.from_pooled(torch.from_numpy(self._store.vectors(rows)).to(device))
        tokens = self._store.tokens(rows).to(device)
        with torch.inference_mode():
            return head.restore_gallery(tokens.local, tokens.mask, tokens.pooled)
