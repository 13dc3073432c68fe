"""Reports of composed queries as terminal tables."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from xretrieve.evaluation.composed_report import ComposedReport


def composed_rich(report: ComposedReport) -> Any:
    """One report: its table, the headline with its interval, and the lines without which the numbers mean nothing."""
    from rich.console import Group
    from rich.text import Text

    name = report.headline.name
    lines: list[Any] = [Text(f"{name} {report.headline}", style="bold")]
    if report.with_lost:
        lines.append(Text(f"{name} over all queries, those with a missing photo as misses: "
                          f"{report.with_lost[name]:.1f}", style="bold"))  # fmt: skip
    if report.published:
        lines.append(beside(report))
    lines += [Text(line) for line in composed_lines(report)]
    lines += [Text(f"warning: {warning}", style="yellow") for warning in report.warnings]
    tables = [_table(report), *([_table(report, True)] if not all(c.better for c in report.metrics.columns) else [])]
    return Group(*tables, *lines)


def _table(report: ComposedReport, ceilings: bool = False) -> Any:
    """The values; the second line of a cell is its interval, the third the value with lost queries as misses.

    ``ceilings``: the table of the attribute ceilings instead.
    """
    from rich.text import Text

    rows, of_data = report.rows(), {c.name for c in report.metrics.columns if not c.better}
    columns = list(dict.fromkeys(label for _, own in rows for label in own if (own[label] in of_data) == ceilings))
    title = "ceiling of the strict recalls" if ceilings else report.name
    table = _empty(title, ["", *(c.replace("ceiling ", "").replace(" ", "\n") for c in columns)])
    for label, own in rows:
        cells = []
        for column in columns:
            if column not in own:
                cells.append(Text(""))
                continue
            metric = report[own[column]]
            cell = Text(f"{metric.value:.1f}")
            if metric.low is not None and not ceilings:
                cell.append(f"\n{metric.low:.0f}..{metric.high:.0f}", style="dim")
            if report.with_lost and not ceilings:
                cell.append(f"\nall {report.with_lost[own[column]]:.1f}", style="dim")
            cells.append(cell)
        table.add_row(label, *cells)
    return table


def composed_lines(report: ComposedReport) -> list[str]:
    """What the numbers were measured on, for people."""
    s: Any = report.metrics.setting
    galleries = "; ".join(
        f"{c + ' ' if c else ''}{n:,} images" + (f" ({s.found[c]:,} here)" if s.found[c] < n else "")
        for c, n in s.galleries.items()
    )
    asked = ", ".join(f"{name.replace('_', ' ')} {n:,}" for name, n in s.asked.items())
    reference = {"kept": "kept: it competes", "removed": "removed: it is no candidate"}[s.reference]
    lines = [
        f"protocol {s.protocol} on {s.dataset}/{s.split}",
        f"gallery rule {s.rule}: {galleries}; the query's reference is {reference}",
        f"caption mode {s.mode}: {s.captions:,} queries of {s.pairs:,} triplets" + (f" ({asked})" if asked else ""),
        f"{s.unreachable} unreachable targets; {s.tied} queries tied, ties: {s.ties} rank",
        f"image coverage {100 * s.coverage:.4g} % of the gallery ({sum(s.found.values()):,} of "
        f"{sum(s.galleries.values()):,}); {s.lost:,} queries lost",
    ]
    lines += [f"{what}: {said}" for what, said in report.about.items()]
    if s.resamples:
        lines.append(f"95 % intervals: bootstrap over triplets, {s.resamples} resamples, seed {s.seed}")
    if s.tied:
        head = report.headline
        lines.append(f"{head.name} if ties were always lost {head.pessimistic:.1f}, always won {head.optimistic:.1f}")
    if report.cost:
        lines.append(report.cost)
    return lines


def beside(report: ComposedReport) -> Any:
    """The report's row above what others published under the same gallery rule, each with its own protocol."""
    from rich.text import Text

    if report.metrics.setting.coverage < 1:
        return Text("published figures are left out: photos are missing", style="italic")
    names = [name for _, own in report.rows() for name in own.values() if name in _printed(report)]
    title = "measured here, and published by others (not measured here)"
    table = _empty(title, ["", *(n.replace("_", "\n") for n in names)])
    table.columns[0].min_width = 24
    own = Text(report.name).append(f"\n{report.protocol.name}", style="dim")
    table.add_row(own, *(f"{report[n].value:.1f}" for n in names))
    table.add_section()
    for row in report.published:
        values = [f"{row.values[n]:.2f}" if n in row.values else "" for n in names]
        table.add_row(Text(row.name, style="italic").append(f"\n{row.source}", style="dim"), *values)
    return table


