"""Ranks among candidates: each query has its own gallery (its reference removed, a small subset) and its positives.

Pure functions on a (Q, G) score matrix. A rank is 0-based: the wrong candidates above the best positive, plus half of
those level with it; a query without a positive among its candidates has rank infinity, a miss at every K.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from xretrieve.errors import XRetrieveError
from xretrieve.evaluation.ranks import apply_ties


@dataclass
class CandidateCounts:
    """For each query, the wrong candidates above its best positive and level with it.

    Args:
        greater, equal: (Q,) int64.
        reachable: (Q,) bool, False where no positive is a candidate.
    """

    greater: np.ndarray
    equal: np.ndarray
    reachable: np.ndarray

    def ranks(self, ties: str = "expected") -> np.ndarray:
        """(Q,) float64, 0-based; infinite where nothing can be found."""
        return np.where(self.reachable, apply_ties(self.greater, self.equal, ties), np.inf)

    @property
    def tied(self) -> np.ndarray:
        """(Q,) bool: the answer shares its score with a wrong candidate."""
        return self.reachable & (self.equal > 0)


def candidate_counts(
    scores: Any, positives: np.ndarray, candidates: np.ndarray | None = None, query_ids: Sequence[str] | None = None
) -> CandidateCounts:
    """Count wrong candidates above and level with the best positive of each query.

    Args:
        scores: (Q, G) float, compared as given; numpy or torch.
        positives: (Q, G) bool; or (Q,) the gallery position of the only one, -1 where it is not in the gallery.
        candidates: (Q, G) bool, what each query is ranked against; None: everything.
        query_ids: names for the message of a score that is not finite.

    >>> scores = np.array([[0.9, 0.5, 0.5, 0.1]])
    >>> candidate_counts(scores, np.array([1]), removed((1, 4), np.array([0]))).ranks()
    array([0.5])
    """
    scores = checked(scores, query_ids)
    q, g = scores.shape
    candidates = np.ones((q, g), bool) if candidates is None else candidates
    positives = one_hot(positives, g) if positives.ndim == 1 else positives
    if positives.shape != (q, g) or candidates.shape != (q, g):
        raise XRetrieveError(
            f"scores are {q} queries x {g} images; positives {positives.shape} and candidates {candidates.shape} do not"
            " fit"
        )
    right = positives & candidates
    best = np.where(right, scores, -np.inf).max(1, initial=-np.inf)[:, None]  # (Q,1)
    wrong = candidates & ~positives
    greater, equal = (wrong & (scores > best)).sum(1), (wrong & (scores == best)).sum(1)
    reachable = right.any(1)
    return CandidateCounts(np.where(reachable, greater, 0), np.where(reachable, equal, 0), reachable)


def removed(shape: tuple[int, int], reference: np.ndarray) -> np.ndarray:
    """Candidates (Q, G) bool: all but each query's own reference. reference (Q,), -1 where it is not in the gallery."""
    return ~one_hot(reference, shape[1])


def one_hot(place: np.ndarray, size: int) -> np.ndarray:
    """(Q, G) bool, True at each row's place; a row with -1 has none.

    >>> one_hot(np.array([1, -1]), 3).astype(int).tolist()
    [[0, 1, 0], [0, 0, 0]]
    """
    return np.asarray(place)[:, None] == np.arange(size)


def member_counts(scores: Any, members: np.ndarray, reference: np.ndarray, target: np.ndarray) -> CandidateCounts:
    """Rank of the target among the members of each query's subset without its reference (CIRR: 5 candidates).

    Args:
        scores: (Q, G).
        members: (Q, M) gallery positions, -1 where a subset has fewer.
        reference, target: (Q,) gallery positions.
    """
    scores = checked(scores)
    own = np.take_along_axis(scores, np.maximum(members, 0), 1)  # (Q,M)
    candidates = (members >= 0) & (members != reference[:, None])
    return candidate_counts(own, members == target[:, None], candidates)


def ordered(scores: Any, candidates: np.ndarray, k: int) -> np.ndarray:
    """(Q, k) gallery positions by descending score, ties by position; -1 where there are fewer candidates."""
    scores = checked(scores)
    hidden = np.where(candidates, scores, -np.inf)
    order = np.argsort(-hidden, axis=1, kind="stable")[:, :k]  # candidates are finite, so the others come last
    return np.where(np.take_along_axis(candidates, order, 1), order, -1)


