"""How many candidates are enough, and how much of the first stage's score to keep: chosen on validation data."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from xretrieve.data.turns import query_sets
from xretrieve.errors import XRetrieveError
from xretrieve.evaluation.candidates import recalls
from xretrieve.gallery.blend import Scale, blended
from xretrieve.utils.precision import scoring_in
from xretrieve.utils.progress import bar

if TYPE_CHECKING:
    from xretrieve.data.base import RetrievalDataset
    from xretrieve.data.cache import FeatureCache
    from xretrieve.gallery import Gallery
    from xretrieve.matcher import Matcher
    from xretrieve.tokens import Prepared

KS = (1, 5, 10)
CANDIDATES = (10, 20, 50, 100, 200, 500, 1000)
BLENDS = tuple(round(0.1 * i, 1) for i in range(11))
MOST_LOST = 0.1  # points of recall that fewer candidates may cost
QUERIES = 1000
BLOCK = 64  # queries scored at once
TURNS = 5  # sentences of the longest query sets
WEAK = 0.01  # share of the validation queries that find no better score than what is called weak
SPREAD = 100  # candidates of a query that the scores are standardised over


def cascade_ranks(coarse: np.ndarray, final: np.ndarray, positive: np.ndarray, rerank: int) -> np.ndarray:
    """(Q,) 0-based rank of each query's picture when the best ``rerank`` by ``coarse`` are re-ranked by ``final``.

    Args:
        coarse, final: scores (Q, N). Pictures that are no candidates follow in coarse order.
        positive: (Q,) column of the right picture. Ties count half.

    >>> coarse, final = np.array([[4.0, 3.0, 2.0, 1.0]]), np.array([[0.0, 1.0, 2.0, 3.0]])
    >>> [cascade_ranks(coarse, final, np.array([2]), k).tolist() for k in (1, 3, 4)]
    [[2.0], [0.0], [1.0]]
    """
    place = _ranks(coarse, positive)  # (Q,)
    kept = np.argsort(-coarse, axis=1, kind="stable")[:, :rerank]  # (Q,K)
    among = np.take_along_axis(final, kept, 1)
    own = np.take_along_axis(final, positive[:, None], 1)
    there = (kept == positive[:, None]).any(1)
    above = (among > own).sum(1) + ((among == own).sum(1) - 1) / 2
    return np.where(there, above, np.maximum(place, rerank))


def _ranks(scores: np.ndarray, positive: np.ndarray) -> np.ndarray:
    own = np.take_along_axis(scores, positive[:, None], 1)
    return (scores > own).sum(1) + ((scores == own).sum(1) - 1) / 2


def scale_of(scores: np.ndarray, coarse: np.ndarray) -> Scale:
    """Mean, and standard deviation within a query, of ``scores`` (Q, N) over the best candidates by ``coarse``."""
    kept = np.argsort(-coarse, axis=1, kind="stable")[:, :SPREAD]
    chosen = np.take_along_axis(scores, kept, 1).astype(np.float64)
    return float(chosen.mean()), max(float(chosen.std(1).mean()), 1e-9)


def choose(
    coarse: np.ndarray, head: np.ndarray, positive: np.ndarray, most_lost: float = MOST_LOST,
    candidates: Sequence[int] = CANDIDATES, blends: Sequence[float] = BLENDS,
) -> dict[str, Any]:  # fmt: skip
    """The share of the head's score that finds most over all pairs, and the fewest candidates that lose no more.

    Args:
        coarse, head: scores (Q, N) of the first stage and of the head.
        positive: (Q,) column of the right picture.
        most_lost: points of R@1, R@5 and R@10 that may be lost against re-ranking everything; less is asked for.
        candidates, blends: what is tried; ``all`` too.

    Returns:
        What ``gallery.json`` keeps under ``cascade``: ``rerank``, ``blend``, ``coarse`` and ``head`` (their scales),
        ``recalls`` over all pairs (of the first stage, the head and the blend) and by number of candidates, ``lost``,
        ``weak`` (:class:`xretrieve.gallery.blend.Tuned`).
    """
    total = coarse.shape[1]
    scales = scale_of(coarse, coarse), scale_of(head, coarse)
    by_blend = {}
    for share in blends:
        final = blended(coarse, head, *scales, share)
        by_blend[share] = recalls(_ranks(final, positive), KS)
    best = max(blends, key=lambda share: (round(float(by_blend[share].mean()), 6), share))
    final, whole = blended(coarse, head, *scales, best), by_blend[best]
    table = []
    for rerank in [k for k in candidates if k < total]:
        found = recalls(cascade_ranks(coarse, final, positive, rerank), KS)
        lost = round(float((whole - found).max()), 6)  # one query of 1000 is 0.1, not a little less
        table.append({"rerank": rerank, "recall": found.tolist(), "lost": lost})
    enough = next((row for row in table if row["lost"] < most_lost), None)
    return {
        "rerank": enough["rerank"] if enough else "all",
        "blend": best,
        "coarse": list(scales[0]),
        "head": list(scales[1]),
        "lost": enough["lost"] if enough else 0.0,
        "most_lost": most_lost,
        "weak": float(np.percentile((head if best == 1 else final).max(1), 100 * WEAK)),
        "ks": list(KS),
        "recall": {
            "coarse": recalls(_ranks(coarse, positive), KS).tolist(),
            "head": recalls(_ranks(head, positive), KS).tolist(),
            "blend": whole.tolist(),
        },
        "by_rerank": table,
        "by_blend": [{"blend": share, "recall": by_blend[share].tolist()} for share in blends],
        "queries": len(coarse),
        "images": total,
    }


def tune(
    gallery: Gallery, dataset: RetrievalDataset, queries: int = QUERIES, most_lost: float = MOST_LOST,
    cache: FeatureCache | None = None, batch_size: int = 64, progress: bool = False, precision: str = "auto",
) -> dict[str, Any]:  # fmt: skip
    """Measure a gallery's two matchers on validation data, and keep what is best in the gallery.

    From then on its searches take that number of candidates and that blend unless they are told otherwise.

    Args:
        gallery: with local tokens and a coarse space that chooses candidates.
        dataset: a split that nobody was trained on, and that no result is reported on.
        queries: how many, evenly spread over the split (:func:`asked`).
        most_lost: as in :func:`choose`.
        precision: of the head's scores, as in :func:`xretrieve.evaluate`; ``auto`` is that of the gallery's searches.
    """
    check_tunable(gallery)
    main, asked_for = gallery.matcher, gallery.info.get("precision", "auto") if precision == "auto" else precision
    how: dict[str, Any] = {"cache": cache, "batch_size": batch_size, "progress": progress}
    with scoring_in(main, main.precision if asked_for == "auto" else asked_for):
        coarse, head, positive = both_scores(main, gallery.coarse, dataset, queries, **how)
        used = main.scored_in()
    chosen = choose(coarse, head, positive, most_lost)
    chosen |= {"dataset": dataset.name, "split": dataset.split, "kind": _kind(main), "scored_in": used}
    gallery.keep_cascade(chosen)
    return chosen


def both_scores(
    main: Matcher, other: Matcher | None, dataset: RetrievalDataset, queries: int = QUERIES,
    cache: FeatureCache | None = None, batch_size: int = 64, progress: bool = False,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:  # fmt: skip
    """What two stages say of every picture of a split: scores (Q, N) of the first stage and of the head, and the column
    (Q,) of the picture that each query is about.

    Args:
        main: scores token by token.
        other: the first stage; None where it is the coarse space of ``main`` itself.
        dataset, queries: as in :func:`tune`.
    """
    import torch

    said, positive = asked(main, dataset, queries)
    how: dict[str, Any] = {"ids": dataset.image_ids, "batch_size": batch_size, "cache": cache, "progress": progress}
    with torch.inference_mode():
        images, texts = main.encode_images(dataset.images, **how), _encode(main, main, said)
        if other is None:
            first = texts.pooled @ images.pooled.T
        else:
            first = _encode(other, main, said).pooled @ other.encode_images(dataset.images, **how).pooled.T
        starts = list(range(0, len(said), BLOCK))
        parts = [main.score(texts[start : start + BLOCK], images) for start in bar(starts, "scoring", progress)]
    return first.float().cpu().numpy(), torch.cat(parts).float().cpu().numpy(), positive


def asked(matcher: Matcher, dataset: RetrievalDataset, most: int) -> tuple[list[list[str]], np.ndarray]:
    """What a matcher is measured with: captions, or query sets for a head that reads them.

    Args:
        matcher: its head decides.
        dataset: a split.
        most: so many, evenly spread over it.

    Returns:
        The texts of each query: one caption; or the first 1, 2, ... 5 sentences of a set, in turn, as a session grows.
        And the image row (Q,) that each is about.
    """
    if _kind(matcher) == "captions":
        rows = _spread(len(dataset.captions), most)
        return [[dataset.captions[row]] for row in rows], np.asarray(dataset.owner)[rows]
    sets = query_sets(dataset)
    rows = _spread(len(sets), most)
    return [sets.said(row)[: 1 + i % TURNS] for i, row in enumerate(rows)], sets.owner[rows]


def _kind(matcher: Matcher) -> str:
    return "query sets" if matcher.head.set_stage is not None else "captions"


def _spread(total: int, most: int) -> np.ndarray:
    return np.unique(np.linspace(0, total - 1, min(most, total)).astype(int))


def _encode(matcher: Matcher, main: Matcher, said: list[list[str]]) -> Prepared:
    """The queries by one of the two matchers, in the form that ``main`` asks for."""
    if _kind(main) == "query sets":
        return matcher.encode_sets(said)
    return matcher.encode_texts([texts[0] for texts in said])


def check_tunable(gallery: Gallery) -> None:
    """A gallery with nothing to choose is an error."""
    by = gallery.info.get("coarse", {}).get("by")
    if by is None:
        raise XRetrieveError(
            f"{gallery.path}: the vectors of {gallery.info['matcher']['name']!r} are its scores, so there is no second "
            "stage to tune"
        )
    if by == "none" or gallery.bounded:
        raise XRetrieveError(
            f"{gallery.path} takes no candidates: every search of it is exact; build it with a dual encoder as coarse "
            "(--coarse RUN) to tune how the two work together"
        )
