"""Plots of query sets: what each further sentence brings."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from xretrieve.evaluation.plots import CYCLE, new_figure, svg

if TYPE_CHECKING:
    from xretrieve.evaluation.round_report import RoundsReport


def recall_by_round(report: RoundsReport) -> str:
    """R@1, R@5 and R@10 against the round, with their 95 % bands."""
    drawing, axis = new_figure()
    turns = list(range(1, report.turns + 1))
    for k, colour in zip(report.protocol.ks, CYCLE, strict=False):
        _line(axis, [report[f"round{turn}_r{k}"] for turn in turns], colour, f"R@{k}")
    axis.set(xlabel="round", ylabel="recall, percent", ylim=(0, 100))
    _whole(axis, turns)
    return svg(drawing, axis, "recall by round")


def rank_by_round(report: RoundsReport) -> str:
    """Median and mean rank of the right image against the round, on a logarithmic axis."""
    drawing, axis = new_figure()
    turns = list(range(1, report.turns + 1))
    for name, colour, label in (("meanr", CYCLE[1], "mean rank"), ("medr", CYCLE[0], "median rank")):
        _line(axis, [report[f"round{turn}_{name}"] for turn in turns], colour, label)
    axis.set_yscale("log")
    axis.set(xlabel="round", ylabel="rank of the right image")
    _whole(axis, turns)
    return svg(drawing, axis, "rank by round")


def rows_by_round(reports: Sequence[RoundsReport], k: int = 1) -> str:
    """R@k against the round for several models."""
    drawing, axis = new_figure(width=9.2, height=3.4)
    for i, report in enumerate(reports):
        metrics = [report[f"round{turn}_r{k}"] for turn in range(1, report.turns + 1)]
        _line(axis, metrics, CYCLE[i % len(CYCLE)], report.name)
    axis.set(xlabel="round", ylabel=f"R@{k}, percent")
    _whole(axis, list(range(1, reports[0].turns + 1)))
    return svg(drawing, axis, "models by round")


def _line(axis: Any, metrics: Sequence[Any], colour: str, label: str) -> None:
    turns = range(1, len(metrics) + 1)
    if all(m.low is not None for m in metrics):
        axis.fill_between(
            turns, [m.low for m in metrics], [m.high for m in metrics], color=colour, alpha=0.18, linewidth=0
        )
    axis.plot(turns, [m.value for m in metrics], marker="o", markersize=3.5, color=colour, label=label)


def _whole(axis: Any, turns: Sequence[int]) -> None:
    axis.set_xticks(turns)
    axis.margins(x=0.03)
