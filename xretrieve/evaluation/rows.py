"""Plain rows of recalls that stand beside a report's own numbers: an ensemble's members, and what others published."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from xretrieve.evaluation.report import Report


@dataclass(frozen=True)
class PublishedRow:
    """Figures that others printed, shown apart from the measured ones.

    Args:
        name: the model.
        values: metric name -> value, as printed; missing ones stay empty.
        source: paper or repository, in words.
    """

    name: str
    values: dict[str, float] = field(default_factory=dict)
    source: str = ""


@dataclass(frozen=True)
class MemberRow:
    """What a model measured here: recalls, their sums and means by metric name.

    ``low`` and ``high`` are the interval of rsum, or of the headline.
    """

    name: str
    values: dict[str, float]
    low: float | None = None
    high: float | None = None


def member_row(report: Report) -> MemberRow:
    """The row of a report: what is measured in percent of both directions, of all rounds or kinds of edit."""
    names = [c.name for c in report.metrics.columns if c.unit == "percent" and c.better]
    return MemberRow(report.name, {n: report[n].value for n in names}, report.headline.low, report.headline.high)
