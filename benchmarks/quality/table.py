"""One table from the reports of several rows and seeds: means, intervals, paired differences; markdown and JSON."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from xretrieve.evaluation import Report
from xretrieve.evaluation.bootstrap import resampled
from xretrieve.evaluation.evaluator import versions
from xretrieve.utils.files import write_json, write_text

RESAMPLES = 1000


@dataclass
class Cell:
    """One row trained with one seed: its report, CPU seconds of training, parameters of the head."""

    report: Report
    cpu: float | None = None
    parameters: int | None = None

    @cached_property
    def draws(self) -> dict[str, np.ndarray]:
        """Each metric on each resample of the test images; every cell draws the same images."""
        r = self.report
        how = {"ks": r.protocol.ks, "folds": r.protocol.folds, "resamples": RESAMPLES}
        return resampled(r.i2t_ranks, r.t2i_ranks, r.counts.owner, **how)


Cells = Mapping[int, Cell]  # by seed


def draws(cells: Cells, metric: str) -> np.ndarray:
    """A metric on each resample, averaged over the seeds."""
    return np.mean([cell.draws[metric] for cell in cells.values()], 0)


def difference(a: Cells, b: Cells, metric: str = "rsum") -> dict[str, Any]:
    """b - a of a metric over the seeds that both have, with its paired 95 % interval; empty without such a seed."""
    seeds = sorted(set(a) & set(b))
    if not seeds:
        return {}
    delta = draws({s: b[s] for s in seeds}, metric) - draws({s: a[s] for s in seeds}, metric)
    low, high = np.percentile(delta, [2.5, 97.5])
    value = float(np.mean([b[s].report[metric].value - a[s].report[metric].value for s in seeds]))
    p = min(1.0, 2 * min(float(np.mean(delta <= 0)), float(np.mean(delta >= 0))))
    return {"value": value, "low": float(low), "high": float(high), "p": p, "seeds": seeds}


def write_table(
    out: Path, rows: Sequence[Any], made: Mapping[tuple[str, int], Cell], about: dict[str, Any]
) -> dict[str, Any]:
    """Write ``table.json`` and ``table.md``; returns what the JSON holds.

    Args:
        rows: with ``name``, ``about`` and ``kind``, in the table's order.
        made: every finished cell, by row and seed.
        about: what else the JSON says; ``opponent`` names the row that all others are compared with.
    """
    by_row = {row.name: {seed: cell for (name, seed), cell in made.items() if name == row.name} for row in rows}
    singles = [row.name for row in rows if row.kind == "single"]
    best = max(singles, key=lambda name: _mean(by_row[name], "rsum"), default=None)
    against = [name for name in (about["opponent"], best) if name in by_row]
    lines = []
    for row in rows:
        cells = by_row[row.name]
        low, high = np.percentile(draws(cells, "rsum"), [2.5, 97.5])
        first = next(iter(cells.values()))
        rsums = {str(seed): cell.report["rsum"].value for seed, cell in sorted(cells.items())}
        spread = float(np.std(list(rsums.values()), ddof=1)) if len(cells) > 1 else None
        lines.append({
            "name": row.name, "about": row.about, "kind": row.kind, "seeds": sorted(cells),
            "metrics": {name: _mean(cells, name) for name in first.report.metrics},
            "rsum_interval": [float(low), float(high)], "rsum_sd_over_seeds": spread,
            "rsum_per_seed": rsums,
            "against": {name: difference(by_row[name], cells) for name in against if name != row.name},
            "cpu_seconds": _average([cell.cpu for cell in cells.values()]), "parameters": first.parameters,
        })  # fmt: skip
    setting = str(next(iter(made.values())).report.metrics.setting)
    table = {**about, "best_single": best, "setting": setting, "versions": versions(), "rows": lines,
             "created": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())}  # fmt: skip
    write_json(out / "table.json", table)
    write_text(out / "table.md", markdown(table, against))
    return table


def markdown(table: dict[str, Any], against: Sequence[str]) -> str:
    """The table for people."""
    head = ["row", "what", "seeds", "i2t R@1 5 10", "t2i R@1 5 10", "rsum", "sd over seeds",
            *(f"against {name}" for name in against), "head parameters", "training CPU s"]  # fmt: skip
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    for row in table["rows"]:
        values = row["metrics"]
        recalls = [" ".join(f"{values[f'{d}_r{k}']:.1f}" for k in (1, 5, 10)) for d in ("i2t", "t2i")]
        low, high = row["rsum_interval"]
        deltas = [_delta(row["against"].get(name)) for name in against]
        sd = "" if row["rsum_sd_over_seeds"] is None else f"{row['rsum_sd_over_seeds']:.1f}"
        parameters = f"{row['parameters']:,}" if row["parameters"] else ""
        cpu = f"{row['cpu_seconds']:.0f}" if row["cpu_seconds"] is not None else ""
        star = "*" if row["kind"] == "average" else ""
        cells = [row["name"] + star, row["about"], " ".join(map(str, row["seeds"])), *recalls,
                 f"{values['rsum']:.1f} [{low:.1f}, {high:.1f}]", sd, *deltas, parameters, cpu]  # fmt: skip
        lines.append("| " + " | ".join(cells) + " |")
    notes = [
        f"Base: {table['base']['name']}. {table['setting']}.",
        f"`*` averages the scores of models trained apart (fusion {table['fusion']}, for cosines their mean); its cost "
        "is the sum of its members'.",
        "Means over the seeds; differences are rsum, paired over the images. Best single stream: "
        f"{table['best_single']} (chosen by these very numbers, which favours it).",
        "Machine: " + ", ".join(f"{k} {v}" for k, v in table["versions"].items()),
    ]  # fmt: skip
    return "\n".join(lines) + "\n\n" + "\n".join(notes) + "\n"


def _delta(found: dict[str, Any] | None) -> str:
    return f"{found['value']:+.1f} [{found['low']:+.1f}, {found['high']:+.1f}]" if found else ""


def _mean(cells: Cells, metric: str) -> float:
    return float(np.mean([cell.report[metric].value for cell in cells.values()]))


def _average(values: Sequence[float | None]) -> float | None:
    found = [v for v in values if v is not None]
    return float(np.mean(found)) if found else None
