"""Recall, median and mean rank from 0-based ranks, and the objects that carry them with their protocol."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from xretrieve.errors import unknown

KS = (1, 5, 10)
DIRECTIONS = ("i2t", "t2i")


def recall_at(ranks: np.ndarray, k: int) -> float:
    """Share of queries with rank < k, in percent. ranks (Q,), 0-based.

    >>> recall_at(np.array([0.0, 0.5, 1.0, 7.0]), 1)
    50.0
    """
    return float(100.0 * np.mean(np.asarray(ranks) < k))


def median_rank(ranks: np.ndarray) -> float:
    """floor(median) + 1: 1-based, as the field prints it. ranks (Q,), 0-based."""
    return float(np.floor(np.median(ranks)) + 1)


def mean_rank(ranks: np.ndarray) -> float:
    """Mean of the ranks + 1: 1-based. ranks (Q,), 0-based."""
    return float(np.mean(ranks) + 1)


def metric_names(ks: Sequence[int] = KS) -> list[str]:
    """The keys of :func:`compute`, in the order in which tables print them.

    >>> metric_names((1, 5))
    ['i2t_r1', 'i2t_r5', 'i2t_medr', 'i2t_meanr', 't2i_r1', 't2i_r5', 't2i_medr', 't2i_meanr', 'rsum']
    """
    return [f"{d}_{m}" for d in DIRECTIONS for m in (*(f"r{k}" for k in ks), "medr", "meanr")] + ["rsum"]


def fold_members(owner: np.ndarray, images: int, folds: int) -> list[tuple[slice, np.ndarray]]:
    """Image rows and caption columns of each fold of ``images / folds`` consecutive images."""
    size = images // folds
    fold = np.asarray(owner) // size
    return [(slice(f * size, (f + 1) * size), np.flatnonzero(fold == f)) for f in range(folds)]


def compute(i2t: np.ndarray, t2i: np.ndarray, ks: Sequence[int] = KS) -> dict[str, float]:
    """All metrics of one gallery from its ranks. i2t (N,), t2i (C,), 0-based; recalls in percent, rsum their sum."""
    out: dict[str, float] = {}
    for direction, ranks in zip(DIRECTIONS, (i2t, t2i), strict=True):
        for k in ks:
            out[f"{direction}_r{k}"] = recall_at(ranks, k)
        out[f"{direction}_medr"], out[f"{direction}_meanr"] = median_rank(ranks), mean_rank(ranks)
    out["rsum"] = sum(out[f"{d}_r{k}"] for d in DIRECTIONS for k in ks)
    return out


def compute_folds(
    i2t: np.ndarray, t2i: np.ndarray, owner: np.ndarray, folds: int, ks: Sequence[int] = KS
) -> tuple[dict[str, float], list[dict[str, float]]]:
    """Each metric averaged over the folds, and the folds themselves; rsum comes from the averaged recalls."""
    per_fold = [compute(i2t[rows], t2i[columns], ks) for rows, columns in fold_members(owner, len(i2t), folds)]
    mean = {name: float(np.mean([m[name] for m in per_fold])) for name in per_fold[0]}
    mean["rsum"] = sum(mean[f"{d}_r{k}"] for d in DIRECTIONS for k in ks)
    return mean, per_fold


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

    def gallery_of(self, metric: str) -> int:
        """How many items one query of a metric is ranked against."""
        return (self.captions if metric.startswith("i2t") else self.images) // self.folds

    def queries_of(self, metric: str) -> int:
        """How many queries a metric is taken over."""
        return {"i2t": self.images, "t2i": self.captions}.get(metric[:3], self.images + self.captions)

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
        name: ``i2t_r1``, ``t2i_medr``, ``rsum``, ...
        value: recalls in percent, ranks 1-based.
        low, high: 95 % bootstrap interval over images; None without one.
        pessimistic, optimistic: the value under the two extreme tie rules.
        setting: protocol, split, sizes, coverage, tie rule, seed.
    """

    name: str
    value: float
    low: float | None
    high: float | None
    pessimistic: float
    optimistic: float
    setting: Setting

    @property
    def gallery(self) -> int:
        """How many items one query is ranked against."""
        return self.setting.gallery_of(self.name)

    @property
    def queries(self) -> int:
        """How many queries the number is taken over."""
        return self.setting.queries_of(self.name)

    def __str__(self) -> str:
        interval = f" [{self.low:.1f}, {self.high:.1f}]" if self.low is not None else ""
        return f"{self.value:.1f}{interval}"

    def __float__(self) -> float:
        return self.value


@dataclass
class Metrics:
    """Every metric of one evaluation; ``metrics["rsum"]`` is a :class:`Metric`."""

    setting: Setting
    values: dict[str, float]
    intervals: dict[str, tuple[float, float]] = field(default_factory=dict)
    bounds: dict[str, tuple[float, float]] = field(default_factory=dict)
    per_fold: list[dict[str, float]] = field(default_factory=list)

    def __getitem__(self, name: str) -> Metric:
        if name not in self.values:
            raise unknown("metric", name, self.values)
        value = self.values[name]
        low, high = self.intervals.get(name, (None, None))
        pessimistic, optimistic = self.bounds.get(name, (value, value))
        return Metric(name, value, low, high, pessimistic, optimistic, self.setting)

    def __iter__(self) -> Iterator[str]:
        return iter(self.values)

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON: one entry per metric, the setting beside them."""
        metrics = {}
        for name in self:
            metric = asdict(self[name])
            del metric["setting"], metric["name"]
            metrics[name] = {
                **metric,
                "unit": "percent" if "_r" in name or name == "rsum" else "rank",
                "gallery": self[name].gallery,
                "queries": self[name].queries,
            }
        return {
            "setting": {**asdict(self.setting), "coverage": self.setting.coverage},
            "metrics": metrics,
            "per_fold": self.per_fold,
        }

    @classmethod
    def from_dict(cls, values: dict[str, Any], setting_class: type[Setting] = Setting) -> Metrics:
        """The inverse of :meth:`to_dict`."""
        setting = setting_class(**{k: v for k, v in values["setting"].items() if k != "coverage"})
        metrics = values["metrics"]
        return cls(
            setting,
            {name: m["value"] for name, m in metrics.items()},
            {name: (m["low"], m["high"]) for name, m in metrics.items() if m["low"] is not None},
            {name: (m["pessimistic"], m["optimistic"]) for name, m in metrics.items()},
            values["per_fold"],
        )
