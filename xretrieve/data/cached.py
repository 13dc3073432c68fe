"""Tokens of many items that lie on disk, read when rows are asked for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from xretrieve.data.shards import Shard
from xretrieve.errors import XRetrieveError
from xretrieve.tokens import Tokens

if TYPE_CHECKING:
    from xretrieve.backbones.base import Backbone


class CachedTokens:
    """Tokens of many items, on disk; ``cached[rows]`` reads some of them as float32 `Tokens`.

    Args:
        shard: (N,) which shard holds item i.
        row: (N,) its row there.
        kept: (N,) the place of item i in the list that was encoded.
        failed: (id, reason) of the items that could not be read.
    """

    def __init__(
        self, shards: list[Shard], shard: np.ndarray, row: np.ndarray, kept: np.ndarray, failed: list[tuple[str, str]]
    ) -> None:
        self.shards, self.shard, self.row = shards, shard, row
        self.kept, self.failed = kept, failed

    def __len__(self) -> int:
        return len(self.kept)

    def __getitem__(self, rows: Any) -> Tokens:
        """Some items in the order of ``rows``; padding beyond the longest of them is cut."""
        shard, row = self._where(rows)
        used = np.unique(shard)
        if not len(used):
            raise XRetrieveError("no rows asked for")
        arrays = [self.shards[s] for s in used]
        length = max(a.mask.shape[1] for a in arrays)
        dtype = np.result_type(*(a.local.dtype for a in arrays))
        local = np.zeros((len(row), length, arrays[0].local.shape[2]), dtype=dtype)
        mask = np.zeros((len(row), length), dtype=bool)
        pooled = np.empty((len(row), arrays[0].pooled.shape[1]), dtype=np.float32)
        for s, a in zip(used, arrays, strict=True):
            here = np.flatnonzero(shard == s)
            local[here, : a.mask.shape[1]] = a.local[row[here]]
            mask[here, : a.mask.shape[1]] = a.mask[row[here]]
            pooled[here] = a.pooled[row[here]]
        real = np.flatnonzero(mask.any(0))
        longest = int(real[-1]) + 1 if len(real) else 0
        tokens = torch.from_numpy(local[:, :longest]).float()
        return Tokens(tokens, torch.from_numpy(mask[:, :longest]), torch.from_numpy(pooled))

    @property
    def pooled(self) -> Tensor:
        """(N,P) float32 pooled vectors of all items, without reading the local tokens."""
        out: np.ndarray | None = None
        for s in np.unique(self.shard):
            part = self.shards[s].pooled
            here = np.flatnonzero(self.shard == s)
            if out is None:
                out = np.empty((len(self), part.shape[1]), dtype=np.float32)
            out[here] = part[self.row[here]]
        if out is None:
            raise XRetrieveError("no item could be read, so there are no pooled vectors")
        return torch.from_numpy(out)

    def _where(self, rows: Any) -> tuple[np.ndarray, np.ndarray]:
        rows = as_rows(rows, len(self))
        return self.shard[rows], self.row[rows]


class RowTokens:
    """Same use as :class:`CachedTokens`, for items that are feature rows on disk already: read when asked for."""

    def __init__(self, backbone: Backbone, items: Sequence[Any]) -> None:
        self.backbone, self.items = backbone, items
        self.kept: np.ndarray = np.arange(len(items))
        self.failed: list[tuple[str, str]] = []

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, rows: Any) -> Tokens:
        """Some items in the order of ``rows``."""
        return self.backbone.encode([self.items[i] for i in as_rows(rows, len(self))], batch_size=256).to("cpu")

    @property
    def pooled(self) -> Tensor:
        """(N,P) pooled vectors of all items; reads the whole file once, a block at a time."""
        return torch.cat([self[i : i + 256].pooled for i in range(0, len(self), 256)])


def as_rows(rows: Any, n: int) -> np.ndarray:
    """Slice, list, array, tensor or bool mask as int64 row numbers; outside 0..n-1 is an IndexError."""
    if isinstance(rows, (int, np.integer)):
        raise TypeError("an int drops the batch axis; write [i : i + 1]")
    if isinstance(rows, slice):
        return np.arange(n)[rows]
    found = rows.cpu().numpy() if isinstance(rows, Tensor) else np.asarray(rows)
    if found.dtype == bool:
        found = np.flatnonzero(found)
    found = found.astype(np.int64)
    if len(found) and (found.min() < 0 or found.max() >= n):
        raise IndexError(f"rows {found.min()} to {found.max()} asked for, there are {n}")
    return found
