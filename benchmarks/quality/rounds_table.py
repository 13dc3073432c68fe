"""One table from the reports of query sets of several rows and seeds: every round, intervals, paired gains, a plot."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from xretrieve.evaluation.bootstrap import resampled_rounds
from xretrieve.evaluation.evaluator import versions
from xretrieve.evaluation.round_report import RoundsReport
from xretrieve.utils.files import atomic_path, write_json, write_text

RESAMPLES = 1000


@dataclass
class Cell:
    """One row trained with one seed: its report, CPU seconds of training, parameters of the head."""

    report: RoundsReport
    cpu: float | None = None
    parameters: int | None = None

    @cached_property
    def draws(self) -> dict[str, np.ndarray]:
        """Each metric on each resample of the test images; every cell draws the same images."""
        r = self.report
        return resampled_rounds(r.ranks, r.counts.owner, ks=r.protocol.ks, resamples=RESAMPLES)

    def value(self, metric: str) -> float:
        """A metric of the report."""
        return self.report[metric].value


Cells = Mapping[int, Cell]  # by seed


def mean(cells: Cells, metric: str, seeds: Sequence[int] | None = None) -> float:
    """A metric, averaged over the seeds."""
    return float(np.mean([cells[s].value(metric) for s in (cells if seeds is None else seeds)]))


def draws(cells: Cells, metric: str, seeds: Sequence[int] | None = None) -> np.ndarray:
    """A metric on each resample, averaged over the seeds."""
    return np.mean([cells[s].draws[metric] for s in (cells if seeds is None else seeds)], 0)


def gain(a: Cells, b: Cells, metric: str) -> dict[str, Any]:
    """b against a over the seeds that both have: the difference and the relative gain in percent, each with its 95 %
    interval, images drawn in pairs; empty without such a seed."""
    seeds = sorted(set(a) & set(b))
    if not seeds:
        return {}
    value, base = mean(b, metric, seeds), mean(a, metric, seeds)
    drawn, drawn_base = draws(b, metric, seeds), draws(a, metric, seeds)
    apart = np.percentile(drawn - drawn_base, [2.5, 97.5]).tolist()
    found = {"value": value - base, "interval": apart, "seeds": seeds}
    if base > 0 and (drawn_base > 0).all():
        found["relative"] = 100 * (value / base - 1)
        found["relative_interval"] = np.percentile(100 * (drawn / drawn_base - 1), [2.5, 97.5]).tolist()
    return found


def write_table(
    out: Path, rows: Sequence[Any], made: Mapping[tuple[str, int], Cell], opponents: Sequence[str]
) -> dict[str, Any]:
    """Write ``table.json``, ``table.md`` and ``rounds.png``; returns what the JSON holds.

    Args:
        rows: with ``name``, ``about`` and ``kind``, in the table's order.
        made: every finished cell, by row and seed.
        opponents: rows that all others are compared with in the last round.
    """
    by_row = {row.name: {seed: cell for (name, seed), cell in made.items() if name == row.name} for row in rows}
    first = next(iter(made.values())).report
    turns, ks = first.turns, first.protocol.ks
    against = [name for name in opponents if name in by_row]
    lines = []
    for row in rows:
        cells, last = by_row[row.name], f"round{turns}_r1"
        per_seed = {str(seed): cell.value(last) for seed, cell in sorted(cells.items())}
        lines.append({
            "name": row.name, "about": row.about, "kind": row.kind, "seeds": sorted(cells),
            "rounds": {f"r{k}": [mean(cells, f"round{t}_r{k}") for t in range(1, turns + 1)] for k in ks},
            "intervals": {f"r{k}": [np.percentile(draws(cells, f"round{t}_r{k}"), [2.5, 97.5]).tolist()
                                    for t in range(1, turns + 1)] for k in ks},
            "last_r1_per_seed": per_seed,
            "last_r1_sd_over_seeds": float(np.std(list(per_seed.values()), ddof=1)) if len(cells) > 1 else None,
            "against": {name: gain(by_row[name], cells, last) for name in against if name != row.name},
            "cpu_seconds": _average([cell.cpu for cell in cells.values()]),
            "parameters": next(iter(cells.values())).parameters,
        })  # fmt: skip
    table = {"opponents": against, "turns": turns, "ks": list(ks), "setting": str(first.metrics.setting),
             "versions": versions(), "rows": lines,
             "created": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())}  # fmt: skip
    write_json(out / "table.json", table)
    write_text(out / "table.md", markdown(table))
    plot(table, out / "rounds.png")
    return table


def markdown(table: dict[str, Any]) -> str:
    """The table for people: R@1 of every round and what it cost, then the other recalls."""
    turns, rounds = table["turns"], [str(t) for t in range(1, table["turns"] + 1)]
    head = ["row", "what", "seeds", *(f"R@1 after {t}" for t in rounds), "95 % interval", "sd over seeds",
            *(f"against {name}" for name in table["opponents"]), "head parameters", "training CPU s"]  # fmt: skip
    lines = [_line(head), "|" + "---|" * len(head)]
    for row in table["rows"]:
        low, high = row["intervals"]["r1"][-1]
        sd = row["last_r1_sd_over_seeds"]
        lines.append(_line([
            _name(row), row["about"], " ".join(map(str, row["seeds"])), *_numbers(row["rounds"]["r1"]),
            f"{low:.1f} to {high:.1f}", "" if sd is None else f"{sd:.1f}",
            *(_gain(row["against"].get(name)) for name in table["opponents"]),
            f"{row['parameters']:,}" if row["parameters"] else "",
            f"{row['cpu_seconds']:.0f}" if row["cpu_seconds"] else "",
        ]))  # fmt: skip
    for k in table["ks"][1:]:
        lines += [
            "",
            _line(["row", *(f"R@{k} after {t}" for t in rounds), "95 % interval"]),
            "|" + "---|" * (turns + 2),
        ]
        for row in table["rows"]:
            low, high = row["intervals"][f"r{k}"][-1]
            lines.append(_line([_name(row), *_numbers(row["rounds"][f"r{k}"]), f"{low:.1f} to {high:.1f}"]))
    notes = [
        f"{table['setting']}.", "`*` averages the scores of models trained apart; its cost is the sum of its members'.",
        "Means over the seeds. Intervals are of the last round. `against`: difference of R@1 in the last round and "
        "relative gain, images drawn in pairs, over the seeds that both rows have.",
        "Machine: " + ", ".join(f"{k} {v}" for k, v in table["versions"].items()),
    ]  # fmt: skip
    return "\n".join(lines) + "\n\n" + "\n".join(notes) + "\n"


def plot(table: dict[str, Any], path: Path, k: int = 1) -> None:
    """R@k against the round, a line per model with its 95 % band."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    shown = [row for row in table["rows"] if row["kind"] != "again"]
    figure, axis = pyplot.subplots(figsize=(9, 5.5), layout="constrained")
    turns = range(1, table["turns"] + 1)
    for i, row in enumerate(shown):
        colour, values = f"C{i % 10}", row["rounds"][f"r{k}"]
        low, high = zip(*row["intervals"][f"r{k}"], strict=True)
        axis.plot(turns, values, "o--" if i >= 10 else "o-", markersize=3.5, color=colour, label=_name(row))
        axis.fill_between(turns, low, high, color=colour, alpha=0.1, linewidth=0)
    axis.set(xlabel="round (sentences so far)", ylabel=f"R@{k}, percent", ylim=(0, None))
    axis.set_xticks(list(turns))
    axis.grid(alpha=0.3)
    axis.legend(loc="upper left", fontsize="small")
    with atomic_path(path) as part, open(part, "wb") as handle:
        figure.savefig(handle, dpi=120, format="png")
    pyplot.close(figure)


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _name(row: dict[str, Any]) -> str:
    return row["name"] + ("*" if row["kind"] == "average" else "")


def _numbers(values: Sequence[float]) -> list[str]:
    return [f"{value:.1f}" for value in values]


def _gain(found: dict[str, Any] | None) -> str:
    if not found:
        return ""
    text = "{:+.1f} [{:+.1f}, {:+.1f}]".format(found["value"], *found["interval"])
    relative = "; {:+.0f} % [{:+.0f}, {:+.0f}]".format(found["relative"], *found["relative_interval"]) \
        if "relative" in found else ""  # fmt: skip
    return text + relative


def _average(values: Sequence[float | None]) -> float | None:
    found = [v for v in values if v is not None]
    return float(np.mean(found)) if found else None
