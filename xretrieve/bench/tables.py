"""Numbers of a table: means over the seeds, 95 % intervals, paired differences; and how they are written."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import numpy as np

from xretrieve.bench.rows import Made, Row, Seeds, by_seed
from xretrieve.evaluation.provenance import versions


def mean(cells: Seeds, metric: str, seeds: Sequence[int] | None = None) -> float:
    """A metric, averaged over the seeds."""
    return float(np.mean([cells[s].value(metric) for s in (cells if seeds is None else seeds)]))


def draws(cells: Seeds, metric: str, seeds: Sequence[int] | None = None) -> np.ndarray:
    """A metric on each resample, averaged over the seeds."""
    return np.mean([cells[s].draws[metric] for s in (cells if seeds is None else seeds)], 0)


def interval(drawn: np.ndarray) -> list[float]:
    """The middle 95 % of resamples."""
    return np.percentile(drawn, [2.5, 97.5]).tolist()


def gain(a: Seeds, b: Seeds, metric: str) -> dict[str, Any]:
    """b against a over the seeds that both have; empty without such a seed.

    ``value`` is the difference and ``relative`` the gain in percent, each with its 95 % interval, queries drawn in
    pairs; ``p`` is twice the share of resamples on the smaller side of zero.
    """
    seeds = sorted(set(a) & set(b))
    if not seeds:
        return {}
    value, base = mean(b, metric, seeds), mean(a, metric, seeds)
    drawn, drawn_base = draws(b, metric, seeds), draws(a, metric, seeds)
    apart = drawn - drawn_base
    p = min(1.0, 2 * min(float(np.mean(apart <= 0)), float(np.mean(apart >= 0))))
    found = {"value": value - base, "interval": interval(apart), "p": p, "seeds": seeds}
    if base > 0 and (drawn_base > 0).all():
        found["relative"] = 100 * (value / base - 1)
        found["relative_interval"] = interval(100 * (drawn / drawn_base - 1))
    return found


def table_rows(
    rows: Sequence[Row], made: Made, metrics: Sequence[str], opponents: Sequence[str], against: Sequence[str] = ()
) -> list[dict[str, Any]]:
    """A dict for each row that has a cell, in the given order.

    Args:
        rows: of the table.
        made: its finished cells.
        metrics: whose ``values``, ``intervals``, ``per_seed`` and ``sd`` over the seeds are told.
        opponents: rows that all others are compared with.
        against: metrics of those comparisons; default: all.
    """
    cells = {row.name: by_seed(made, row.name) for row in rows}
    told = []
    for row in [row for row in rows if cells[row.name]]:
        own = cells[row.name]
        per_seed = {m: {str(s): cell.value(m) for s, cell in own.items()} for m in metrics}
        cpu = [cell.cpu for cell in own.values() if cell.cpu is not None]
        told.append({
            "name": row.name, "about": row.about, "kind": row.kind, "seeds": sorted(own),
            "values": {m: mean(own, m) for m in metrics},
            "intervals": {m: interval(draws(own, m)) for m in metrics},
            "per_seed": per_seed,
            "sd": {m: float(np.std(list(v.values()), ddof=1)) if len(v) > 1 else None for m, v in per_seed.items()},
            "against": {name: {m: gain(cells[name], own, m) for m in (against or metrics)}
                        for name in opponents if name != row.name and cells.get(name)},
            "cpu_seconds": float(np.mean(cpu)) if cpu else None,
            "parameters": next(iter(own.values())).parameters,
        })  # fmt: skip
    return told


def about_table(made: Made) -> dict[str, Any]:
    """What every table says beside its rows: the setting of the numbers, machine and versions, date."""
    return {"setting": str(next(iter(made.values())).report.metrics.setting), "versions": versions(),
            "created": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())}  # fmt: skip


# text ------------------------------------------------------------------------------------------------------------


def line(cells: Sequence[str]) -> str:
    """A row of a Markdown table."""
    return "| " + " | ".join(cells) + " |"


def heading(names: Sequence[str]) -> list[str]:
    """The first two lines of a Markdown table."""
    return [line(names), "|" + "---|" * len(names)]


def spread(value: float, span: Sequence[float]) -> str:
    """A number with its interval.

    >>> spread(79.13, [77.8, 80.46])
    '79.1 [77.8, 80.5]'
    """
    return "{:.1f} [{:.1f}, {:.1f}]".format(value, *span)


def gained(found: dict[str, Any] | None) -> str:
    """A gain with its interval, empty where there is none.

    >>> gained({"value": 3.71, "interval": [2.6, 4.8], "relative": 4.9, "relative_interval": [3.4, 6.4]})
    '+3.7 [+2.6, +4.8]; +5 % [+3, +6]'
    """
    if not found:
        return ""
    text = "{:+.1f} [{:+.1f}, {:+.1f}]".format(found["value"], *found["interval"])
    if "relative" not in found:
        return text
    return text + "; {:+.0f} % [{:+.0f}, {:+.0f}]".format(found["relative"], *found["relative_interval"])


def label(row: dict[str, Any]) -> str:
    """A row's name; a star marks an average of models trained apart."""
    return f"`{row['name']}`" + ("*" if row["kind"] == "average" else "")


def seeds_of(row: dict[str, Any]) -> str:
    """The seeds of a row."""
    return " ".join(map(str, row["seeds"]))


def deviation(value: float | None) -> str:
    """A standard deviation, empty for a single seed."""
    return "" if value is None else f"{value:.1f}"


def costs(row: dict[str, Any]) -> list[str]:
    """Head parameters and CPU seconds of training, empty where they are not known."""
    return [f"{row['parameters']:,}" if row["parameters"] else "",
            f"{row['cpu_seconds']:.0f}" if row["cpu_seconds"] else ""]  # fmt: skip


COSTS = ["head parameters", "training CPU s"]


def machine_line(versions: dict[str, str]) -> str:
    """Machine and versions in one line."""
    return "Machine: " + ", ".join(f"{key} {value}" for key, value in versions.items())
