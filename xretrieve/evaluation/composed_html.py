"""`report.html` of an evaluation of composed queries."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from xretrieve.evaluation.composed_terminal import composed_lines
from xretrieve.evaluation.html import HEADINGS, comparable, data_address, environment, facts
from xretrieve.evaluation.plots import log_plot
from xretrieve.evaluation.rows import PublishedRow

if TYPE_CHECKING:
    from xretrieve.evaluation.composed_report import ComposedReport
    from xretrieve.evaluation.leads import Lead
    from xretrieve.evaluation.report import Report


def render_composed(
    report: ComposedReport,
    *,
    rows: Sequence[Report] = (),
    published: Sequence[PublishedRow] = (),
    log: str | Path | None = None,
    title: str = "",
    leads: Sequence[Lead] = (),
) -> str:
    """The page as text.

    Args:
        report: the model whose numbers and rankings are shown in full.
        rows: further measured models; those of another setting are marked as such.
        published: printed figures, each with its own protocol, in a table of their own; left out where photos are
            missing.
        log: a ``log.csv`` for the training curve.
        title: heading of the page; the report's name by default.
        leads: how far models are ahead of their baselines.
    """
    measured = [report, *(row for row in rows if row is not report)]
    outcomes = [(text, [s for s in report.samples if s.outcome == name]) for name, text in HEADINGS.items()]
    table = report.rows()
    columns = list(dict.fromkeys(label for _, own in table for label in own))
    printed = list(published) if report.metrics.setting.coverage >= 1 else []
    return (
        environment()
        .get_template("composed.html")
        .render(
            title=title or report.name or "Evaluation",
            leads=leads,
            report=report,
            setting=composed_lines(report),
            columns=columns,
            table=[(label, [report[own[c]] if c in own else None for c in columns]) for label, own in table],
            second=[(label, [report.with_lost[own[c]] if c in own else None for c in columns]) for label, own in table]
            if report.with_lost
            else [],
            head=report.headline,
            rows=[(row, comparable(row, report)) for row in measured] if len(measured) > 1 else [],
            published=printed,
            published_names=list(dict.fromkeys(name for row in printed for name in row.values)),
            hidden=len(published) - len(printed),
            log_plot=log_plot(log) if log is not None else "",
            groups=[group for group in outcomes if group[1]],
            thumbnails={name: data_address(jpeg) for name, jpeg in report.thumbnails.items()},
            facts=facts(report),
        )
    )
