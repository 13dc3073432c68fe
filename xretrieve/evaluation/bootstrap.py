"""Bootstrap over images: an image is drawn together with all its captions, whose luck is shared.

Resampling is done on ranks (the gallery stays as it is) by weights: how often each image was drawn. Recalls and means
are then matrix products, the median is read off the middle of one sorted list, and no resample is a Python loop.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from xretrieve.errors import XRetrieveError
from xretrieve.evaluation.metrics import DIRECTIONS, KS, fold_members, metric_names

_CHUNK = 8_000_000  # weights held at once: 64 MB of float64


def resampled(
    i2t: np.ndarray,
    t2i: np.ndarray,
    owner: np.ndarray,
    *,
    ks: Sequence[int] = KS,
    folds: int = 1,
    resamples: int = 1000,
    seed: int = 0,
) -> dict[str, np.ndarray]:
    """Every metric on every resample.

    Args:
        i2t: (N,) 0-based ranks, images as queries.
        t2i: (C,) 0-based ranks, captions as queries.
        owner: (C,) the image row of each caption.
        folds: images are drawn inside each fold and the metrics averaged over the folds.
    Returns:
        metric name -> (resamples,) float64. The same seed and N draw the same images: that pairs two calls.
    """
    i2t, t2i, owner = np.asarray(i2t, float), np.asarray(t2i, float), np.asarray(owner)
    if resamples < 1:
        raise XRetrieveError(f"bootstrap: {resamples} resamples; ask for at least 1")
    out = {name: np.zeros(resamples) for name in metric_names(ks)}
    for fold, (rows, columns) in enumerate(fold_members(owner, len(i2t), folds)):
        size, part = rows.stop - rows.start, owner[columns] - rows.start
        for span, weights in _weights(size, resamples, [seed, fold]):
            for direction, ranks, group in zip(
                DIRECTIONS, (i2t[rows], t2i[columns]), (np.arange(size), part), strict=True
            ):
                for name, values in _weighted(weights, ranks, group, ks).items():
                    out[f"{direction}_{name}"][span] += values / folds
    out["rsum"] = sum(out[f"{d}_r{k}"] for d in DIRECTIONS for k in ks)  # type: ignore[assignment]
    return out


def resampled_rounds(
    ranks: np.ndarray, owner: np.ndarray, *, ks: Sequence[int] = KS, resamples: int = 1000, seed: int = 0
) -> dict[str, np.ndarray]:
    """The metrics of every round on every resample, all rounds on the same draws.

    Args:
        ranks: (T, M) 0-based ranks after each round.
        owner: (M,) the image of each query set; the sets of one image are drawn together.
    Returns:
        metric name (see :func:`xretrieve.evaluation.round_metrics.compute_rounds`) -> (resamples,) float64.
    """
    if resamples < 1:
        raise XRetrieveError(f"bootstrap: {resamples} resamples; ask for at least 1")
    asked, group = np.unique(owner, return_inverse=True)  # images without a set have nothing to resample
    out: dict[str, np.ndarray] = {}
    for span, weights in _weights(len(asked), resamples, [seed, 0]):
        for turn, now in enumerate(np.asarray(ranks, float), start=1):
            for name, values in _weighted(weights, now, group, ks).items():
                out.setdefault(f"round{turn}_{name}", np.zeros(resamples))[span] = values
    out["rsum"] = sum(out[f"round{len(ranks)}_r{k}"] for k in ks)  # type: ignore[assignment]
    return out


def intervals(samples: dict[str, np.ndarray], level: float = 0.95) -> dict[str, tuple[float, float]]:
    """Percentile interval of each metric, 95 % unless told."""
    tail = 50 * (1 - level)
    return {
        name: tuple(float(v) for v in np.percentile(values, [tail, 100 - tail])) for name, values in samples.items()
    }  # type: ignore[misc]


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


def paired(
    a: tuple[np.ndarray, np.ndarray],
    b: tuple[np.ndarray, np.ndarray],
    owner: np.ndarray,
    *,
    ks: Sequence[int] = KS,
    folds: int = 1,
    resamples: int = 1000,
    seed: int = 0,
) -> dict[str, Difference]:
    """Paired bootstrap: both models are resampled with the same images. a, b: (i2t ranks (N,), t2i ranks (C,))."""
    from xretrieve.evaluation.metrics import compute_folds

    if a[0].shape != b[0].shape or a[1].shape != b[1].shape:
        raise XRetrieveError(
            f"paired bootstrap: {len(a[0])} images x {len(a[1])} captions against {len(b[0])} x {len(b[1])}"
        )
    options = {"ks": ks, "folds": folds, "resamples": resamples, "seed": seed}
    drawn = [resampled(*ranks, owner, **options) for ranks in (a, b)]  # type: ignore[arg-type]
    return differences(*drawn, *(compute_folds(*ranks, owner, folds, ks)[0] for ranks in (a, b)))


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


def _weighted(weights: np.ndarray, ranks: np.ndarray, group: np.ndarray, ks: Sequence[int]) -> dict[str, np.ndarray]:
    """Recalls (percent), medr and meanr of one direction for each row of weights (r, N)."""
    n = weights.shape[1]
    sums = np.stack(
        [
            np.bincount(group, minlength=n),
            *(np.bincount(group[ranks < k], minlength=n) for k in ks),
            np.bincount(group, weights=ranks, minlength=n),
        ],
        1,
    )  # (N, 2 + len(ks))
    drawn = weights @ sums  # (r, 2 + len(ks))
    out = {f"r{k}": 100 * drawn[:, 1 + i] / drawn[:, 0] for i, k in enumerate(ks)}
    out["medr"] = np.floor(_medians(weights, ranks, group, drawn[:, 0])) + 1
    out["meanr"] = drawn[:, -1] / drawn[:, 0] + 1
    return out


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
