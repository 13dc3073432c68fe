"""What a metric is, recall, median and mean rank from 0-based ranks, and the objects that carry numbers and setting."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

import numpy as np

from xretrieve.errors import unknown

KS = (1, 5, 10)
DIRECTIONS = ("i2t", "t2i")
Better = Literal["higher", "lower", ""]


@dataclass(frozen=True)
class Column:
    """A metric: what it is, and how it is made of the queries that it is taken over.

    Args:
        name: its key in tables and JSON: ``i2t_r1``, ``round3_medr``, ``mean_relaxed_r10``, ...
        unit: ``percent``, or ``rank`` (counted from 1).
        better: ``higher`` or ``lower``; empty where the number says nothing of the model, as a ceiling of the data.
        reduce: makes one number of the values of its queries, or of the values of its parts.
        per_query: (Q,) what is reduced: hit or no hit, a rank from 0, or percent. None for a column of parts.
        rows: (Q,) bool, the queries that count; None: all.
        parts: names of the metrics that it is made of.
        group: what its queries are called: a direction, a category or a kind of edit; empty: all.
    """

    name: str
    unit: Literal["percent", "rank"]
    better: Better
    reduce: Callable[[Any], Any]
    per_query: np.ndarray | None = field(default=None, compare=False, repr=False)
    rows: np.ndarray | None = field(default=None, compare=False, repr=False)
    parts: tuple[str, ...] = ()
    group: str = ""

    def chosen(self, more: np.ndarray | None = None) -> np.ndarray:
        """The values of its queries, of those among ``more`` (Q,) bool where it is given."""
        assert self.per_query is not None
        rows = self.rows if more is None else more if self.rows is None else self.rows & more
        return self.per_query if rows is None else self.per_query[rows]


def values_of(columns: Iterable[Column], rows: np.ndarray | None = None) -> dict[str, float]:
    """The value of each column over some queries, (Q,) bool, or all; NaN where none of its queries is among them."""
    columns, out = list(columns), {}
    for column in columns:
        if not column.parts:
            values = column.chosen(rows)
            out[column.name] = float(column.reduce(values)) if len(values) else float("nan")
    return {name: float(value) for name, value in with_parts(columns, out).items()}


def with_parts(columns: Iterable[Column], values: Mapping[str, Any]) -> dict[str, Any]:
    """Values, or arrays of them, by name, with those of the columns that are made of others; in the columns' order."""
    columns, out = list(columns), dict(values)
    for column in columns:
        if column.parts:
            out[column.name] = column.reduce([out[part] for part in column.parts])
    return {column.name: out[column.name] for column in columns}


def share(hits: np.ndarray) -> float:
    """Share of hits, in percent. hits (Q,) bool."""
    return float(100.0 * np.mean(hits))


def mean(values: np.ndarray) -> float:
    """Mean of values (Q,) in percent."""
    return float(values.mean())


def mean_of_parts(parts: Sequence[Any]) -> Any:
    """The unweighted mean of metrics, or of arrays of them."""
    return np.mean(parts, axis=0)


def recall_at(ranks: np.ndarray, k: int) -> float:
    """Share of queries with rank < k, in percent. ranks (Q,), 0-based.

    >>> recall_at(np.array([0.0, 0.5, 1.0, 7.0]), 1)
    50.0
    """
    return share(np.asarray(ranks) < k)


def median_rank(ranks: np.ndarray) -> float:
    """floor(median) + 1: 1-based, as the field prints it. ranks (Q,), 0-based."""
    return float(np.floor(np.median(ranks)) + 1)


def mean_rank(ranks: np.ndarray) -> float:
    """Mean of the ranks + 1: 1-based. ranks (Q,), 0-based."""
    return float(np.mean(ranks) + 1)


def rank_columns(
    start: str, ranks: np.ndarray, ks: Sequence[int], rows: np.ndarray | None = None, group: str = ""
) -> list[Column]:
    """The recalls, the median and the mean of 0-based ranks (Q,), their names behind ``start``."""
    recalls = [Column(f"{start}r{k}", "percent", "higher", share, ranks < k, rows, group=group) for k in ks]
    median = Column(f"{start}medr", "rank", "lower", median_rank, ranks, rows, group=group)
    return [*recalls, median, Column(f"{start}meanr", "rank", "lower", mean_rank, ranks, rows, group=group)]


