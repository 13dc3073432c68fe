"""`report.html` of an evaluation of query sets: every round, and the plot of recall against rounds."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from xretrieve.evaluation import round_plots
from xretrieve.evaluation.html import HEADINGS, comparable, data_address, environment, facts
from xretrieve.evaluation.plots import log_plot
from xretrieve.evaluation.round_terminal import rounds_lines

if TYPE_CHECKING:
    from xretrieve.evaluation.leads import Lead
    from xretrieve.evaluation.report import Report
    from xretrieve.evaluation.round_report import RoundsReport


def render_rounds(
    report: RoundsReport,
    *,
    rows: Sequence[Report] = (),
    published: Sequence[Any] = (),
    log: str | Path | None = None,
    title: str = "",
    leads: Sequence[Lead] = (),
) -> str:
    """The page as text.

    Args:
        report: the model whose numbers, plots and rankings are shown in full.
        rows: further measured models for the table and its plot; those of another setting are marked and not drawn.
        published: not shown: printed figures of this task were measured under other rules (see docs/protocols.md).
        log: a ``log.csv`` for the training curve.
        title: heading of the page; the report's name by default.
        leads: how far models are ahead of their baselines.
    """
    measured = [report, *(row for row in rows if row is not report)]
    same = [row for row in measured if comparable(row, report)]
    outcomes = [(text, [s for s in report.samples if s.outcome == name]) for name, text in HEADINGS.items()]
    return (
        environment()
        .get_template("rounds.html")
        .render(
            title=title or report.name or "Evaluation",
            leads=leads,
            report=report,
            setting=rounds_lines(report),
            ks=report.protocol.ks,
            rounds=[
                (turn, count, list(report.at(turn).values())) for turn, count in enumerate(report.reached, start=1)
            ],
            rows=[(row, comparable(row, report)) for row in measured] if len(measured) > 1 else [],
            recall_plot=round_plots.recall_by_round(report),
            rank_plot=round_plots.rank_by_round(report),
            rows_plot=round_plots.rows_by_round(same) if len(same) > 1 else "",  # type: ignore[arg-type]
            log_plot=log_plot(log) if log is not None else "",
            groups=[group for group in outcomes if group[1]],
            thumbnails={name: data_address(jpeg) for name, jpeg in report.thumbnails.items()},
            facts=facts(report),
        )
    )
