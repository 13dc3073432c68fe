"""Reports of query sets as terminal tables."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from xretrieve.evaluation.round_report import RoundsReport
    from xretrieve.evaluation.rows import MemberRow


def rounds_rich(report: RoundsReport) -> Any:
    """One report: a row per round, the last one in bold, and the lines without which the numbers mean nothing."""
    from rich.box import SIMPLE_HEAD
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    from xretrieve.evaluation.rows import member_row

    table = Table(title=report.name or None, title_justify="left", title_style="bold", box=SIMPLE_HEAD, pad_edge=False)
    ks = report.protocol.ks
    for heading in ("round", "sets", *(f"R@{k}" for k in ks), "median", "mean"):
        table.add_column(heading, justify="right", no_wrap=True)
    for turn, count in enumerate(report.reached, start=1):
        metrics = report.at(turn)
        cells = []
        for metric in metrics.values():
            cell = Text(_short(metric.value))
            if metric.low is not None and metric.unit == "percent":  # ranks go without: a row fits into 80 columns
                cell.append(f" {metric.low:.0f}..{metric.high:.0f}", style="not bold dim")
            cells.append(cell)
        table.add_row(str(turn), str(count), *cells, style="bold" if turn == report.turns else "")
    lines: list[Any] = [Text(f"rsum of round {report.turns} {report['rsum']}", style="bold")]
    if report.members:
        lines.append(_rows([member_row(report), *report.members], report.turns, ks[0]))
    lines += [Text(line) for line in rounds_lines(report)]
    lines += [Text(f"warning: {warning}", style="yellow") for warning in report.warnings]
    return Group(table, *lines)


def rounds_lines(report: RoundsReport) -> list[str]:
    """What the numbers were measured on, for people."""
    s, sets = report.metrics.setting, len(report.caption_ids)
    tied = f"{report.counts.tied} tied sets" if report.counts.tied else "none"
    lines = [
        f"protocol {s.protocol} on {s.dataset}/{s.split}: {sets} query sets of up to {report.turns} sentences "
        f"({s.captions} in all), each against {s.images} images",
        f"coverage {100 * s.coverage:.4g} % of {s.expected_images} images; ties: {s.ties} rank "
        f"({tied} in the last round)",
    ]
    lines += [f"{what}: {said}" for what, said in report.about.items()]
    if min(report.reached) < sets:
        lines.append("a set without a sentence left keeps its last rank; `sets` counts those that had one")
    if s.resamples:
        lines.append(f"95 % intervals: bootstrap over images, {s.resamples} resamples, seed {s.seed}")
    if report.counts.tied:
        rsum = report["rsum"]
        lines.append(f"rsum if ties were always lost {rsum.pessimistic:.1f}, always won {rsum.optimistic:.1f}")
    if report.cost:
        lines.append(report.cost)
    return lines


def rounds_table(reports: Sequence[RoundsReport], k: int = 1, title: str = "") -> Any:
    """Several models under one protocol, one row each: R@k after every round, and the last round's rsum."""
    from xretrieve.evaluation.rows import member_row

    return _rows([member_row(report) for report in reports], reports[0].turns, k, title)


def _rows(rows: Sequence[MemberRow], turns: int, k: int, title: str = "") -> Any:
    from rich.box import SIMPLE_HEAD
    from rich.table import Table
    from rich.text import Text

    table = Table(title=title or None, title_justify="left", box=SIMPLE_HEAD, pad_edge=False, padding=0)
    table.add_column(f"R@{k} after round", min_width=14, overflow="fold")  # ten rounds leave it that much of 80 columns
    for turn in range(1, turns + 1):
        table.add_column(str(turn), justify="right", no_wrap=True)
    table.add_column("rsum", justify="right", no_wrap=True)
    for row in rows:
        recalls = [f"{row.values[f'round{turn}_r{k}']:.1f}" for turn in range(1, turns + 1)]
        interval = f"\n{_short(row.low)}..{_short(row.high)}" if row.low is not None else ""
        table.add_row(row.name, *recalls, Text(f"{row.values['rsum']:.1f}").append(interval, style="dim"))
    return table


def rounds_text(report: RoundsReport, width: int = 110) -> str:
    """The same as plain text."""
    import io

    from rich.console import Console

    out = io.StringIO()
    Console(file=out, width=width, color_system=None).print(rounds_rich(report))
    return out.getvalue().rstrip()


def _short(value: float | None) -> str:
    """One decimal below 100, none above."""
    return "" if value is None else f"{value:.1f}" if value < 100 else f"{value:.0f}"
