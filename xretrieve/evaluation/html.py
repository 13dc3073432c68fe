"""`report.html`: one file with everything inside, readable in light and dark, with no address to anything outside."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from xretrieve.evaluation import plots
from xretrieve.evaluation.metrics import DIRECTIONS
from xretrieve.evaluation.rows import PublishedRow
from xretrieve.evaluation.terminal import LABELS, setting_lines

if TYPE_CHECKING:
    from xretrieve.evaluation.leads import Lead
    from xretrieve.evaluation.report import Report

HEADINGS = {
    "found": "Found",
    "median": "In the middle",
    "worst": "Worst",
}


def render(
    report: Report,
    *,
    rows: Sequence[Report] = (),
    published: Sequence[PublishedRow] = (),
    log: str | Path | None = None,
    title: str = "",
    leads: Sequence[Lead] = (),
) -> str:
    """The page as text.

    Args:
        report: the model whose numbers, plots and rankings are shown in full.
        rows: further measured models for the table; those of another dataset, split or protocol are marked as such.
        published: printed figures for the table, under their own heading; left out when images are missing (coverage
            below 1), where they could not be compared.
        log: a ``log.csv`` for the training curve.
        title: heading of the page; the report's name by default.
        leads: how far models are ahead of their baselines.
    """
    measured = [report, *(row for row in rows if row is not report)]
    same = [row for row in measured if comparable(row, report)]
    ks = report.protocol.ks
    return (
        environment()
        .get_template("report.html")
        .render(
            title=title or report.name or "Evaluation",
            leads=leads,
            report=report,
            setting=setting_lines(report),
            directions=[
                (d, LABELS[d], [report[f"{d}_{m}"] for m in (*(f"r{k}" for k in ks), "medr", "meanr")])
                for d in DIRECTIONS
            ],
            ks=ks,
            recalls=[f"{d}_r{k}" for d in DIRECTIONS for k in ks],
            rows=[(row, comparable(row, report)) for row in measured] if len(measured) > 1 or published else [],
            published=published if report.metrics.setting.coverage >= 1 else [],
            hidden=len(published) if report.metrics.setting.coverage < 1 else 0,
            recall_plot=plots.recall_plot(report),
            rank_plot=plots.rank_plot(report),
            rows_plot=plots.rows_plot(same) if len(same) > 1 else "",
            log_plot=plots.log_plot(log) if log is not None else "",
            groups=_groups(report),
            thumbnails={name: data_address(jpeg) for name, jpeg in report.thumbnails.items()},
            heats={caption: data_address(jpeg) for caption, jpeg in report.heats.items()},
            facts=facts(report),
        )
    )


def environment(*packages: str) -> Any:
    """Where the templates are found; a name that one does not know is an error.

    Args:
        packages: further packages with a folder ``templates``.
    """
    from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined

    return Environment(
        loader=ChoiceLoader([PackageLoader(package) for package in ("xretrieve.evaluation", *packages)]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def comparable(row: Report, report: Report) -> bool:
    """Whether two reports were measured on the same split under the same rules."""
    a, b = row.metrics.setting, report.metrics.setting
    return (a.dataset, a.split, a.images, a.captions, row.protocol) == (
        b.dataset,
        b.split,
        b.images,
        b.captions,
        report.protocol,
    )


def _groups(report: Report) -> list[tuple[str, list[tuple[str, list[Any]]]]]:
    """Samples by direction, then by outcome."""
    out = []
    for direction, heading in (
        ("t2i", "Captions and the images they found"),
        ("i2t", "Images and the captions they found"),
    ):
        parts = [
            (text, [s for s in report.samples if (s.direction, s.outcome) == (direction, outcome)])
            for outcome, text in HEADINGS.items()
        ]
        out.append((heading, [part for part in parts if part[1]]))
    return [group for group in out if group[1]]


def facts(report: Report) -> list[tuple[str, str]]:
    """The lines of the page's last section: model, machine, versions."""
    said = [
        ("model", report.matcher.get("name", "") or report.name),
        ("fingerprint", report.matcher.get("fingerprint", "")),
    ]
    said += [("layout", str(report.dataset.get("layout", ""))), ("made", report.created)]
    said += [(f"{what} in", used) for what, used in report.precision.items()]
    said += [(f"seconds, {part}", f"{value:.2f}") for part, value in report.seconds.items()]
    return [fact for fact in [*said, *report.versions.items()] if fact[1]]


def data_address(jpeg: bytes) -> str:
    """A picture inside the page."""
    return "data:image/jpeg;base64," + base64.b64encode(jpeg).decode()