def average_precision(scores: Any, positives: np.ndarray, candidates: np.ndarray, ks: Sequence[int]) -> np.ndarray:
    """AP@K of each query, (Q, len(ks)) in percent: precision at each hit up to K over min(#positives, K).

    Positives that are no candidates do not count; 0 without any. positives, candidates (Q, G) bool.
    """
    order = ordered(scores, candidates, max(ks))  # (Q,K)
    right = positives & candidates
    hits = np.where(order >= 0, np.take_along_axis(right, np.maximum(order, 0), 1), False)  # (Q,K)
    precision = hits.cumsum(1) / np.arange(1, hits.shape[1] + 1)
    gained, number = (precision * hits).cumsum(1), right.sum(1)  # (Q,K), (Q,)
    columns = [gained[:, min(k, gained.shape[1]) - 1] / np.maximum(1, np.minimum(number, k)) for k in ks]
    return 100 * np.stack(columns, 1)


def attribute_ceiling(positives: np.ndarray, ks: Sequence[int]) -> np.ndarray:
    """Strict R@K of a reader who finds all positives and cannot tell them apart, (len(ks),) percent.

    positives (Q,): how many images fit each edit.
    """
    return np.array([100 * np.minimum(1.0, k / np.maximum(positives, 1)).mean() for k in ks])


def checked(scores: Any, query_ids: Sequence[str] | None = None) -> np.ndarray:
    """The scores as a numpy matrix; NaN and infinity are an error that names the query."""
    if hasattr(scores, "detach"):
        scores = scores.detach().float().cpu().numpy()
    scores = np.asarray(scores)
    if scores.ndim != 2:
        raise XRetrieveError(f"scores must be a matrix of queries x images, got shape {scores.shape}")
    bad = ~np.isfinite(scores)
    if bad.any():
        row, column = np.argwhere(bad)[0]
        name = query_ids[row] if query_ids is not None else f"row {row}"
        raise XRetrieveError(
            f"the score of query {name} and gallery position {column} is {scores[row, column]} "
            f"({int(bad.sum())} such pairs); no metric is defined, look at the features or the training"
        )
    return scores


def replay_metrics(inputs: dict[str, Any], options: dict[str, Any]) -> dict[str, np.ndarray]:
    """All metrics of one block of queries by their golden names, for :func:`xretrieve.interop.replay`.

    Args:
        inputs: ``scores`` (Q,G), ``reference`` and ``target`` (Q,); ``subset`` (Q,6) and ``positives`` (Q,G) bool may
            be left out, with what needs them.
        options: ``ks``, ``subset_ks``, ``map_ks``, ``ties``.
    """
    missing = next((name for name in ("scores", "reference", "target") if name not in inputs), None)
    if missing:
        raise XRetrieveError(f"composed_metrics: no input {missing!r}; give scores (Q,G), reference and target (Q,)")
    scores, reference, target = (np.asarray(inputs[k]) for k in ("scores", "reference", "target"))
    ks = [int(k) for k in options.get("ks", (1, 5, 10, 50))]
    ties = str(options.get("ties", "expected"))
    union = np.unique(np.concatenate([reference, target]))
    out: dict[str, Any] = {"union_size": len(union)}
    for name, columns in (("full", np.arange(scores.shape[1])), ("union", union)):
        part, r, t = scores[:, columns], np.searchsorted(columns, reference), np.searchsorted(columns, target)
        for handling, candidates in (("kept", None), ("removed", removed(part.shape, r))):
            counts = candidate_counts(part, t, candidates)
            rank = out[f"rank/{name}_{handling}"] = counts.ranks(ties)
            out[f"recall/{name}_{handling}"] = recalls(rank, ks)
            if (name, handling) == ("full", "removed"):
                out["tied"], out["unreachable"] = counts.tied, int((~counts.reachable).sum())
    candidates = removed(scores.shape, reference)
    out["top10"] = ordered(scores, candidates, 10)
    if "subset" in inputs:
        subset = member_counts(scores, np.asarray(inputs["subset"]), reference, target).ranks(ties)
        out["subset_rank"] = subset
        out["subset_recall"] = recalls(subset, [int(k) for k in options.get("subset_ks", (1, 2, 3))])
        out["cirr_mean"] = (recalls(out["rank/full_removed"], [5])[0] + recalls(subset, [1])[0]) / 2
    if "positives" in inputs:
        positives = np.asarray(inputs["positives"], bool)
        out["relaxed_rank"] = candidate_counts(scores, positives, candidates).ranks(ties)
        out["relaxed_recall"] = recalls(out["relaxed_rank"], ks)
        out["map"] = average_precision(
            scores, positives, candidates, [int(k) for k in options.get("map_ks", (5, 10, 25, 50))]
        ).mean(0)
        out["attribute_ceiling"] = attribute_ceiling(positives.sum(1), ks)
    return {name: np.asarray(value) for name, value in out.items()}


def recalls(ranks: np.ndarray, ks: Sequence[int]) -> np.ndarray:
    """R@K in percent, (len(ks),) float64."""
    return np.array([100 * np.mean(ranks < k, dtype=np.float64) for k in ks])