def pair_columns(i2t: np.ndarray, t2i: np.ndarray, ks: Sequence[int] = KS) -> list[Column]:
    """The metrics of both directions in the order of tables, then ``rsum``. i2t (N,), t2i (C,) are 0-based ranks.

    The queries are the images, then the captions: Q = N + C.

    >>> [column.name for column in pair_columns(np.zeros(1), np.zeros(5), (1, 5))]
    ['i2t_r1', 'i2t_r5', 'i2t_medr', 'i2t_meanr', 't2i_r1', 't2i_r5', 't2i_medr', 't2i_meanr', 'rsum']
    """
    ranks = np.concatenate([i2t, t2i])
    images = np.arange(len(ranks)) < len(i2t)  # (Q,)
    columns = [
        column for direction, rows in zip(DIRECTIONS, (images, ~images), strict=True)
        for column in rank_columns(f"{direction}_", ranks, ks, rows, direction)
    ]  # fmt: skip
    return [*columns, sum_of_recalls(columns)]


def sum_of_recalls(columns: Iterable[Column]) -> Column:
    """``rsum``: the recalls among the columns, added up."""
    return Column("rsum", "percent", "higher", sum, parts=tuple(c.name for c in columns if c.unit == "percent"))


def fold_members(owner: np.ndarray, images: int, folds: int) -> list[tuple[slice, np.ndarray]]:
    """Image rows and caption columns of each fold of ``images / folds`` consecutive images."""
    size = images // folds
    fold = np.asarray(owner) // size
    return [(slice(f * size, (f + 1) * size), np.flatnonzero(fold == f)) for f in range(folds)]


def compute(i2t: np.ndarray, t2i: np.ndarray, ks: Sequence[int] = KS) -> dict[str, float]:
    """All metrics of one gallery from its ranks. i2t (N,), t2i (C,), 0-based; recalls in percent, rsum their sum."""
    return values_of(pair_columns(i2t, t2i, ks))


@dataclass(frozen=True)
class Fold:
    """Queries that are ranked in one gallery.

    Args:
        columns: what is measured of them.
        group: (Q,) int, what the bootstrap draws a query with: its image, or its triplet; below 0 for a query that
            cannot be asked.
        strata: (Q,) labels; groups are drawn within each; None: among all.
    """

    columns: list[Column]
    group: np.ndarray
    strata: np.ndarray | None = None


def pair_folds(
    i2t: np.ndarray, t2i: np.ndarray, owner: np.ndarray, folds: int = 1, ks: Sequence[int] = KS
) -> list[Fold]:
    """Both directions of each of ``folds`` galleries of consecutive images. i2t (N,), t2i (C,), owner (C,)."""
    return [
        Fold(pair_columns(i2t[rows], t2i[captions], ks),
             np.concatenate([np.arange(rows.start, rows.stop), owner[captions]]))
        for rows, captions in fold_members(owner, len(i2t), folds)
    ]  # fmt: skip


def fold_values(folds: Sequence[Fold]) -> tuple[dict[str, float], list[dict[str, float]]]:
    """Each metric averaged over the folds, and the folds themselves; what is made of others, of their averages."""
    per_fold = [values_of(fold.columns, None if (asked := fold.group >= 0).all() else asked) for fold in folds]
    mean = {name: float(np.mean([values[name] for values in per_fold])) for name in per_fold[0]}
    return with_parts(folds[0].columns, mean), per_fold


@dataclass(frozen=True)
class Setting:
    """What a number was measured on; without it the number does not exist.

    Args:
        protocol: name of the protocol.
        dataset, split: what was ranked.
        images, captions: size of the split as ranked (a fold ranks images / folds of them).
        expected_images: images of the whole split by its annotations.
        ties: the tie rule.
        folds: galleries that the metrics are averaged over.
        resamples, seed: of the bootstrap intervals; 0 resamples means no intervals.
    """

    protocol: str
    dataset: str
    split: str
    images: int
    captions: int
    expected_images: int
    ties: str = "expected"
    folds: int = 1
    resamples: int = 0
    seed: int = 0

    @property
    def coverage(self) -> float:
        """Share of the split's images that were there, 0 to 1."""
        return self.images / self.expected_images if self.expected_images else 0.0

    def gallery_of(self, group: str) -> int:
        """How many items one query of a group (:attr:`Column.group`) is ranked against."""
        return (self.captions if group == "i2t" else self.images) // self.folds

    def queries_of(self, group: str) -> int:
        """How many queries a group has."""
        return {"i2t": self.images, "t2i": self.captions}.get(group, self.images + self.captions)

    def __str__(self) -> str:
        folds = f" in {self.folds} folds of {self.images // self.folds}" if self.folds > 1 else ""
        interval = (
            f"95 % interval over images ({self.resamples} resamples, seed {self.seed})"
            if self.resamples
            else "no intervals"
        )
        return (
            f"protocol {self.protocol}, {self.dataset}/{self.split}, {self.images} images x {self.captions} captions"
            f"{folds}, coverage {100 * self.coverage:.4g} %, ties: {self.ties}, {interval}"
        )


