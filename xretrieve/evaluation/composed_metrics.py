"""Metrics of composed queries: which queries a number is the mean of, and what it is the mean of."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from xretrieve.evaluation.candidates import CandidateCounts
from xretrieve.evaluation.composed_protocols import ComposedProtocol
from xretrieve.evaluation.metrics import Better, Column, Setting, mean, mean_of_parts

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

    @property
    def group(self) -> np.ndarray:
        """(Q,) int64, what the bootstrap draws: the triplet of a query, -1 for lost ones."""
        return np.where(self.here, self.pair, -1)

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


def composed_columns(counts: ComposedCounts, protocol: ComposedProtocol, ties: str = "") -> list[Column]:
    """The metrics of a protocol, in the order of its table.

    Names: ``r10``; ``dress_r10`` of a category; ``mean_r10`` over categories; ``subset_r1``; ``strict_r10``,
    ``relaxed_r10``, ``map10`` and ``ceiling_r10`` over all queries, ``colour_strict_r10`` of a kind of edit,
    ``same_model_strict_r10``, ``mean_relaxed_r10`` over the kinds; ``mean`` is the headline of most datasets.
    """
    ties, ks = ties or protocol.ties, protocol.ks
    strict = counts.strict.ranks(ties)
    if protocol.metrics == "categories":
        names = list(dict.fromkeys(counts.category.tolist()))
        table = [
            replace(_recall(f"{c}_r{k}", strict, k), rows=counts.category == c, group=c) for c in names for k in ks
        ]
        parts = [_mean(f"mean_r{k}", [f"{c}_r{k}" for c in names]) for k in ks]
        return [*table, *parts, _mean("mean", [column.name for column in table])]
    if protocol.metrics == "relaxed":
        return list(_relaxed(counts, ks, ties))
    table = [_recall(f"r{k}", strict, k) for k in ks]
    if protocol.metrics == "subset":
        small = counts.subset.ranks(ties)
        return [*table, *(_recall(f"subset_r{k}", small, k) for k in SUBSET_KS), _mean("mean", ["r5", "subset_r1"])]
    return [*table, _mean("mean", [column.name for column in table])]


def _relaxed(counts: ComposedCounts, ks: tuple[int, ...], ties: str) -> Iterator[Column]:
    columns = [_recall(f"{way}_r{k}", ranks, k)
               for way, ranks in (("strict", counts.strict.ranks(ties)), ("relaxed", counts.relaxed.ranks(ties)))
               for k in ks]  # fmt: skip
    columns.append(_percent(f"map{MAP_K}", counts.precision))
    # every query has its target as a positive; a lost one is not asked, so no reader finds it
    number = np.maximum(counts.positives, 1)
    for k in ks:
        ceiling = np.where(counts.here, 100 * np.minimum(1.0, k / number), 0.0)
        columns.append(_percent(f"ceiling_r{k}", ceiling, better=""))
    kinds = list(dict.fromkeys(kind for kind in counts.kind.tolist() if kind))
    for column in columns:
        if kinds:
            yield _mean(f"mean_{column.name}", [f"{kind}_{column.name}" for kind in kinds], column.better)
    groups: dict[str, np.ndarray | None] = {kind: counts.kind == kind for kind in kinds}
    groups[""] = None
    if counts.same_model.any():
        groups["same_model"] = counts.same_model
    for group, rows in groups.items():
        for column in columns:
            yield replace(column, name=f"{group}_{column.name}".strip("_"), rows=rows, group=group)


def _percent(name: str, values: np.ndarray, better: Better = "higher") -> Column:
    return Column(name, "percent", better, mean, values)


def _recall(name: str, ranks: np.ndarray, k: int) -> Column:
    return _percent(name, np.where(ranks < k, 100.0, 0.0))


def _mean(name: str, parts: Sequence[str], better: Better = "higher") -> Column:
    """The unweighted mean of other metrics."""
    return Column(name, "percent", better, mean_of_parts, parts=tuple(parts))


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

    def gallery_of(self, group: str) -> int:
        """Listed images of a category, before the removal; of all galleries together for any other group."""
        return self.galleries.get(group, sum(self.galleries.values()))

    def queries_of(self, group: str) -> int:
        """Queries of a category or kind, or all."""
        return self.asked.get(group, self.captions)

    def __str__(self) -> str:
        sizes = ", ".join(f"{c} {n:,}" if c else f"{n:,}" for c, n in self.galleries.items())
        return (
            f"protocol {self.protocol}, {self.dataset}/{self.split}, {self.captions:,} queries ({self.mode}), gallery "
            f"{sizes}, reference {self.reference}, coverage {100 * self.coverage:.4g} %, ties: {self.ties}"
        )
