"""Bootstrap over images (or triplets): one is drawn together with all its queries, whose luck is shared.

Resampling is done on ranks (the gallery stays as it is) by weights: how often each image was drawn. Recalls and means
are then matrix products, the median is read off the middle of one sorted list, and no resample is a Python loop.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from xretrieve.errors import XRetrieveError
from xretrieve.evaluation.metrics import (
    Fold,
    mean,
    mean_rank,
    median_rank,
    share,
    with_parts,
)

_CHUNK = 8_000_000  # weights held at once: 64 MB of float64


def resampled(folds: Sequence[Fold], *, resamples: int = 1000, seed: int = 0) -> dict[str, np.ndarray]:
    """Every metric on every resample, averaged over the folds; groups are drawn inside each.

    Returns:
        metric name -> (resamples,) float64, NaN where a resample has no query of a metric. The same seed and groups
        draw the same: that pairs two calls.
    """
    total = {column.name: np.zeros(max(resamples, 0)) for column in folds[0].columns}
    for stream, fold in enumerate(folds):
        for name, values in _resampled(fold, resamples, seed, stream).items():
            total[name] += values / len(folds)
    return with_parts(folds[0].columns, total)  # what is made of others, from their averages


def _resampled(fold: Fold, resamples: int, seed: int, stream: int) -> dict[str, np.ndarray]:
    """One fold; ``stream`` is which of the independent draws of the seed its first stratum takes."""
    columns, group, strata = fold.columns, fold.group, fold.strata
    if resamples < 1:
        raise XRetrieveError(f"bootstrap: {resamples} resamples; ask for at least 1")
    here = group >= 0
    asked, unit = np.unique(group[here], return_inverse=True)  # (U,), (Q',)
    means = [column for column in columns if column.reduce in _MEANS]
    medians = [column for column in columns if column.reduce is median_rank]
    assert strata is None or not medians  # the median of several strata is no sum over them
    masks = {id(column.rows): column.rows for column in columns if not column.parts}  # columns share them
    counts = np.stack(
        [np.bincount(unit if rows is None else unit[rows[here]], minlength=len(asked)) for rows in masks.values()], 1
    ).astype(float)  # (U,K)
    sums = np.empty((len(asked), len(means)))  # (U,M) of the values
    for i, column in enumerate(means):
        assert column.per_query is not None
        values = column.per_query if column.rows is None else column.per_query * column.rows
        sums[:, i] = np.bincount(unit, values[here], len(asked))
    ranked = [(column.chosen(here), unit if column.rows is None else unit[column.rows[here]]) for column in medians]
    which = {key: k for k, key in enumerate(masks)}
    total, number = np.zeros((len(means), resamples)), np.zeros((len(masks), resamples))
    out: dict[str, np.ndarray] = {column.name: np.zeros(resamples) for column in medians}
    for stratum, members in enumerate(_members(len(asked), unit, strata[here] if strata is not None else None)):
        for span, drawn in _weights(len(members), resamples, [seed, stream + stratum]):
            found = drawn @ counts[members]  # (r,K)
            total[:, span] += (drawn @ sums[members]).T
            number[:, span] += found.T
            for column, (ranks, place) in zip(medians, ranked, strict=True):
                middle = _medians(drawn, ranks, place, found[:, which[id(column.rows)]])
                out[column.name][span] = np.floor(middle) + 1
    with np.errstate(invalid="ignore", divide="ignore"):
        out |= {c.name: _MEANS[c.reduce](total[i], number[which[id(c.rows)]]) for i, c in enumerate(means)}
    return with_parts(columns, out)


# a reduction that is a mean, from the sum of the values and their number
_MEANS: dict[Callable[..., Any], Callable[[np.ndarray, np.ndarray], np.ndarray]] = {
    share: lambda hits, number: 100 * hits / number,
    mean: lambda total, number: total / number,
    mean_rank: lambda total, number: total / number + 1,
}


def _members(units: int, unit: np.ndarray, strata: np.ndarray | None) -> list[np.ndarray]:
    """The units of each stratum, in the order in which the units' labels first appear."""
    if strata is None:
        return [np.arange(units)]
    label = np.empty(units, dtype=strata.dtype)
    label[unit] = strata
    return [np.flatnonzero(label == one) for one in dict.fromkeys(label.tolist())]


