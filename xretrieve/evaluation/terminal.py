"""Reports as terminal tables."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from xretrieve.evaluation.metrics import DIRECTIONS

if TYPE_CHECKING:
    from xretrieve.evaluation.report import Report
    from xretrieve.evaluation.rows import MemberRow, PublishedRow

    Row = MemberRow | PublishedRow

LABELS = {"i2t": "image to text", "t2i": "text to image"}


def to_rich(report: Report) -> Any:
    """One report: a row per direction, rsum, and the lines without which the numbers mean nothing."""
    from rich.box import SIMPLE_HEAD
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    ks = report.protocol.ks
    table = Table(title=report.name or None, title_justify="left", title_style="bold", box=SIMPLE_HEAD, pad_edge=False)
    for heading in ("", *(f"R@{k}" for k in ks), "median", "mean"):
        table.add_column(heading, justify="right" if heading else "left", no_wrap=True)
    for direction in DIRECTIONS:
        metrics = [report[f"{direction}_{m}"] for m in (*(f"r{k}" for k in ks), "medr", "meanr")]
        pairs = [(m.low, m.high) for m in metrics]
        ends = [f"{_short(a)}..{_short(b)}" if a is not None and b is not None else "" for a, b in pairs]
        cells = [Text(f"{_short(m.value)}\n").append(end, style="dim") for m, end in zip(metrics, ends, strict=True)]
        table.add_row(LABELS[direction], *cells)
    lines: list[Any] = [Text(f"rsum {report['rsum']}", style="bold")]
    if report.members or report.published:
        lines.append(beside_table(report))
    lines += [Text(line) for line in setting_lines(report)]
    lines += [Text(f"warning: {warning}", style="yellow") for warning in report.warnings]
    return Group(table, *lines)


def _short(value: float) -> str:
    """One decimal below 100, none above: a row fits into 80 columns."""
    return f"{value:.1f}" if value < 100 else f"{value:.0f}"


def setting_lines(report: Report) -> list[str]:
    """What the numbers were measured on, for people."""
    s = report.metrics.setting
    galleries = f" in {s.folds} folds of {s.images // s.folds} images" if s.folds > 1 else ""
    lines = [
        f"protocol {s.protocol} on {s.dataset}/{s.split}: {s.images} images, {s.captions} captions{galleries}",
        f"coverage {100 * s.coverage:.4g} % of {s.expected_images} images; ties: {s.ties} rank"
        + (f" ({report.counts.tied} tied queries)" if report.counts.tied else " (no ties)"),
    ]
    if s.resamples:
        lines.append(f"95 % intervals: bootstrap over images, {s.resamples} resamples, seed {s.seed}")
    if report.counts.tied:
        rsum = report["rsum"]
        lines.append(f"rsum if ties were always lost {rsum.pessimistic:.1f}, always won {rsum.optimistic:.1f}")
    if report.cost:
        lines.append(report.cost)
    return lines


def rows_table(reports: Sequence[Report], title: str = "") -> Any:
    """Several models under one protocol, one row each: the recalls and rsum with its interval."""
    from xretrieve.evaluation.rows import member_row

    table = _recall_table(reports[0].protocol.ks, title)
    _add_rows(table, reports[0].protocol.ks, [member_row(report) for report in reports])
    return table


def beside_table(report: Report) -> Any:
    """The report's own row, those of the members that it averages, and what others published, under their headings."""
    from xretrieve.evaluation.rows import member_row

    ks, whole = report.protocol.ks, report.metrics.setting.coverage >= 1
    table = _recall_table(ks)
    _add_rows(table, ks, [member_row(report)], "measured here")
    if report.members:
        _add_rows(table, ks, report.members, "its members alone")
    if report.published and whole:
        _add_rows(table, ks, report.published, "published by others, not measured here")
    elif report.published:
        _add_rows(table, ks, [], "published figures are left out: images are missing here")
    return table


def _recall_table(ks: Sequence[int], title: str = "") -> Any:
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    table = Table(title=title or None, title_justify="left", box=SIMPLE_HEAD, pad_edge=False)
    table.add_column("model", min_width=18, overflow="fold")  # the rest leaves it that much of 80 columns
    for direction in DIRECTIONS:
        for k in ks:
            table.add_column(f"{direction}\nR@{k}", justify="right", no_wrap=True)
    table.add_column("rsum", justify="right", no_wrap=True)
    return table


def _add_rows(table: Any, ks: Sequence[int], rows: Sequence[Row], heading: str = "") -> None:
    """Rows under a heading; a figure that nobody printed is an empty cell."""
    from rich.text import Text

    if heading:
        table.add_section()
        table.add_row(Text(heading, style="italic"))
    for row in rows:
        cells = [row.values.get(name) for name in (*(f"{d}_r{k}" for d in DIRECTIONS for k in ks), "rsum")]
        *recalls, rsum = ["" if value is None else f"{value:.1f}" for value in cells]
        low, high = getattr(row, "low", None), getattr(row, "high", None)
        interval = f"\n{_short(low)}..{_short(high)}" if low is not None and high is not None else ""
        table.add_row(row.name, *recalls, Text(rsum).append(interval, style="dim"))


def to_text(report: Report, width: int = 110) -> str:
    """The same as plain text."""
    import io

    from rich.console import Console

    out = io.StringIO()
    Console(file=out, width=width, color_system=None).print(to_rich(report))
    return out.getvalue().rstrip()
