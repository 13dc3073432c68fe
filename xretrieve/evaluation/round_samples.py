"""Query sets to look at: how the right image rises from round to round, and what stands before it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from xretrieve.data.turns import QuerySets
from xretrieve.evaluation.ranks import top_k
from xretrieve.evaluation.round_metrics import RoundCounts
from xretrieve.evaluation.samples import SampleHit, pick


@dataclass
class RoundSample:
    """One query set.

    Args:
        outcome: ``found``, ``median`` or ``worst``, by its rank in the last round.
        query: id of the set.
        answer: id of its image.
        turns: its sentences.
        ranks: 1-based rank of the image after each of them.
        first, hits: the top of the ranking after the first and after the last sentence.
    """

    outcome: str
    query: str
    answer: str
    turns: list[str]
    ranks: list[float]
    first: list[SampleHit]
    hits: list[SampleHit]

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> RoundSample:
        """The inverse of ``dataclasses.asdict``."""
        hits = {key: [SampleHit(**hit) for hit in values[key]] for key in ("first", "hits")}
        return cls(**{**values, **hits})


def choose_round_samples(
    score: Callable[[np.ndarray], np.ndarray],
    counts: RoundCounts,
    sets: QuerySets,
    image_ids: Sequence[str],
    *,
    ties: str = "expected",
    each: int = 2,
    top: int = 5,
    seed: int = 0,
) -> list[RoundSample]:
    """A few sets of each outcome. ``score`` gives (T, N, b) for the rows of some sets."""
    ranks = counts.ranks(ties)
    chosen: dict[int, str] = {}
    for outcome, rows in pick(ranks[-1], each, seed).items():
        for row in rows.tolist():
            chosen.setdefault(row, outcome)  # a small split: one set may be found and median
    if not chosen:
        return []
    scores = score(np.array(list(chosen)))
    samples = []
    for place, (row, outcome) in enumerate(chosen.items()):
        said, image = sets.said(row), int(sets.owner[row])
        last = len(said) - 1
        tops = [_top(scores[turn, :, place], image, image_ids, top) for turn in (0, last)]
        shown = [float(rank) + 1 for rank in ranks[: len(said), row]]
        samples.append(RoundSample(outcome, sets.ids[row], str(image_ids[image]), said, shown, *tops))
    return samples


def _top(scores: np.ndarray, image: int, image_ids: Sequence[str], top: int) -> list[SampleHit]:
    places = top_k(scores[None], top)[0][0].tolist()
    return [SampleHit(str(image_ids[p]), float(scores[p]), p == image) for p in places]


def round_pictures(samples: Sequence[RoundSample]) -> list[str]:
    """Ids of the images that the samples show, each once."""
    ids = [i for s in samples for i in (s.answer, *(hit.id for hit in (*s.first, *s.hits)))]
    return list(dict.fromkeys(ids))
