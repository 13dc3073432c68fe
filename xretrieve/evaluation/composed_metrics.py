"""Metrics of composed queries: which queries a number is the mean of, and what it is the mean of."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from xretrieve.errors import XRetrieveError
from xretrieve.evaluation.candidates import CandidateCounts
from xretrieve.evaluation.composed_protocols import ComposedProtocol
from xretrieve.evaluation.metrics import Setting

MAP_K = 10
SUBSET_KS = (1, 2, 3)


@dataclass
class ComposedCounts:
    """What an evaluation keeps of each query, in the order of the triplets; lost ones stand at the end.

    Args:
        strict: of the target, among the query's candidates.
        relaxed: of the best positive; the same as ``strict`` where only the target is known to fit.
        subset: of the target among the members of the query's own small gallery.
        precision: (Q,) AP@10 over the positives, in percent.
        positives: (Q,) int64, how many images fit the edit.
        pair: (Q,) int64, the triplet that a query belongs to (two under some caption modes).
        here: (Q,) bool, False for queries whose reference or target photo is missing.
        category, kind: (Q,) text.
        same_model: (Q,) bool, the target is the same item in another colour or pattern; all False where unknown.
    """

    strict: CandidateCounts
    relaxed: CandidateCounts
    subset: CandidateCounts
    precision: np.ndarray
    positives: np.ndarray
    pair: np.ndarray
    here: np.ndarray
    category: np.ndarray
    kind: np.ndarray
    same_model: np.ndarray

    @property
    def tied(self) -> int:
        """Queries whose target shares its score with another candidate."""
        return int(self.strict.tied.sum())

    @property
    def unreachable(self) -> int:
        """Queries that are asked here, and whose target is no candidate."""
        return int((self.here & ~self.strict.reachable).sum())

    def arrays(self) -> dict[str, np.ndarray]:
        """Everything as arrays of ranks.npz."""
        out: dict[str, np.ndarray] = {}
        for name in ("strict", "relaxed", "subset"):
            counts: CandidateCounts = getattr(self, name)
            out |= {f"{name}_{part}": getattr(counts, part) for part in ("greater", "equal", "reachable")}
        return out | {name: getattr(self, name) for name in _PLAIN}

    @classmethod
    def from_arrays(cls, arrays: dict[str, np.ndarray]) -> ComposedCounts:
        """The inverse of :meth:`arrays`."""
        counts = [
            CandidateCounts(*(arrays[f"{name}_{part}"] for part in ("greater", "equal", "reachable")))
            for name in ("strict", "relaxed", "subset")
        ]
        return cls(*counts, **{name: arrays[name] for name in _PLAIN})  # type: ignore[arg-type]


_PLAIN = ("precision", "positives", "pair", "here", "category", "kind", "same_model")


@dataclass(frozen=True)
class Mean:
    """A metric: the mean of ``values`` over the queries of ``rows``.

    Args:
        values: (Q,) percent: 100 for a hit, 0 for a miss, or an average precision.
        rows: (Q,) bool.
    """

    values: np.ndarray
    rows: np.ndarray


Measure = Mean | tuple[str, ...]  # a tuple: the unweighted mean of other metrics


def measures(counts: ComposedCounts, protocol: ComposedProtocol, ties: str = "") -> dict[str, Measure]:
    """The metrics of a protocol by name, in the order of its table.

    Names: ``r10``; ``dress_r10`` of a category; ``mean_r10`` over categories; ``subset_r1``; ``strict_r10``,
    ``relaxed_r10``, ``map10`` and ``ceiling_r10`` over all queries, ``colour_strict_r10`` of a kind of edit,
    ``same_model_strict_r10``, ``mean_relaxed_r10`` over the kinds; ``mean`` is the headline of most datasets.
    """
    ties, ks = ties or protocol.ties, protocol.ks
    strict = counts.strict.ranks(ties)
    everything = np.ones(len(strict), bool)
    if protocol.metrics == "categories":
        names = list(dict.fromkeys(counts.category.tolist()))
        table = {f"{c}_r{k}": Mean(_hits(strict, k), counts.category == c) for c in names for k in ks}
        parts: dict[str, Measure] = {f"mean_r{k}": tuple(f"{c}_r{k}" for c in names) for k in ks}
        return table | parts | {"mean": tuple(table)}
    if protocol.metrics == "relaxed":
        return dict(_relaxed(counts, ks, ties))
    table = {f"r{k}": Mean(_hits(strict, k), everything) for k in ks}
    if protocol.metrics == "subset":
        small = counts.subset.ranks(ties)
        table |= {f"subset_r{k}": Mean(_hits(small, k), everything) for k in SUBSET_KS}
        return {**table, "mean": ("r5", "subset_r1")}
    return {**table, "mean": tuple(table)}


def _relaxed(counts: ComposedCounts, ks: tuple[int, ...], ties: str) -> Iterator[tuple[str, Measure]]:
    strict, relaxed = counts.strict.ranks(ties), counts.relaxed.ranks(ties)
    columns = {f"strict_r{k}": _hits(strict, k) for k in ks} | {f"relaxed_r{k}": _hits(relaxed, k) for k in ks}
    columns[f"map{MAP_K}"] = counts.precision
    # every query has its target as a positive; a lost one is not asked, so no reader finds it
    number = np.maximum(counts.positives, 1)
    columns |= {f"ceiling_r{k}": np.where(counts.here, 100 * np.minimum(1.0, k / number), 0.0) for k in ks}
    kinds = list(dict.fromkeys(kind for kind in counts.kind.tolist() if kind))
    groups = {kind: counts.kind == kind for kind in kinds}
    for name in columns:
        if kinds:
            yield f"mean_{name}", tuple(f"{kind}_{name}" for kind in kinds)
    groups[""] = np.ones(len(strict), bool)
    if counts.same_model.any():
        groups["same_model"] = counts.same_model
    for group, rows in groups.items():
        for name, values in columns.items():
            yield f"{group}_{name}".strip("_"), Mean(values, rows)


def _hits(ranks: np.ndarray, k: int) -> np.ndarray:
    return np.where(ranks < k, 100.0, 0.0)


def values_of(table: dict[str, Measure], rows: np.ndarray | None = None) -> dict[str, float]:
    """The value of each metric over some queries (all for None); NaN where it has none."""
    out: dict[str, float] = {}
    for name, measure in table.items():
        if isinstance(measure, Mean):
            chosen = measure.rows if rows is None else measure.rows & rows
            out[name] = float(measure.values[chosen].mean()) if chosen.any() else float("nan")
    for name, measure in table.items():
        if not isinstance(measure, Mean):
            out[name] = float(np.mean([out[part] for part in measure]))
    return {name: out[name] for name in table}


def resampled_composed(
    table: dict[str, Measure], counts: ComposedCounts, *, resamples: int = 1000, seed: int = 0, chunk: int = 8_000_000
) -> dict[str, np.ndarray]:
    """Each metric on resamples of the pairs that are here, drawn within each category; queries of a pair together.

    The same seed and pairs draw the same resamples, which pairs two models. (resamples,) float64 by name; NaN where a
    resample of a very small set has no query of a kind.
    """
    if resamples < 1:
        raise XRetrieveError(f"bootstrap: {resamples} resamples; ask for at least 1")
    means = {name: m for name, m in table.items() if isinstance(m, Mean)}
    asked, pair = np.unique(counts.pair[counts.here], return_inverse=True)
    sums = np.zeros((2, len(means), resamples))  # of values and of queries
    of_pair = np.empty(len(asked), dtype=counts.category.dtype)
    of_pair[pair] = counts.category[counts.here]
    per_pair = np.stack([
        np.stack([np.bincount(pair, w[counts.here], len(asked)) for w in (m.values * m.rows, m.rows.astype(float))])
        for m in means.values()
    ], 2)  # (2,P,M)  # fmt: skip
    for number, category in enumerate(dict.fromkeys(of_pair.tolist())):
        members = np.flatnonzero(of_pair == category)
        rng = np.random.default_rng([seed, number])
        step = max(1, chunk // len(members))
        for start in range(0, resamples, step):
            rows = min(step, resamples - start)
            drawn = rng.integers(0, len(members), (rows, len(members))) + len(members) * np.arange(rows)[:, None]
            weights = np.bincount(drawn.ravel(), minlength=rows * len(members)).reshape(rows, -1).astype(float)
            sums[:, :, start : start + rows] += (weights @ per_pair[:, members]).transpose(0, 2, 1)
    with np.errstate(invalid="ignore", divide="ignore"):
        out = dict(zip(means, sums[0] / sums[1], strict=True))
    for name, measure in table.items():
        if not isinstance(measure, Mean):
            out[name] = np.mean([out[part] for part in measure], axis=0)
    return {name: out[name] for name in table}


@dataclass(frozen=True)
class ComposedSetting(Setting):
    """What the numbers of composed queries were measured on; ``captions`` counts the queries that were asked.

    Args:
        rule, reference, mode: of the protocol's name.
        galleries: category -> images on its list, before a reference is removed.
        found: category -> images of it that are here.
        asked: category, kind of edit or ``same_model`` -> queries that were asked.
        lost: queries whose reference or target photo is missing.
        unreachable: queries asked whose target is no candidate.
        tied: queries whose target shares its score with another candidate.
        pairs: triplets that the queries were made of.
    """

    rule: str = ""
    reference: str = ""
    mode: str = ""
    galleries: dict[str, int] = None  # type: ignore[assignment]
    found: dict[str, int] = None  # type: ignore[assignment]
    asked: dict[str, int] = None  # type: ignore[assignment]
    lost: int = 0
    unreachable: int = 0
    tied: int = 0
    pairs: int = 0

    @property
    def coverage(self) -> float:
        """Share of the listed gallery images that are here, 0 to 1."""
        listed = sum(self.galleries.values())
        return sum(self.found.values()) / listed if listed else 0.0

    def gallery_of(self, metric: str) -> int:
        """Listed images of the metric's category, before the removal; of all galleries together for a mean."""
        return self.galleries.get(self._group(metric), sum(self.galleries.values()))

    def queries_of(self, metric: str) -> int:
        """Queries of the metric's category or kind, or all."""
        return self.asked.get(self._group(metric), self.captions)

    def _group(self, metric: str) -> str:
        return next((name for name in self.asked if name and metric.startswith(f"{name}_")), "all")

    def __str__(self) -> str:
        sizes = ", ".join(f"{c} {n:,}" if c else f"{n:,}" for c, n in self.galleries.items())
        return (
            f"protocol {self.protocol}, {self.dataset}/{self.split}, {self.captions:,} queries ({self.mode}), gallery "
            f"{sizes}, reference {self.reference}, coverage {100 * self.coverage:.4g} %, ties: {self.ties}"
        )
