"""Exact inner-product search in torch, blockwise, in the order in which the vectors were added."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch

from xretrieve.errors import XRetrieveError
from xretrieve.index.base import check_ids, check_vectors
from xretrieve.utils.arrays import load_npy
from xretrieve.utils.files import atomic_folder, read_json, write_json

QUERY_BLOCK = 1024


class FlatIndex:
    """Exact search; scores are float32, equal scores are listed in the order in which the vectors were added.

    Args:
        dim: width of the vectors.
        memory_mb: the most memory, in MiB, that one block of scores and of the vectors read for it may take.
        device: where the vectors lie and are searched. On the CPU they are not copied: a float32 memory map stays one.
    """

    name = "flat"
    OPTIONS: tuple[str, ...] = ("memory_mb", "device")

    def __init__(self, dim: int, memory_mb: float = 256, device: str = "cpu") -> None:
        if dim < 1 or memory_mb <= 0:
            raise XRetrieveError(f"flat index: dim {dim} and memory_mb {memory_mb} must be positive")
        self.dim, self.memory_mb, self.device = dim, float(memory_mb), device
        self._vectors: list[torch.Tensor] = []  # one (N, dim) block per `add`
        self._ids: list[np.ndarray] = []  # their ids, -1 where removed

    def __len__(self) -> int:
        return sum(int((ids >= 0).sum()) for ids in self._ids)

    def add(self, ids: np.ndarray, vectors: np.ndarray) -> None:
        """Add vectors (N, dim) under new ids (N,)."""
        array = check_vectors(vectors, self.dim, "flat index")
        taken = np.concatenate(self._ids) if self._ids else np.zeros(0, np.int64)
        ids = check_ids(ids, len(array), taken).copy()
        if not len(ids):
            return
        self._vectors.append(as_tensor(array).to(self.device))
        self._ids.append(ids)

    def remove(self, ids: np.ndarray) -> None:
        """Remove by id; an unknown id is an error and removes nothing."""
        self._mark_removed(ids)
        kept = [i for i, block in enumerate(self._ids) if (block >= 0).any()]
        self._vectors, self._ids = [self._vectors[i] for i in kept], [self._ids[i] for i in kept]

    def _mark_removed(self, ids: np.ndarray) -> None:
        """Their ids become -1, their places stay."""
        wanted = np.unique(np.asarray(ids, dtype=np.int64))
        found = [np.isin(block, wanted) for block in self._ids]
        if sum(int(f.sum()) for f in found) < len(wanted):
            here = np.concatenate(self._ids) if self._ids else np.zeros(0, np.int64)
            raise XRetrieveError(f"index: there is no id {int(wanted[~np.isin(wanted, here)][0])}")
        for block, gone in zip(self._ids, found, strict=True):
            block[gone] = -1

    def search(self, vectors: np.ndarray, k: int, allowed: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
        """The best ``k`` per query (Q, dim): scores (Q, k) and ids (Q, k), padded with -inf and -1."""
        if k < 1:
            raise XRetrieveError(f"k is {k}; ask for at least 1 result")
        queries = torch.from_numpy(check_vectors(vectors, self.dim, "query").copy()).to(self.device)
        scores = np.full((len(queries), k), -np.inf, np.float32)
        ids = np.full((len(queries), k), -1, np.int64)
        for start in range(0, len(queries), QUERY_BLOCK):
            rows = slice(start, min(start + QUERY_BLOCK, len(queries)))
            scores[rows], ids[rows] = self._search(queries[rows], k, allowed)
        return scores, ids

    def _search(self, queries: torch.Tensor, k: int, allowed: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
        per_block = max(1, int(self.memory_mb * 2**20 / 4 / (len(queries) + self.dim)))
        found: list[tuple[np.ndarray, ...]] = []  # per block: query row, score, position, id
        offset = 0
        for vectors, ids in zip(self._vectors, self._ids, strict=True):
            keep = ids >= 0 if allowed is None else (ids >= 0) & np.isin(ids, allowed)
            for start in range(0, len(ids), per_block):
                here = keep[start : start + per_block]
                if not here.any():
                    continue
                block = vectors[start : start + per_block]
                if here.all():
                    rows = np.arange(start, start + len(block))
                else:
                    rows = start + np.flatnonzero(here)
                    block = block[torch.from_numpy(rows - start).to(self.device)]
                query, score, column = _top(queries @ block.T, k)
                found.append((query, score, offset + rows[column], ids[rows[column]]))
            offset += len(ids)
        return merge(found, len(queries), k)

    def save(self, path: str | Path) -> None:
        """Write ``index.json``, ``vectors.npy`` and ``ids.npy``; removed vectors are left out."""
        kept = [ids >= 0 for ids in self._ids]
        empty = [np.zeros((0, self.dim), np.float32)]
        with atomic_folder(path) as part:
            np.save(
                part / "vectors.npy",
                np.concatenate(empty + [v.cpu().numpy()[k] for v, k in zip(self._vectors, kept, strict=True)]),
            )
            np.save(
                part / "ids.npy",
                np.concatenate([np.zeros(0, np.int64)] + [i[k] for i, k in zip(self._ids, kept, strict=True)]),
            )
            write_json(
                part / "index.json", {"name": self.name, "dim": self.dim, "options": {"memory_mb": self.memory_mb}}
            )

    @classmethod
    def load(cls, path: str | Path, **options: Any) -> FlatIndex:
        """Read what :meth:`save` wrote; the vectors stay a memory map."""
        path = Path(path)
        config = read_json(path / "index.json")
        index = cls(config["dim"], **(config["options"] | options))
        index.add(load_npy(path / "ids.npy"), load_npy(path / "vectors.npy", mmap_mode="c"))
        return index


def as_tensor(array: np.ndarray) -> torch.Tensor:
    """The same memory as a tensor, a read-only map too."""
    with warnings.catch_warnings():  # torch warns about read-only memory; it is only read here
        warnings.simplefilter("ignore", UserWarning)
        return torch.from_numpy(array)


def _top(scores: torch.Tensor, k: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """All entries of scores (Q, G) that can be among the best k: query row, score, column. With ties at the k-th place
    there are more than k: topk alone would pick any of them, and the order of the gallery must decide."""
    if scores.shape[1] <= k:
        query, column = torch.nonzero(scores >= -torch.inf, as_tuple=True)
    else:
        last = scores.topk(k, dim=1).values[:, -1:]  # (Q,1)
        query, column = torch.nonzero(scores >= last, as_tuple=True)
    return query.cpu().numpy(), scores[query, column].float().cpu().numpy(), column.cpu().numpy()


def merge(found: list[tuple[np.ndarray, ...]], queries: int, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Scores and ids (Q, k) of the best ``k`` per query; equal scores in the order of their places, the rest -inf and
    -1. Each of ``found`` holds query rows, scores, places and ids, (N,) each."""
    scores, ids = np.full((queries, k), -np.inf, np.float32), np.full((queries, k), -1, np.int64)
    if not found:
        return scores, ids
    query, score, position, name = (np.concatenate(column) for column in zip(*found, strict=True))
    order = np.lexsort((position, -score, query))
    query, score, name = query[order], score[order], name[order]
    place = np.arange(len(query)) - np.searchsorted(query, query)  # rank within its query
    kept = place < k
    scores[query[kept], place[kept]], ids[query[kept], place[kept]] = score[kept], name[kept]
    return scores, ids
