"""The two stages of a search: the coarse vectors choose candidates, the head scores them exactly.

A head whose vectors are its scores needs the first stage only. One that scores token by token takes its candidates from
a coarse space; where there is none, it scores every picture. HMRN knows which pictures cannot be among the best, and
finds the best of all.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from xretrieve.errors import QueryKindError, XRetrieveError
from xretrieve.gallery.blend import Tuned, share_of
from xretrieve.gallery.encode import to_numpy
from xretrieve.gallery.matchers import Matchers
from xretrieve.gallery.queries import Asked
from xretrieve.gallery.store import Store
from xretrieve.gallery.stored_images import StoredImages
from xretrieve.gallery.vector_index import EXACT, GalleryIndex
from xretrieve.heads.scoring import score_matrix, score_pairs
from xretrieve.heads.turns import Turns
from xretrieve.query import Query
from xretrieve.tokens import Prepared

RERANKED = 100  # candidates that are scored exactly, unless a search says otherwise
READ = 16 * 2**20  # bytes of tokens (as float32) that are read from the disk at once; more costs more memory and time
ALL, AUTO = "all", "auto"
WEAK = "nothing fits well: 99 of 100 validation queries find a better score; try other words"

Rerank = int | str | None


@dataclass
class Found:
    """Rows of a gallery, best first, and their scores; the head itself scored the first ``exact`` of them, and of all
    that could be found the ``share`` (None where vectors are the scores). ``weak``: none of them fits well."""

    rows: list[int]
    scores: list[float]
    exact: int
    note: str = ""
    share: float | None = None
    weak: bool = False


class Stages:
    """Coarse order and exact scores of one gallery.

    Args:
        store: rows, vectors and tokens.
        index: over the vectors.
        matchers: encode the queries.
    """

    def __init__(self, store: Store, index: GalleryIndex, matchers: Matchers) -> None:
        self._store, self._index, self._matchers = store, index, matchers
        self._tuned = Tuned.of(store.info)

    def find(
        self, query: Query, k: int, allowed: np.ndarray | None, rerank: Rerank, asked: Asked | None = None,
        blend: float | str | None = None,
    ) -> Found:  # fmt: skip
        """The best ``k`` rows for a query, of those ``allowed`` (None: of all); ``rerank`` and ``blend`` as in
        ``Gallery.search``.

        asked: the queries that are answered together with this one.
        """
        share = share_of(blend, self._tuned, self._store.folder)
        found = self._find(query, k, allowed, rerank, asked or Asked([query]), share)
        if allowed is None and found.exact and self._tuned is not None and self._tuned.is_weak(found.scores[0], share):
            return replace(found, weak=True, note="; ".join(filter(None, [found.note, WEAK])))
        return found

    def _find(
        self, query: Query, k: int, allowed: np.ndarray | None, rerank: Rerank, asked: Asked, share: float
    ) -> Found:
        count = self.how_many(rerank)
        total = len(self._store) if allowed is None else len(allowed)
        k = min(k, total)
        if not total:
            return Found([], [], 0)
        if not self._store.has_tokens:
            rows, scores = self._coarse(query, k, allowed, asked, asked.prepared(self._matchers.main, query))
            return Found(rows, scores, len(rows))
        note, prepared = self._said_of_auto(rerank), None
        if count != 0:
            try:
                prepared = asked.prepared(self._matchers.main, query).check_finite([repr(query)])
            except QueryKindError as error:
                if rerank is not None or self._matchers.coarse_by == "none":
                    raise
                note = f"{error}; so this is the order of the coarse vectors"
        if prepared is None:
            rows, scores = self._coarse(query, k, allowed, asked)
            return Found(rows, scores, 0, note, 0.0)
        if count is None or count >= total:
            every = self._store.live() if allowed is None else allowed
            if share < 1:
                whole = self._both(query, prepared, every, k, share, asked)
            else:
                whole = self.bounded(prepared, every, k) if self._bounds() else self._every(prepared, every, k)
            return replace(whole, note=note)
        rows, scores = self._coarse(query, max(k, count), allowed, asked, prepared)
        scored = self.rescore(prepared, np.array([rows[:count]], np.int64))[0]
        if share < 1 and self._tuned is not None:
            scored = self._tuned.blended(np.array(scores[:count]), scored, share)
        best = _order(scored)
        rows[:count], scores[:count] = np.array(rows)[best].tolist(), scored[best].tolist()
        return Found(rows[:k], scores[:k], min(k, len(best)), note, len(best) / total)

    def how_many(self, rerank: Rerank) -> int | None:
        """Candidates to score exactly, None for every picture. What cannot be done is an error."""
        if isinstance(rerank, str) and rerank not in (ALL, AUTO):
            raise XRetrieveError(f"rerank is {rerank!r}; give a number of candidates, 0 for none, {ALL!r} or {AUTO!r}")
        if isinstance(rerank, bool) or not isinstance(rerank, (int, str, type(None))):
            raise XRetrieveError(f"rerank is {rerank!r}; give a whole number of candidates, or {ALL!r}")
        if isinstance(rerank, int) and rerank < 0:
            raise XRetrieveError(f"rerank is {rerank}; give 0 for the coarse order, or more candidates")
        if rerank == AUTO and self._tuned is None and self._store.has_tokens:
            raise XRetrieveError(
                f"rerank='auto' needs a measurement: run `xretrieve tune {self._store.folder}` first, or give a number"
            )
        if rerank in (None, AUTO) and self._tuned is not None:
            rerank = self._tuned.rerank
        if rerank == ALL or not self._store.has_tokens:
            return None
        if rerank is None and (self._matchers.coarse_by == "none" or self.by_bound):
            return None
        if self._matchers.coarse_by != "none":
            return RERANKED if rerank is None else int(rerank)
        raise XRetrieveError(
            f"rerank={rerank} needs a coarse space to take candidates from, and {self._store.folder} has none: leave "
            "rerank out (every picture is scored exactly), build the gallery again with a dual encoder as coarse "
            "(--coarse RUN), or train the matcher with a coarse loss"
        )

    @property
    def by_bound(self) -> bool:
        """Whether a search is by itself the exact scan that leaves most pictures out: the head knows bounds, and nobody
        gave it another matcher to choose candidates, or an approximate index."""
        return self._store.has_tokens and self._matchers.coarse_by != "matcher" and self._index.name in EXACT and \
            self._bounds()  # fmt: skip

    def _bounds(self) -> bool:
        """Whether most pictures can be left out of a scan that stays exact (:mod:`xretrieve.heads.bound`)."""
        return self._matchers.main.head.bounds is not None

    def _every(self, prepared: Prepared, rows: np.ndarray, k: int) -> Found:
        """The best ``k`` of some rows, all of them scored."""
        return _best(rows, self.scan(prepared, rows)[0], k)

    def _both(self, query: Query, prepared: Prepared, rows: np.ndarray, k: int, share: float, asked: Asked) -> Found:
        """The best ``k`` of some rows by the blended score, all of them scored by both stages: the index, which may
        approximate, is not asked."""
        assert self._tuned is not None, "share_of() gives 1 where nothing was measured"
        vector = self._query_vector(query, asked, prepared)
        first = np.concatenate([vector @ self._store.vectors(piece).T for piece in self._pieces(rows)], 1)[0]
        return _best(rows, self._tuned.blended(first, self.scan(prepared, rows)[0], share), k)

    def _said_of_auto(self, rerank: Rerank) -> str:
        """What a search that asked for ``auto`` is told."""
        return self._tuned.told if rerank == AUTO and self._tuned is not None and self._store.has_tokens else ""

    def bounded(self, prepared: Prepared, rows: np.ndarray, k: int) -> Found:
        """The answer of scoring all, for one query of a head that has bounds; most rows are not scored in full."""
        matcher = self._matchers.main
        images = StoredImages(self._store, matcher, rows)
        best = Turns(matcher.head, images, dtype=self._matchers.pair_dtype).top_k_of(prepared, k)
        found = rows[best.rows[0].cpu().numpy()].tolist()
        return Found(found, best.scores[0].tolist(), len(found), share=best.share)

    @torch.inference_mode()
    def scan(self, queries: Prepared, rows: np.ndarray) -> np.ndarray:
        """Exact scores (Q, N) float32 of some rows, read from the disk piece by piece."""
        head, dtype = self._matchers.main.head, self._matchers.pair_dtype
        parts = [score_matrix(head, queries, self._read(piece), dtype=dtype) for piece in self._pieces(rows)]
        return _float32(torch.cat(parts, 1))

    @torch.inference_mode()
    def rescore(self, queries: Prepared, candidates: np.ndarray) -> np.ndarray:
        """Exact scores (Q, K) float32 of each query's own candidates, rows (Q, K); a row that several queries name is
        read once."""
        if len(candidates) == 1:  # its candidates are all that is read: none of them is copied into a list of its own
            rows, places = np.unique(candidates[0], return_inverse=True)
            return self.scan(queries, rows)[:, places]
        head, dtype, parts = self._matchers.main.head, self._matchers.pair_dtype, []
        for columns in self._pieces(np.arange(candidates.shape[1]), len(candidates)):
            rows, places = np.unique(candidates[:, columns], return_inverse=True)
            listed = torch.from_numpy(places.reshape(len(candidates), -1))
            parts.append(score_pairs(head, queries, self._read(rows), listed, dtype=dtype))
        return _float32(torch.cat(parts, 1))

    def _pieces(self, rows: np.ndarray, times: int = 1) -> Iterator[np.ndarray]:
        """Rows in runs whose tokens fit the memory of one step."""
        step = max(1, READ // (4 * self._store.longest * self._store.info["tokens"]["dim"] * times))
        return (rows[start : start + step] for start in range(0, len(rows), step))

    def _read(self, rows: np.ndarray) -> Prepared:
        matcher = self._matchers.main
        tokens = self._store.tokens(rows).to(matcher.device)
        with torch.inference_mode():
            return matcher.head.restore_gallery(tokens.local, tokens.mask, tokens.pooled)

    def _coarse(
        self, query: Query, k: int, allowed: np.ndarray | None, asked: Asked, prepared: Prepared | None = None
    ) -> tuple[list[int], list[float]]:
        """Rows and scores of the best ``k`` by the coarse vectors."""
        scores, rows = self._index.search(self._query_vector(query, asked, prepared), k, allowed)
        found = rows[0] >= 0
        return rows[0][found].tolist(), scores[0][found].tolist()

    def _query_vector(self, query: Query, asked: Asked, prepared: Prepared | None) -> np.ndarray:
        """(1, D) float32, the query in the coarse space; ``prepared`` is what the main matcher made of it."""
        if prepared is None or self._matchers.coarse_by == "matcher":
            prepared = asked.prepared(self._matchers.coarse, query, coarse=True)
        dim = self._store.info["dim"]
        if prepared.pooled.shape != (1, dim):
            raise XRetrieveError(
                f"the query became vectors of shape {tuple(prepared.pooled.shape)}; the gallery holds {dim} values each"
            )
        prepared.check_finite([repr(query)])
        return to_numpy(prepared.pooled)


def check_k(k: int) -> int:
    """``k``, a whole number of at least 1."""
    if isinstance(k, bool) or not isinstance(k, int) or k < 1:
        raise XRetrieveError(f"k is {k!r}; ask for at least 1 result")
    return k


def _best(rows: np.ndarray, scores: np.ndarray, k: int) -> Found:
    """The best ``k`` rows of some, all of which were scored."""
    best = _order(scores)[:k]
    return Found(rows[best].tolist(), scores[best].tolist(), len(best), share=1.0)


def _order(scores: np.ndarray) -> np.ndarray:
    """Places from the highest score to the lowest; equal ones keep their order."""
    return np.argsort(-scores, kind="stable")


def _float32(scores: Tensor) -> np.ndarray:
    return scores.float().cpu().numpy()