@dataclass(frozen=True)
class Metric:
    """One number with all that it needs to be read.

    Args:
        column: what it is: name, unit, direction.
        value: in the column's unit.
        low, high: 95 % bootstrap interval over images; None without one.
        pessimistic, optimistic: the value under the two extreme tie rules.
        setting: protocol, split, sizes, coverage, tie rule, seed.
    """

    column: Column
    value: float
    low: float | None
    high: float | None
    pessimistic: float
    optimistic: float
    setting: Setting

    @property
    def name(self) -> str:
        """``i2t_r1``, ``t2i_medr``, ``rsum``, ..."""
        return self.column.name

    @property
    def unit(self) -> str:
        """``percent`` or ``rank``."""
        return self.column.unit

    @property
    def gallery(self) -> int:
        """How many items one query is ranked against."""
        return self.setting.gallery_of(self.column.group)

    @property
    def queries(self) -> int:
        """How many queries the number is taken over."""
        return self.setting.queries_of(self.column.group)

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON, without name and setting."""
        names = ("value", "low", "high", "pessimistic", "optimistic", "unit", "gallery", "queries")
        return {name: getattr(self, name) for name in names}

    def __str__(self) -> str:
        interval = f" [{self.low:.1f}, {self.high:.1f}]" if self.low is not None else ""
        return f"{self.value:.1f}{interval}"

    def __float__(self) -> float:
        return self.value


@dataclass
class Metrics:
    """Every metric of one evaluation; ``metrics["rsum"]`` is a :class:`Metric`.

    Args:
        setting: what they were measured on.
        columns: what they are.
        values: by name, as are the 95 % ``intervals`` and, in ``bounds``, the values under the extreme tie rules.
        per_fold: the values of each fold.
    """

    setting: Setting
    columns: Sequence[Column]
    values: dict[str, float]
    intervals: dict[str, tuple[float, float]] = field(default_factory=dict)
    bounds: dict[str, tuple[float, float]] = field(default_factory=dict)
    per_fold: list[dict[str, float]] = field(default_factory=list)

    def __getitem__(self, name: str) -> Metric:
        column = next((column for column in self.columns if column.name == name), None)
        if column is None:
            raise unknown("metric", name, self.values)
        value = self.values[name]
        low, high = self.intervals.get(name, (None, None))
        pessimistic, optimistic = self.bounds.get(name, (value, value))
        return Metric(column, value, low, high, pessimistic, optimistic, self.setting)

    def __iter__(self) -> Iterator[str]:
        return iter(self.values)

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON: one entry per metric, the setting beside them."""
        return {
            "setting": {**asdict(self.setting), "coverage": self.setting.coverage},
            "metrics": {name: self[name].to_dict() for name in self},
            "per_fold": self.per_fold,
        }

    @classmethod
    def from_dict(
        cls, values: dict[str, Any], columns: Sequence[Column], setting_class: type[Setting] = Setting
    ) -> Metrics:
        """The inverse of :meth:`to_dict`; ``columns`` say what the numbers are, whatever unit an old file gives."""
        setting = setting_class(**{k: v for k, v in values["setting"].items() if k != "coverage"})
        metrics = values["metrics"]
        return cls(
            setting,
            columns,
            {name: m["value"] for name, m in metrics.items()},
            {name: (m["low"], m["high"]) for name, m in metrics.items() if m["low"] is not None},
            {name: (m["pessimistic"], m["optimistic"]) for name, m in metrics.items()},
            values["per_fold"],
        )
