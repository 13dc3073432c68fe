"""Composed queries to look at: the reference, what was said, and what was found."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from xretrieve.evaluation.candidates import ordered, removed
from xretrieve.evaluation.samples import SampleHit, pick

if TYPE_CHECKING:
    from xretrieve.data.triplets import ComposedDataset
    from xretrieve.evaluation.composed_metrics import ComposedCounts
    from xretrieve.evaluation.composed_protocols import ComposedProtocol
    from xretrieve.evaluation.composed_vectors import Asked


@dataclass
class ComposedSample:
    """One query.

    Args:
        outcome: ``found``, ``median`` or ``worst``, by the rank of its target.
        query: its id.
        text: what was said.
        reference, answer: ids of the reference and the target image.
        rank: 1-based rank of the target.
        hits: the top of the ranking; right are all images that are known to fit.
    """

    outcome: str
    query: str
    text: str
    reference: str
    answer: str
    rank: float
    hits: list[SampleHit]

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> ComposedSample:
        """The inverse of ``dataclasses.asdict``."""
        return cls(**{**values, "hits": [SampleHit(**hit) for hit in values["hits"]]})


def choose_composed_samples(
    score: Callable[[np.ndarray, np.ndarray], np.ndarray],
    counts: ComposedCounts,
    queries: Asked,
    data: ComposedDataset,
    protocol: ComposedProtocol,
    *,
    each: int = 2,
    top: int = 5,
    seed: int = 0,
) -> list[ComposedSample]:
    """A few queries of each outcome, among those whose target can be found. ``score``: as in ``composed.count``."""
    ranks = counts.strict.ranks(protocol.ties)[: len(queries)]
    reached = np.flatnonzero(np.isfinite(ranks))
    samples, shown = [], set()
    for outcome, places in pick(ranks[reached], each, seed).items() if len(reached) else ():
        for query in reached[places].tolist():
            if query in shown:  # a small split: one query may be found and median
                continue
            shown.add(query)
            triplet = data.triplets[queries.pair[query]]
            gallery = data.gallery(protocol.rule, triplet.category).rows
            scores = score(np.array([query]), gallery)
            own = np.flatnonzero(gallery == triplet.reference)
            gone = np.array([own[0] if len(own) and protocol.reference == "removed" else -1])
            fits = {*triplet.positives, triplet.target}
            best = [p for p in ordered(scores, removed(scores.shape, gone), top)[0].tolist() if p >= 0]
            hits = [SampleHit(data.image_ids[gallery[p]], float(scores[0, p]), int(gallery[p]) in fits) for p in best]
            text = " / ".join(queries.texts[t] for t in queries.text_rows[query])
            samples.append(ComposedSample(
                outcome, queries.ids[query], text, data.image_ids[triplet.reference],
                data.image_ids[triplet.target], float(ranks[query]) + 1, hits,
            ))  # fmt: skip
    return samples


def composed_pictures(samples: Sequence[ComposedSample]) -> list[str]:
    """Ids of the images that the samples show, each once."""
    return list(dict.fromkeys(i for s in samples for i in (s.reference, s.answer, *(hit.id for hit in s.hits))))
