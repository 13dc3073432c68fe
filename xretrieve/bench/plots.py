"""Plots of tables: ink that takes the colour of a page, or PNG files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from xretrieve.evaluation.plots import CYCLE, new_figure
from xretrieve.utils.files import atomic_path

COLOURS = (*CYCLE, "#c0392b", "#17a2b8", "#8c6d31", "#5b8c2a", "#5d6673")


def rounds_plot(rows: Sequence[dict[str, Any]], turns: int, k: int = 1, width: float = 9.0) -> tuple[Any, Any]:
    """R@k against the round, a line for each row of a table (:func:`~xretrieve.bench.tables.table_rows`) with its 95 %
    band; the figure and its axis."""
    figure, axis = new_figure(width, 0.58 * width)
    x = list(range(1, turns + 1))
    for i, row in enumerate(rows):
        colour = COLOURS[i % len(COLOURS)]
        names = [f"round{t}_r{k}" for t in x]
        low, high = zip(*(row["intervals"][name] for name in names), strict=True)
        style = ("o-", "o--", "o:")[i // len(COLOURS) % 3]
        star = "*" if row["kind"] == "average" else ""
        axis.plot(x, [row["values"][name] for name in names], style, markersize=3.5, color=colour,
                  label=row["name"] + star)  # fmt: skip
        axis.fill_between(x, low, high, color=colour, alpha=0.12, linewidth=0)
    axis.set(xlabel="round (sentences so far)", ylabel=f"R@{k}, percent", ylim=(0, None))
    axis.set_xticks(x)
    return figure, axis


def spans_plot(
    labels: Sequence[str], values: Sequence[float], spans: Sequence[Sequence[float]], what: str, zero: bool = False,
    width: float = 9.0,
) -> tuple[Any, Any]:  # fmt: skip
    """Values with their 95 % intervals, one under the other; with ``zero`` a line at no difference."""
    figure, axis = new_figure(width, 0.9 + 0.32 * len(labels))
    places = range(len(labels))[::-1]
    for y, value, (low, high) in zip(places, values, spans, strict=True):
        clear = zero and (low > 0 or high < 0)
        colour = CYCLE[0] if clear or not zero else "#8a93a0"
        axis.plot([low, high], [y, y], color=colour, linewidth=5, alpha=0.35, solid_capstyle="butt")
        axis.plot([value], [y], "o", color=colour, markersize=6)
    if zero:
        axis.axvline(0, color="#8a93a0", linewidth=1)
    axis.set_yticks(list(places), labels)
    axis.set(xlabel=what, ylim=(-0.6, len(labels) - 0.4))
    return figure, axis


def save_png(plot: tuple[Any, Any], path: Path, legend: bool = True) -> None:
    """Write a figure as PNG on white ground."""
    figure, axis = plot
    if legend:
        axis.legend(loc="upper left", fontsize="small", frameon=False)
    figure.patch.set_alpha(1)
    with atomic_path(path) as part, open(part, "wb") as handle:
        figure.savefig(handle, dpi=120, format="png", facecolor="white")