def _printed(report: ComposedReport) -> set[str]:
    return {name for row in report.published for name in row.values}


def side_by_side(reports: Sequence[ComposedReport], title: str = "") -> Any:
    """One model under several protocols: a column for each, a row for each metric; an absent one is an empty cell."""
    from rich.text import Text

    table = _empty(title, ["", *(r.protocol.name.replace("/", "/\n") for r in reports)])
    facts = {
        "gallery": [" / ".join(f"{n:,}" for n in _setting(r).galleries.values()) for r in reports],
        "reference": [_setting(r).reference for r in reports],
        "caption mode": [_setting(r).mode for r in reports],
        "queries": [f"{_setting(r).captions:,}" for r in reports],
        "image coverage": [f"{100 * _setting(r).coverage:.4g} %" for r in reports],
    }
    if any(r.with_lost for r in reports):  # the second value of a cell
        facts["lost, misses in `all`"] = [f"{_setting(r).lost:,}" for r in reports]
    for label, cells in facts.items():
        table.add_row(label, *cells)
    table.add_section()
    names = dict.fromkeys(name for r in reports for name in r.metrics)
    for name in names:
        cells = []
        for report in reports:
            if name not in report.metrics.values:
                cells.append(Text(""))
                continue
            metric = report[name]
            cell = Text(f"{metric.value:.1f}", style="bold" if name == report.headline.name else "")
            if metric.low is not None:
                cell.append(f" {metric.low:.0f}..{metric.high:.0f}", style="dim")
            if report.with_lost and metric.column.better:
                cell.append(f"\nall {report.with_lost[name]:.1f}", style="dim")
            cells.append(cell)
        table.add_row(name, *cells)
    return table


def models_table(reports: Sequence[ComposedReport]) -> Any:
    """Several models under one protocol: a row each with means over the kinds of edit, then the setting."""
    from rich.console import Group
    from rich.text import Text

    first = reports[0]
    names = first.recalls((first.protocol.ks[0], first.protocol.ks[-1]))  # all of them would not fit
    table = _empty("a picture and a change", ["", *(name.replace("_", "\n") for name in names)])
    table.columns[0].min_width = max(len(report.name) for report in reports)
    for report in reports:
        cells = []
        for name in names:
            cell = Text(f"{report[name].value:.1f}", style="bold" if name == first.headline.name else "")
            if name == first.headline.name and report[name].low is not None:
                cell.append(f" {report[name].low:.0f}..{report[name].high:.0f}", style="dim")
            cells.append(cell)
        table.add_row(report.name, *cells)
    return Group(table, *(Text(line) for line in composed_lines(first)))


def _setting(report: ComposedReport) -> Any:
    return report.metrics.setting


def _empty(title: str, headings: Sequence[str]) -> Any:
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    table = Table(title=title or None, title_justify="left", title_style="bold", box=SIMPLE_HEAD, pad_edge=False,
                  padding=(0, 1, 0, 0))  # fmt: skip
    for number, heading in enumerate(headings):
        side = {"justify": "right", "no_wrap": True} if number else {"min_width": 14}
        table.add_column(heading, **side)
    return table


def composed_text(report: ComposedReport, width: int = 110) -> str:
    """The same as plain text."""
    import io

    from rich.console import Console

    out = io.StringIO()
    Console(file=out, width=width, color_system=None).print(composed_rich(report))
    return out.getvalue().rstrip()
