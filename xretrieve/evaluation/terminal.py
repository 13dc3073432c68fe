"""Reports as terminal tables."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from xretrieve.evaluation.metrics import DIRECTIONS

if TYPE_CHECKING:
    from xretrieve.evaluation.report import Report

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
        ends = [f"{_short(m.low)}..{_short(m.high)}" if m.low is not None else "" for m in metrics]
        cells = [Text(f"{_short(m.value)}\n").append(end, style="dim") for m, end in zip(metrics, ends, strict=True)]
        table.add_row(LABELS[direction], *cells)
    lines = [Text(f"rsum {report['rsum']}", style="bold")]
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
    if report.seconds:
        lines.append(f"{report.seconds['wall']:.1f} s wall, {report.seconds['cpu']:.1f} s CPU")
    return lines


def rows_table(reports: Sequence[Report], title: str = "") -> Any:
    """Several models under one protocol, one row each: the recalls and rsum with its interval."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table
    from rich.text import Text

    ks = reports[0].protocol.ks
    table = Table(title=title or None, title_justify="left", box=SIMPLE_HEAD, pad_edge=False)
    table.add_column("model", min_width=18, overflow="fold")  # the rest leaves it that much of 80 columns
    for direction in DIRECTIONS:
        for k in ks:
            table.add_column(f"{direction}\nR@{k}", justify="right", no_wrap=True)
    table.add_column("rsum", justify="right", no_wrap=True)
    for report in reports:
        recalls = [f"{report[f'{d}_r{k}'].value:.1f}" for d in DIRECTIONS for k in ks]
        rsum = report["rsum"]
        interval = f"{_short(rsum.low)}..{_short(rsum.high)}" if rsum.low is not None else ""
        table.add_row(report.name, *recalls, Text(f"{rsum.value:.1f}\n").append(interval, style="dim"))
    return table


def to_text(report: Report, width: int = 110) -> str:
    """The same as plain text."""
    import io

    from rich.console import Console

    out = io.StringIO()
    Console(file=out, width=width, color_system=None).print(to_rich(report))
    return out.getvalue().rstrip()
