"""Scores of query sets after each round, a block of sets at a time: the head's own, or a simple combination."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from xretrieve.data.turns import QuerySets
from xretrieve.heads.fusion import check_combine, combine_rounds, paragraphs

BLOCK_SETS = 256
BLOCK_FLOATS = 1 << 26  # of a block's scores (T, N, block), at most 256 MB


def combined_texts(sets: QuerySets, combine: str) -> list[str]:
    """What the text backbone reads, set after set: the sentences, or with ``paragraph`` every prefix joined."""
    if combine != "paragraph":
        return sets.texts
    return [text for row in range(len(sets)) for text in paragraphs(sets.said(row))]


class RoundScorer:
    """Scores blocks of sets whose sentences are encoded already.

    Args:
        matcher: a :class:`xretrieve.Matcher`, or anything with its ``score`` and ``score_rounds``.
        sets: the query sets.
        queries: their prepared sets (``head``), or the prepared texts of :func:`combined_texts`.
        gallery: what the matcher's ``encode_images`` gave, N images.
        combine: ``head`` (the head reads the sets itself), or one of :data:`xretrieve.heads.fusion.COMBINE`.
    """

    def __init__(self, matcher: Any, sets: QuerySets, queries: Any, gallery: Any, combine: str = "head") -> None:
        self.matcher, self.sets, self.queries, self.gallery = matcher, sets, queries, gallery
        self.combine = check_combine(combine)
        self._ends = np.cumsum(sets.sizes)

    @classmethod
    def encode(cls, matcher: Any, sets: QuerySets, gallery: Any, combine: str = "", cache: Any = None) -> RoundScorer:
        """Encodes all sentences once. ``cache`` is that of a frozen text backbone's tokens."""
        combine = check_combine(combine)
        if combine == "head":
            queries = matcher.encode_sets([sets.said(row) for row in range(len(sets))], cache=cache)
        else:
            queries = matcher.encode_texts(combined_texts(sets, combine), cache=cache)
        return cls(matcher, sets, queries, gallery, combine)

    def score(self, rows: Sequence[int] | np.ndarray, last: bool = False) -> Tensor:
        """(T, N, b) float32 scores of some sets; T is that of the longest of all sets. ``last``: (1, N, b)."""
        rows = np.asarray(rows)
        with torch.inference_mode():
            if self.combine == "head":
                chosen = self.queries[torch.from_numpy(rows)]
                if last:
                    return self.matcher.score(chosen, self.gallery).float().T[None]
                scores = self.matcher.score_rounds(chosen, self.gallery)
            else:
                sizes = self.sets.sizes[rows]
                places = np.concatenate([np.arange(self._ends[r] - self.sets.sizes[r], self._ends[r]) for r in rows])
                alone = self.matcher.score(self.queries[torch.from_numpy(places)], self.gallery).float()
                scores = combine_rounds(alone, torch.from_numpy(sizes), self.combine)
            if last:
                return scores[-1:].float()
        more = self.sets.longest - len(scores)  # a block of short sets has fewer rounds: the last one holds on
        return torch.cat([scores, scores[-1:].expand(more, -1, -1)]).float() if more else scores.float()

    def blocks(self) -> list[np.ndarray]:
        """All sets, cut into blocks whose scores fit into memory."""
        size = max(1, min(BLOCK_SETS, BLOCK_FLOATS // (self.sets.longest * len(self.gallery))))
        return [np.arange(i, min(i + size, len(self.sets))) for i in range(0, len(self.sets), size)]
