"""`ComposedReport`: what an evaluation of composed queries found."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from xretrieve.errors import XRetrieveError
from xretrieve.evaluation.composed_metrics import ComposedCounts, ComposedSetting, composed_columns
from xretrieve.evaluation.composed_samples import ComposedSample
from xretrieve.evaluation.metrics import Fold, Metric
from xretrieve.evaluation.report import Report


@dataclass
class ComposedReport(Report):
    """The report of a protocol of the task ``composed``; metric names: :func:`~..composed_metrics.composed_columns`.

    Args:
        about: what else belongs beside the numbers (the data, which weights were kept).
        with_lost: the metrics over all queries, those with missing photos as misses; empty when none is missing.
    """

    about: dict[str, str] = field(default_factory=dict)
    with_lost: dict[str, float] = field(default_factory=dict)

    item, setting_class, sample_class = "query", ComposedSetting, ComposedSample

    @property
    def headline(self) -> Metric:
        """The metric that models are selected by."""
        name = self.protocol.headline  # type: ignore[attr-defined]
        return self[name if name in self.metrics.values else next(iter(self.metrics))]

    @property
    def ranks(self) -> np.ndarray:
        """(Q,) 0-based ranks of the targets under the protocol's tie rule."""
        return self.counts.strict.ranks(self.protocol.ties)

    def rows(self) -> list[tuple[str, dict[str, str]]]:
        """The table: (row label, column label -> metric name), a row for each category, kind of edit, or one."""
        return table_rows(self)

    def to_dict(self) -> dict[str, Any]:
        """As :meth:`Report.to_dict`, with the second value of incomplete data."""
        return {**super().to_dict(), "about": self.about, "with_lost": self.with_lost}

    def page(self, **options: Any) -> str:
        """The HTML page; options as in :func:`xretrieve.evaluation.composed_html.render_composed`."""
        from xretrieve.evaluation.composed_html import render_composed

        return render_composed(self, **options)

    def check_pairs(self, other: Report) -> None:
        """As :meth:`Report.check_pairs`."""
        if not np.array_equal(self.counts.pair, other.counts.pair):
            raise XRetrieveError("these runs cannot be compared: their queries come from different triplets")

    def recalls(self, ks: Sequence[int] | None = None) -> list[str]:
        """The recalls over all queries, or their means over categories or kinds of edit; of these K alone."""
        ways = {"categories": ["mean_r"], "relaxed": ["mean_strict_r", "mean_relaxed_r"]}
        stems = ways.get(self.protocol.metrics, ["r"])  # type: ignore[attr-defined]
        names = [f"{stem}{k}" for stem in stems for k in (self.protocol.ks if ks is None else ks)]
        return [name for name in names if name in self.metrics.values]

    def main_metrics(self) -> list[str]:
        """The headline, then the other recalls over all queries."""
        return list(dict.fromkeys([self.headline.name, *self.recalls()]))

    def _arrays(self) -> dict[str, Any]:
        return self.counts.arrays() | {"ranks": self.ranks}

    @classmethod
    def _counts(cls, arrays: Any) -> ComposedCounts:
        return ComposedCounts.from_arrays(arrays)

    @classmethod
    def folds(cls, counts: Any, protocol: Any, ties: str) -> list[Fold]:
        """As :meth:`Report.folds`: one gallery."""
        return [Fold(composed_columns(counts, protocol, ties), counts.group, counts.category)]

    @classmethod
    def _values(cls, values: dict[str, Any]) -> dict[str, Any]:
        return super()._values(values) | {"about": values["about"], "with_lost": values["with_lost"]}

    def __str__(self) -> str:
        from xretrieve.evaluation.composed_terminal import composed_text

        return composed_text(self)

    def __rich__(self) -> Any:
        from xretrieve.evaluation.composed_terminal import composed_rich

        return composed_rich(self)


def table_rows(report: ComposedReport) -> list[tuple[str, dict[str, str]]]:
    """Which metrics stand in which row and column of a report's table."""
    protocol, names = report.protocol, report.metrics.values
    ks = protocol.ks
    kind = getattr(protocol, "metrics", "recalls")
    if kind == "categories":
        groups = [name for name in report.metrics.setting.galleries if name]  # type: ignore[attr-defined]
        rows = [(c, {f"R@{k}": f"{c}_r{k}" for k in ks}) for c in groups]
        return [*rows, ("mean", {**{f"R@{k}": f"mean_r{k}" for k in ks}, "mean": "mean"})]
    if kind == "relaxed":
        columns = {f"{how} R@{k}": f"{how}_r{k}" for how in ("relaxed", "strict") for k in ks}
        columns |= {"mAP@10": "map10", **{f"ceiling R@{k}": f"ceiling_r{k}" for k in ks}}
        groups = ["mean", *_kinds(report), "", "same_model"]
        rows = []
        for group in groups:
            own = {label: f"{group}_{name}".strip("_") for label, name in columns.items()}
            own = {label: name for label, name in own.items() if name in names}
            if own:
                rows.append(({"mean": "mean of kinds", "": "all queries"}.get(group, group.replace("_", " ")), own))
        return rows
    columns = {f"R@{k}": f"r{k}" for k in ks}
    columns |= {f"subset R@{name.removeprefix('subset_r')}": name for name in names if name.startswith("subset_r")}
    return [("all queries", {**columns, "mean": "mean"})]


def _kinds(report: ComposedReport) -> list[str]:
    return list(dict.fromkeys(kind for kind in report.counts.kind.tolist() if kind))


def trained(recipe: Mapping[str, Any], headline: str) -> dict[str, str]:
    """For ``about``: which weights of a run were kept, and its seed; empty without a recipe. Keys of recipe.yaml."""
    if not recipe:
        return {}
    stages = recipe.get("stages") or [{}]
    loss = stages[-1].get("keep") == "loss"
    kept = f"best by {'the loss' if loss else headline} on {recipe.get('dataset', {}).get('name', '')}/val"
    return {"weights": f"{kept}; training seed {recipe.get('seed', 0)}"}
