"""The default index: flat while that is cheap; beyond, codes choose a few vectors, and these are scored exactly."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
import torch

from xretrieve.errors import XRetrieveError
from xretrieve.index.base import check_vectors
from xretrieve.index.codes import SAMPLE, SEED, Codes, check_kind, kind_of, make_codes
from xretrieve.index.flat import FlatIndex, as_tensor, merge
from xretrieve.utils.files import atomic_folder, read_json, write_json

THRESHOLDS = {"pq4": 10_000, "binary": 200_000}  # vectors up to which every one is scored (docs/search.md: measured)
RESCORED = 400  # candidates of a search for 10
MORE = 20  # candidates of a search for k grow as k + 20: 100 hits take four times as many as 10, not ten times
TAIL = 8  # when the last eighth of the candidates holds a hit, there may be more behind it
DENSE = 4  # a search that would score a quarter of the vectors scores them all


def threshold_of(threshold: int | None, codes: str = "") -> int:
    """Vectors up to which `auto` is flat, where its options are these."""
    return THRESHOLDS[kind_of(codes)] if threshold is None else threshold


class AutoIndex(FlatIndex):
    """Flat up to ``threshold`` vectors. Beyond, 4-bit or binary codes of all vectors are held in memory and scanned;
    the best ``rescored`` are scored again by the vectors themselves, of which only these are read.

    Scores are float32 inner products, and equal ones are listed in the order of the vectors, as in the flat index. A
    filter that leaves no more than ``threshold`` vectors is exact. Removed and filtered vectors take no candidate's
    place. Where a hit was among the last candidates, or was no better than those, more are scored.

    Args:
        dim: width of the vectors.
        threshold: vectors up to which it is flat; None: as many as this is quicker for, 10,000 with FAISS, else
            200,000.
        rescored: candidates of a search for 10 hits; :func:`xretrieve.index.tuning.fit_recall` chooses it.
        codes: ``pq4`` (FAISS) or ``binary`` (numpy); '' takes the first where FAISS is installed.
    """

    name = "auto"
    OPTIONS = ("threshold", "rescored", "codes")

    def __init__(self, dim: int, threshold: int | None = None, rescored: int = RESCORED, codes: str = "") -> None:
        super().__init__(dim)
        check_kind(codes)
        self.threshold = threshold_of(threshold, codes)
        if self.threshold < 1 or rescored < 1:
            raise XRetrieveError(f"index auto: threshold {threshold} and rescored {rescored} must be at least 1")
        self.options: dict[str, Any] = {"threshold": threshold, "rescored": rescored, "codes": codes}
        self._codes: Codes | None = None
        self._joined: np.ndarray | None = None  # what _all_ids() gives, until a change,
        self._kept, self._many = np.zeros(0, bool), 0  # which of them are there, and how many

    @property
    def codes(self) -> str:
        """Kind of the codes in use; '' while it is flat."""
        return "" if self._codes is None else self._codes.kind

    def add(self, ids: np.ndarray, vectors: np.ndarray) -> None:
        """Add vectors (N, dim) under new ids (N,); beyond the threshold they are coded, block by block."""
        array = check_vectors(vectors, self.dim, "index auto")
        super().add(ids, array)
        self._joined = None
        if self._codes is not None:
            self._codes.add(array)
        self._switch()

    def remove(self, ids: np.ndarray) -> None:
        """Remove by id; an unknown id is an error and removes nothing."""
        self._mark_removed(ids)  # codes go by place, so the places stay
        self._joined = None
        self._switch()

    def _switch(self) -> None:
        """Codes beyond the threshold, none below."""
        if len(self) <= self.threshold:
            self._codes = None
        elif self._codes is None:
            codes = make_codes(self.options["codes"], self.dim)
            places = np.flatnonzero(self._all_ids() >= 0)
            if len(places) > SAMPLE:
                places = np.sort(np.random.default_rng(SEED).choice(places, SAMPLE, replace=False))
            codes.train(self._rows(places).numpy())
            for block in self._vectors:
                codes.add(block.numpy())
            self._codes = codes

    def search(self, vectors: np.ndarray, k: int, allowed: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
        """The best ``k`` per query (Q, dim): scores (Q, k) and ids (Q, k), padded with -inf and -1."""
        if self._codes is None or k < 1:
            return super().search(vectors, k, allowed)
        queries = check_vectors(vectors, self.dim, "query")
        ids = self._all_ids()
        if allowed is None:
            kept, count = self._kept, self._many
        else:
            kept = self._kept & np.isin(ids, np.asarray(allowed, np.int64))
            count = int(kept.sum())
        wanted = max(-(-self.options["rescored"] * (max(k, 10) + MORE) // (10 + MORE)), 2 * k)
        if count <= max(self.threshold, DENSE * wanted):
            return super().search(queries, k, allowed)
        many = self._as_many(wanted, count)
        if many * DENSE > len(ids):
            return super().search(queries, k, allowed)
        scores, found = np.full((len(queries), k), -np.inf, np.float32), np.full((len(queries), k), -1, np.int64)
        for row, near in enumerate(self._codes.nearest(queries, many)):
            scores[row], found[row] = self._one(queries[row : row + 1], near, k, kept, wanted, allowed)
        return scores, found

    def _as_many(self, wanted: int, count: int) -> int:
        """Candidates to ask for, so that ``wanted`` are left of the ``count`` that may be found."""
        total = len(self._all_ids())
        return min(total, wanted if count == total else -(-wanted * 9 * total // (8 * count)))

    def _one(
        self, query: np.ndarray, near: np.ndarray, k: int, kept: np.ndarray, wanted: int, allowed: np.ndarray | None
    ) -> tuple[np.ndarray, np.ndarray]:
        """One query (1, dim) with its candidates ``near`` (N,), more of which are asked for where these may not do."""
        assert self._codes is not None
        ids = self._all_ids()
        while True:
            left = near[near >= 0]
            left = left[kept[left]]
            if len(left) >= wanted:
                exact = self._products(query[0], left)
                last = np.partition(exact, -k)[-k]
                if exact[-max(1, len(left) // TAIL) :].max() < last:
                    row, score, place = np.zeros(len(left), np.int64), exact, left
                    scores, found = merge([(row, score, place, ids[place])], 1, k)
                    return scores[0], found[0]
                wanted *= 2
            if 2 * len(near) * DENSE > len(kept):
                scores, found = super().search(query, k, allowed)
                return scores[0], found[0]
            near = self._codes.nearest(query, 2 * len(near))[0]

    def _all_ids(self) -> np.ndarray:
        """(N,) ids by place, -1 where removed."""
        if self._joined is None:
            self._joined = np.concatenate([np.zeros(0, np.int64), *self._ids])
            self._kept = self._joined >= 0
            self._many = int(self._kept.sum())
        return self._joined

    def _products(self, query: np.ndarray, places: np.ndarray) -> np.ndarray:
        """(N,) float32 inner products of a query (dim,) with the vectors at some places; nothing else is read."""
        assert self._codes is not None
        made, start = np.empty(len(places), np.float32), 0
        for block in self._vectors:
            here = np.flatnonzero((places >= start) & (places < start + len(block)))
            made[here] = self._codes.products(query, block.numpy(), places[here] - start)
            start += len(block)
        return made

    def _rows(self, places: np.ndarray) -> torch.Tensor:
        """(N, dim) vectors at some places, in their order; nothing else is read."""
        rows, start = torch.empty(len(places), self.dim), 0
        for block in self._vectors:
            here = np.flatnonzero((places >= start) & (places < start + len(block)))
            some = block.index_select(0, torch.from_numpy(places[here] - start))
            rows.index_copy_(0, torch.from_numpy(here), some)
            start += len(block)
        return rows

    def __len__(self) -> int:
        self._all_ids()
        return self._many

    def save(self, path: str | Path, vectors: bool = True) -> None:
        """Write ``ids.npy`` (by place, -1 where removed), ``index.json``, the codes where there are any, and
        ``vectors.npy``, unless who loads it has the vectors elsewhere."""
        about = {"name": self.name, "dim": self.dim, "options": self.options, "codes": self.codes}
        with atomic_folder(path) as part:
            np.save(part / "ids.npy", self._all_ids())
            if vectors:
                empty = np.zeros((0, self.dim), np.float32)
                np.save(part / "vectors.npy", np.concatenate([empty, *(block.numpy() for block in self._vectors)]))
            if self._codes is not None:
                self._codes.save(part)
            write_json(part / "index.json", about)

    @classmethod
    def load(cls, path: str | Path, vectors: Sequence[np.ndarray] | None = None, **options: Any) -> AutoIndex:
        """Read what :meth:`save` wrote: ids and codes. Vectors stay memory maps; ``vectors`` (blocks, in the order in
        which they were added) where they were not saved."""
        path = Path(path)
        config = read_json(path / "index.json")
        try:
            index = cls(config["dim"], **(config["options"] | options))
            ids = np.load(path / "ids.npy")
            blocks = [np.load(path / "vectors.npy", mmap_mode="c")] if vectors is None else list(vectors)
            if config["codes"]:
                index._codes = make_codes(config["codes"], index.dim)
                index._codes.load(path)
                if len(index._codes) != len(ids):
                    raise ValueError(f"{len(index._codes)} codes for {len(ids)} ids")
            if sum(map(len, blocks)) != len(ids):
                raise ValueError(f"{sum(map(len, blocks))} vectors for {len(ids)} ids")
        except (OSError, ValueError, KeyError, TypeError, RuntimeError, BadZipFile) as error:
            raise XRetrieveError(f"{path} holds a damaged index ({error}); build it again") from error
        index._vectors = [as_tensor(check_vectors(block, index.dim, "index auto")) for block in blocks]
        index._ids = [i.copy() for i in np.split(ids, np.cumsum([len(block) for block in blocks])[:-1])]
        return index
