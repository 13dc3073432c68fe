"""Plots of a report as inline SVG: text stays text, ink takes the colour of the page (light or dark)."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from xretrieve.evaluation.bootstrap import recall_curve

if TYPE_CHECKING:
    from xretrieve.evaluation.report import Report

_INK = "#010203"  # replaced by currentColor in the page
COLOURS = {"i2t": "#d9822b", "t2i": "#2f7fd1"}
NAMES = {"i2t": "image to text", "t2i": "text to image"}
CYCLE = ("#2f7fd1", "#d9822b", "#2a9d5c", "#b5507f", "#7a6fd0")


def recall_plot(report: Report, longest: int = 50) -> str:
    """R@K against K for both directions, with the 95 % band."""
    figure, axis = new_figure()
    n, owner = len(report.image_ids), report.counts.owner
    longest = min(longest, n // report.counts.folds)
    x = np.arange(1, longest + 1)
    for direction, ranks, group in (("t2i", report.t2i_ranks, owner), ("i2t", report.i2t_ranks, np.arange(n))):
        value, low, high = recall_curve(ranks, group, n, longest, seed=report.metrics.setting.seed)
        axis.fill_between(x, low, high, color=COLOURS[direction], alpha=0.22, linewidth=0)
        axis.plot(x, value, color=COLOURS[direction], label=NAMES[direction])
    axis.set(xlabel="K", ylabel="R@K, percent", ylim=(0, 100), xlim=(1, max(2, longest)))
    return svg(figure, axis, "recall")


def rank_plot(report: Report) -> str:
    """How many queries have their answer at which rank, in bins that double."""
    figure, axis = new_figure()
    worst = max(report.i2t_ranks.max(), report.t2i_ranks.max()) + 1
    edges = 2.0 ** np.arange(0, np.ceil(np.log2(worst + 1)) + 1)  # 1, 2, 4, ...: ranks [1,2), [2,4), ...
    places = np.arange(len(edges) - 1)
    for shift, (direction, ranks) in zip(
        (-0.2, 0.2), (("t2i", report.t2i_ranks), ("i2t", report.i2t_ranks)), strict=True
    ):
        share = 100 * np.histogram(ranks + 1, edges)[0] / len(ranks)
        axis.bar(places + shift, share, 0.4, color=COLOURS[direction], label=NAMES[direction])
    labels = ["1" if a == 1 else f"{a:.0f}-{2 * a - 1:.0f}" for a in edges[:-1]]
    axis.set_xticks(places, labels, rotation=45, ha="right", fontsize=8)
    axis.set(xlabel="rank of the answer", ylabel="queries, percent")
    return svg(figure, axis, "ranks")


def rows_plot(reports: Sequence[Report]) -> str:
    """rsum of several models with their intervals."""
    figure, axis = new_figure(height=0.8 + 0.38 * len(reports), width=8.6)
    for y, report in enumerate(reports[::-1]):
        rsum = report["rsum"]
        colour = CYCLE[0] if report is reports[0] else "#8a93a0"
        if rsum.low is not None and rsum.high is not None:
            axis.plot([rsum.low, rsum.high], [y, y], color=colour, linewidth=5, alpha=0.35, solid_capstyle="butt")
        axis.plot([rsum.value], [y], "o", color=colour, markersize=6)
    axis.set_yticks(range(len(reports)), [report.name for report in reports[::-1]])
    axis.set(xlabel="rsum with its 95 % interval", ylim=(-0.6, len(reports) - 0.4))
    return svg(figure, axis, "rows", legend=False)


def log_plot(path: str | Path) -> str:
    """The training curve: loss, and validation rsum on the right axis. Empty when the log has neither."""
    with open(path, newline="", encoding="utf-8") as handle:
        rows = list(csv.DictReader(handle))
    figure, axis = new_figure(width=9.2, height=2.9)
    drawn = 0
    for key, colour, ax in (("loss", CYCLE[1], axis), ("rsum", CYCLE[0], axis.twinx())):
        points = [(i, float(row[key])) for i, row in enumerate(rows, 1) if row.get(key)]
        if not points:
            ax.set_yticks([])
            continue
        ax.plot(*zip(*points, strict=True), marker=".", color=colour)
        ax.set_ylabel("loss" if key == "loss" else "validation rsum", color=colour)
        _paint(ax)
        drawn += 1
    axis.set_xlabel("epoch")
    axis.xaxis.get_major_locator().set_params(integer=True)
    return svg(figure, axis, "log", legend=False) if drawn else ""


def new_figure(width: float = 4.6, height: float = 3.1) -> tuple[Any, Any]:
    """A transparent figure with one axis, in inches."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    figure.patch.set_alpha(0)
    axis = figure.add_subplot()
    _paint(axis)
    axis.grid(alpha=0.18, color=_INK, linewidth=0.6)
    axis.set_axisbelow(True)
    return figure, axis


def _paint(axis: Any) -> None:
    axis.patch.set_alpha(0)
    axis.tick_params(colors=_INK, labelsize=8)
    for side, spine in axis.spines.items():
        spine.set_visible(side in ("left", "bottom"))
        spine.set_color(_INK)
        spine.set_alpha(0.4)
    axis.xaxis.label.set_color(_INK)
    if axis.yaxis.label.get_color() in ("black", "#000000"):
        axis.yaxis.label.set_color(_INK)


def svg(figure: Any, axis: Any, name: str, legend: bool = True) -> str:
    """The figure as inline SVG that takes its ink from the page."""
    import matplotlib

    if legend:
        axis.legend(frameon=False, labelcolor=_INK, fontsize=9)
    out = io.StringIO()
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": name, "font.family": "sans-serif"}):
        figure.savefig(
            out, format="svg", transparent=True, metadata=dict.fromkeys(("Creator", "Date", "Format", "Type"))
        )
    text = out.getvalue()
    text = text[text.index("<svg") :].replace(_INK, "currentColor")
    text = re.sub(r'\sxmlns(:\w+)?="[^"]*"', "", text)  # HTML needs none, and the page then holds no address at all
    text = text.replace("xlink:href", "href")
    text = re.sub(r"font: ([\d.]+px)[^;\"]*", r"font-size: \1", text)  # the family is the page's
    text = re.sub(r" font-family: [^;\"]*;?", "", text)
    return re.sub(
        r'<svg[^>]*?viewBox="([^"]*)"[^>]*>', rf'<svg viewBox="\1" role="img" aria-label="{name}">', text, count=1
    )
