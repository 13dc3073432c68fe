"""Metrics of query sets after each round, and what they were measured on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from xretrieve.evaluation.metrics import KS, Column, Setting, rank_columns, sum_of_recalls
from xretrieve.evaluation.ranks import apply_ties


@dataclass
class RoundCounts:
    """For every query set and round, how many wrong images score above the right one and how many score the same.

    Args:
        greater, equal: (T, M) int64.
        owner: (M,) int64, the image row of each set.
        sizes: (M,) int64, the sentences of each set; a shorter one keeps its last rank in the rounds that follow.
    """

    greater: np.ndarray
    equal: np.ndarray
    owner: np.ndarray
    sizes: np.ndarray

    def ranks(self, ties: str = "expected") -> np.ndarray:
        """(T, M) float64, 0-based rank of each set's image after each round."""
        return apply_ties(self.greater, self.equal, ties)

    @property
    def tied(self) -> int:
        """Query sets whose image shares its score with another one in the last round."""
        return int((self.equal[-1] > 0).sum())

    def carried(self) -> RoundCounts:
        """With the last count of every short set carried forward."""
        last = np.minimum(np.arange(len(self.greater))[:, None], self.sizes[None] - 1)  # (T,M)
        greater, equal = (np.take_along_axis(counts, last, 0) for counts in (self.greater, self.equal))
        return RoundCounts(greater, equal, self.owner, self.sizes)


def round_columns(ranks: np.ndarray, ks: Sequence[int] = KS) -> list[Column]:
    """The metrics of every round, ``round1_r1`` ..., and ``rsum``: the last round's recalls added up.

    ranks (T, M) are 0-based.

    >>> from xretrieve.evaluation.metrics import values_of
    >>> values = values_of(round_columns(np.array([[3.0, 0.0], [0.0, 0.0]]), (1, 5)))
    >>> values["round1_r1"], values["round2_r1"], values["round1_medr"], values["rsum"]
    (50.0, 100.0, 2.0, 200.0)
    """
    rounds = [rank_columns(f"round{turn}_", now, ks) for turn, now in enumerate(ranks, start=1)]
    return [*(column for columns in rounds for column in columns), sum_of_recalls(rounds[-1])]


@dataclass(frozen=True)
class RoundsSetting(Setting):
    """What the numbers of query sets were measured on.

    Args:
        sets: query sets.
        turns: T, the rounds.
        captions: all sentences of all sets.
    """

    sets: int = 0
    turns: int = 0

    def gallery_of(self, group: str) -> int:
        """Every set is ranked against all images."""
        return self.images

    def queries_of(self, group: str) -> int:
        """The number of sets, whatever the round."""
        return self.sets

    def __str__(self) -> str:
        interval = (
            f"95 % interval over images ({self.resamples} resamples, seed {self.seed})"
            if self.resamples
            else "no intervals"
        )
        return (
            f"protocol {self.protocol}, {self.dataset}/{self.split}, {self.sets} query sets of up to {self.turns} "
            f"sentences x {self.images} images, coverage {100 * self.coverage:.4g} %, ties: {self.ties}, {interval}"
        )