def intervals(samples: dict[str, np.ndarray], level: float = 0.95) -> dict[str, tuple[float, float]]:
    """Percentile interval of each metric, 95 % unless told."""
    tail = 50 * (1 - level)
    ends = {name: np.percentile(values, [tail, 100 - tail]) for name, values in samples.items()}
    return {name: (float(low), float(high)) for name, (low, high) in ends.items()}


def recall_curve(
    ranks: np.ndarray, group: np.ndarray, images: int, longest: int, resamples: int = 200, seed: int = 0
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """R@1..R@longest in percent with its 95 % band: value, low, high, each (longest,).

    ranks (Q,) are 0-based, group (Q,) is each query's image row.
    """
    bins = np.minimum(np.floor(np.asarray(ranks)), longest).astype(np.int64)  # rank < k means floor(rank) < k
    hits = (
        np.bincount(group * (longest + 1) + bins, minlength=images * (longest + 1)).reshape(images, -1).cumsum(1)
    )  # (N,K+1)
    value = 100 * hits[:, :-1].sum(0) / hits[:, -1].sum()
    parts = [weights @ hits.astype(float) for _, weights in _weights(images, resamples, [seed, 0])]
    sums = np.concatenate(parts)  # (resamples,K+1), the last column counts the queries drawn
    low, high = np.percentile(100 * sums[:, :-1] / sums[:, -1:], [2.5, 97.5], axis=0)
    return value, low, high


@dataclass(frozen=True)
class Difference:
    """One metric of two models on the same images: b - a.

    Args:
        a, b: the two values.
        low, high: 95 % interval of b - a.
        p: twice the share of resamples on the smaller side of zero (zeros count on both sides), at most 1.
            A guide, not a test.
    """

    name: str
    a: float
    b: float
    low: float
    high: float
    p: float

    @property
    def value(self) -> float:
        """b - a."""
        return self.b - self.a


def differences(
    drawn_a: dict[str, np.ndarray], drawn_b: dict[str, np.ndarray], a: dict[str, float], b: dict[str, float]
) -> dict[str, Difference]:
    """Metric by metric, from the same resamples of two models (r,) and their values."""
    out = {}
    for name in drawn_a:
        delta = drawn_b[name] - drawn_a[name]
        low, high = np.percentile(delta, [2.5, 97.5])
        p = min(1.0, 2 * min(float(np.mean(delta <= 0)), float(np.mean(delta >= 0))))
        out[name] = Difference(name, a[name], b[name], float(low), float(high), p)
    return out


def _weights(images: int, resamples: int, seed: Sequence[int]) -> Iterator[tuple[slice, np.ndarray]]:
    """How often each image is drawn: chunks of (r, images) float64 whose rows sum to ``images``."""
    rng = np.random.default_rng(seed)
    step = max(1, min(resamples, _CHUNK // images))
    for start in range(0, resamples, step):
        rows = min(step, resamples - start)
        drawn = rng.integers(0, images, (rows, images)) + images * np.arange(rows)[:, None]  # one bincount for all rows
        yield (
            slice(start, start + rows),
            np.bincount(drawn.ravel(), minlength=rows * images).reshape(rows, images).astype(float),
        )


def _medians(weights: np.ndarray, ranks: np.ndarray, group: np.ndarray, totals: np.ndarray) -> np.ndarray:
    """Median rank of each row of weights (r, N); totals (r,) is the number of queries drawn."""
    queries, images = len(ranks), weights.shape[1]
    order = np.argsort(ranks, kind="stable")
    ordered, middle = ranks[order], queries // 2
    first, second = (totals - 1) // 2, totals // 2  # the two middle places, equal when the number is odd
    reach = int(4 * np.sqrt(images) * queries / images) + 8  # the median of nearly every resample lies this near
    while True:
        lo, hi = max(0, middle - reach), min(queries, middle + reach)
        below = weights @ np.bincount(group[order[:lo]], minlength=images)  # (r,) queries left of the window
        seen = below[:, None] + np.cumsum(weights[:, group[order[lo:hi]]], axis=1)  # (r, hi - lo)
        if (lo == 0 or (below <= first).all()) and (hi == queries or (seen[:, -1] > second).all()):
            places = [(seen <= place[:, None]).sum(1) for place in (first, second)]
            return (ordered[lo + places[0]] + ordered[lo + places[1]]) / 2
        reach *= 2
