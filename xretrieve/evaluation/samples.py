"""Rankings to look at: the top 5 of some queries that were answered, some in the middle and some that failed."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from xretrieve.errors import XRetrieveError
from xretrieve.evaluation.metrics import DIRECTIONS, fold_members
from xretrieve.evaluation.ranks import RankCounts, top_k

OUTCOMES = ("found", "median", "worst")


@dataclass
class SampleHit:
    """One retrieved item. ``right`` says whether it belongs to the query; ``text`` is empty for images."""

    id: str
    score: float
    right: bool
    text: str = ""


@dataclass
class Sample:
    """One query and what it retrieved.

    Args:
        direction: ``t2i`` (a caption asks for images) or ``i2t``.
        outcome: ``found`` (drawn from the queries answered at rank 1), ``median`` or ``worst``.
        query: id of the caption or image.
        text: the caption, empty for an image.
        answer: id of the right image, or of the best own caption.
        rank: 1-based rank of the answer.
        hits: the top of the ranking, best first.
    """

    direction: str
    outcome: str
    query: str
    text: str
    answer: str
    rank: float
    hits: list[SampleHit]

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Sample:
        """The inverse of ``dataclasses.asdict``."""
        return cls(**{**values, "hits": [SampleHit(**hit) for hit in values["hits"]]})


def pick(ranks: np.ndarray, each: int, seed: int = 0) -> dict[str, np.ndarray]:
    """Query numbers to show: ``each`` of the found ones, drawn by the seed, of those at the median, of the worst."""
    rng = np.random.default_rng([seed, len(ranks)])
    found = np.flatnonzero(ranks < 1)
    shuffled = rng.permutation(len(ranks))  # among equal ranks any may be shown, not always the first
    order = shuffled[np.argsort(ranks[shuffled], kind="stable")]
    middle = max(0, len(order) // 2 - each // 2)
    rows = (np.sort(rng.permutation(found)[:each]), order[middle : middle + each], order[::-1][:each])
    return dict(zip(OUTCOMES, rows, strict=True))


def choose_samples(
    scores: np.ndarray,
    counts: RankCounts,
    image_ids: Sequence[str],
    caption_ids: Sequence[str],
    captions: Sequence[str],
    *,
    ties: str = "expected",
    each: int = 2,
    top: int = 5,
    seed: int = 0,
) -> list[Sample]:
    """Samples of both directions. scores (N, C); with folds a query only sees its own fold."""
    owner, size = counts.owner, len(image_ids) // counts.folds
    members = fold_members(owner, len(image_ids), counts.folds)
    samples, shown = [], set()
    for direction, ranks in zip(DIRECTIONS[::-1], (counts.t2i(ties), counts.i2t(ties)), strict=True):
        for outcome, queries in pick(ranks, each, seed).items():
            for query in queries.tolist():
                if (direction, query) in shown:  # a small split: one query may be found and median
                    continue
                shown.add((direction, query))
                image = int(owner[query]) if direction == "t2i" else query
                rows, columns = members[image // size]
                if direction == "t2i":
                    gallery = np.arange(rows.start, rows.stop)
                    line, right, ids, texts = scores[rows, query], gallery == image, image_ids, None
                    name, text, answer = caption_ids[query], captions[query], image_ids[image]
                else:
                    gallery = columns
                    line, right, ids, texts = scores[query, columns], owner[columns] == query, caption_ids, captions
                    best = gallery[right][np.argmax(line[right])]
                    name, text, answer = image_ids[query], "", caption_ids[best]
                places = top_k(line[None], top)[0][0].tolist()
                hits = [
                    SampleHit(
                        str(ids[gallery[p]]),
                        float(line[p]),
                        bool(right[p]),
                        texts[gallery[p]] if texts is not None else "",
                    )
                    for p in places
                ]
                rank = float(ranks[query]) + 1
                samples.append(Sample(direction, outcome, str(name), text, str(answer), rank, hits))
    return samples


def pictures_of(samples: Sequence[Sample]) -> list[str]:
    """Ids of the images that the samples show, each once."""
    ids = []
    for sample in samples:
        ids += [sample.answer, *(hit.id for hit in sample.hits)] if sample.direction == "t2i" else [sample.query]
    return list(dict.fromkeys(ids))


def thumbnail(image: Any, height: int = 132) -> bytes | None:
    """A small JPEG of a path or PIL image; None for what is no picture (feature rows) or cannot be read."""
    from xretrieve.data.pictures import read_picture

    try:
        small = read_picture(image, side=2 * height)
    except XRetrieveError:
        return None
    small.thumbnail((3 * height, height))
    out = io.BytesIO()
    small.save(out, "JPEG", quality=72, optimize=True)
    return out.getvalue()
