"""How far one model is ahead of another in the one number that decides, with the interval of the paired difference."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from xretrieve.evaluation.bootstrap import Difference
from xretrieve.evaluation.comparison import compare
from xretrieve.evaluation.report import Report


@dataclass(frozen=True)
class Lead:
    """A model against a plainer one, measured on the same queries.

    Args:
        model, baseline: names of the two reports.
        difference: model minus baseline; ``a`` is the baseline's value, ``b`` the model's.
    """

    model: str
    baseline: str
    difference: Difference

    @property
    def clear(self) -> bool:
        """Whether the whole 95 % interval is above zero."""
        return self.difference.low > 0

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        d = self.difference
        values = {"metric": d.name, "value": d.b, "baseline_value": d.a, "difference": d.value, "low": d.low}
        return {"model": self.model, "baseline": self.baseline, **values, "high": d.high, "clear": self.clear}


def lead(model: Report, baseline: Report) -> Lead:
    """How far ``model`` is ahead of ``baseline`` in the first of a report's main metrics, by a paired bootstrap;
    reports of other queries are an error."""
    return Lead(model.name, baseline.name, compare(baseline, model)[model.main_metrics()[0]])


def leads_table(leads: Sequence[Lead]) -> Any:
    """A row for each pair; bold where the interval leaves out zero."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table
    from rich.text import Text

    title = "Each model against its plain baseline, paired on the same queries"
    table = Table(title=title, title_justify="left", title_style="bold", box=SIMPLE_HEAD, pad_edge=False)
    for heading in ("model\nagainst", "number", "values", "difference\n95 % interval"):
        table.add_column(heading, justify="left" if heading.startswith(("model", "number")) else "right")
    for one in leads:
        d = one.difference
        gain = Text(f"{d.value:+.1f}", style="bold" if one.clear or d.high < 0 else "")
        gain.append(f"\n{d.low:+.1f}..{d.high:+.1f}", style="dim")
        table.add_row(f"{_short(one.model)}\n{_short(one.baseline)}", d.name, f"{d.b:.1f}\n{d.a:.1f}", gain)
    return table


def _short(name: str) -> str:
    return name.rsplit("/", 1)[-1]
