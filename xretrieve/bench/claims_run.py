"""`bench claims`: make the cells of the three claims, and gather what they say into one report."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from xretrieve.bench import claims, tables
from xretrieve.bench.cells import Cells
from xretrieve.bench.claims import BEST, CLAIMS, Claim, Pair
from xretrieve.bench.ready import missing
from xretrieve.bench.rows import Made, by_seed, chosen
from xretrieve.errors import XRetrieveError, unknown
from xretrieve.evaluation.provenance import stamp, versions
from xretrieve.evaluation.published import published_rows
from xretrieve.evaluation.report import Report
from xretrieve.utils.processes import side_by_side, silent


@dataclass
class Found:
    """What one claim found on one dataset.

    Args:
        data: dataset.
        setting: of every number: protocol, split, sizes.
        metrics: of the differences, the main one first.
        keys: of every row's recipe, changed for this run.
        rows: of the table (:func:`xretrieve.bench.tables.table_rows`), with ``published`` figures where there are any.
        pairs: the differences, by metric.
        absent: rows that have no finished cell.
        measured_with: machines and versions that the cells name.
        stopped: why the work on it ended early.
    """

    data: str
    setting: str = ""
    metrics: list[str] = field(default_factory=list)
    keys: list[str] = field(default_factory=list)
    rows: list[dict[str, Any]] = field(default_factory=list)
    pairs: list[dict[str, Any]] = field(default_factory=list)
    absent: list[str] = field(default_factory=list)
    measured_with: list[str] = field(default_factory=list)
    stopped: str = ""


@dataclass
class ClaimsReport:
    """The report on all claims.

    Args:
        quick: whether the numbers come from the small budget.
        found: claim -> what was found on each dataset.
        skipped: claim -> dataset -> why it was not measured.
        seconds: wall and CPU time of this call.
    """

    quick: bool
    found: dict[str, list[Found]]
    skipped: dict[str, dict[str, str]]
    seconds: dict[str, float]
    created: str = field(default_factory=stamp)
    versions: dict[str, str] = field(default_factory=versions)

    @property
    def stopped(self) -> list[str]:
        """What went wrong, a line each."""
        return [f"{key}, {one.data}: {one.stopped}" for key, many in self.found.items() for one in many if one.stopped]


def run_claims(
    out: Path, quick: bool = False, data: Sequence[str] = (), seeds: Sequence[int] = (), train: bool = True,
    only: Sequence[str] = (), say: Callable[[str], None] = silent, jobs: int = 1,
) -> ClaimsReport:  # fmt: skip
    """Train and measure what the claims need, then gather it.

    Cells lie in ``OUT/TASK/DATA/cells/ROW-sSEED``; finished ones are kept, so a run that was stopped goes on, and a
    longer one adds to a shorter one. A dataset that cannot be measured is skipped with the reason, and one on which
    the work fails is reported as far as it came.

    Args:
        out: folder.
        quick: the small budget: fewer rows and epochs, parts of the real sets.
        data: datasets; default: the built-in one and every real one that lies under the data root, or, where nothing is
            trained, that has finished cells.
        seeds: of every row; default: 0 for a quick run, else 0, 1 and 2.
        train: False gathers what is there, and needs no data.
        only: keys of claims; default: all.
        say: receives a line before each cell.
        jobs: claims and datasets that are worked on at once, each in a process of its own.
    """
    wall, cpu = time.perf_counter(), _cpu_seconds()
    for key in only:
        if key not in claims.BY_KEY:
            raise unknown("claim", key, claims.BY_KEY)
    asked = [claim for claim in CLAIMS if not only or claim.key in only]
    known = {name for claim in asked for name in claim.datasets()}
    for name in data:
        if name not in known:
            raise unknown("dataset of the claims", name, known)
    lacks = cache(missing)  # asked of each dataset once, and of none whose cells are only gathered
    report = ClaimsReport(quick, {}, {}, {})
    todo: list[tuple[Claim, str, Cells, list[str]]] = []
    for claim in asked:
        report.found[claim.key], report.skipped[claim.key] = [], {}
        for name in [name for name in claim.datasets() if not data or name in data]:
            why = "" if not train and _measured(claim, name, out) else lacks(name)
            if not why and quick and (claim.key, name) not in claims.QUICK:
                why = "there is no small budget for it; a run without --quick measures it"
            if why:
                report.skipped[claim.key][name] = why
                say(f"{claim.key}, {name}: skipped: {why}")
                continue
            cells = claim.cells(name, out, quick)
            rows = chosen(cells.rows, [row for row in claim.names(quick) if row in cells.by_name])
            todo.append((claim, name, cells, [row.name for row in rows]))
    stopped = [""] * len(todo)
    if train:
        seeds = seeds or _seeds(quick)
        work = [(f"{claim.key}, {name}", cells, names, seeds, say) for claim, name, cells, names in todo]
        stopped = side_by_side(_make, work, jobs)
    for (claim, name, cells, names), why in zip(todo, stopped, strict=True):
        found = Found(name, keys=claim.keys(name, quick), stopped=why)
        report.found[claim.key].append(gather(claim, cells, found, names))
    report.seconds = {"wall": time.perf_counter() - wall, "cpu": _cpu_seconds() - cpu}
    return report


def _cpu_seconds() -> float:
    """Of this process and of those that it has waited for."""
    return sum(os.times()[:4])


def _measured(claim: Claim, data: str, out: Path) -> bool:
    """Whether a cell of a claim on a dataset is finished."""
    return any((out / claim.task / data / "cells").glob("*/report.json"))


def _seeds(quick: bool) -> tuple[int, ...]:
    return claims.QUICK_SEEDS if quick else claims.FULL_SEEDS


def _make(what: str, cells: Cells, names: Sequence[str], seeds: Sequence[int], say: Callable[[str], None]) -> str:
    """Make the cells of a claim on a dataset, as far as that goes; why it stopped early, empty when it did not."""
    try:
        for seed in seeds:
            for row in (cells.by_name[name] for name in names):
                if not cells.current(row, seed):
                    say(f"{what}: {row.name} ({row.about}), seed {seed}")
                cells.make(row, seed)
    except XRetrieveError as error:
        say(f"{what}: stopped: {error}")
        return str(error)
    return ""


def gather(claim: Claim, cells: Cells, found: Found, names: Sequence[str]) -> Found:
    """Fill in what the finished cells of these rows say."""
    made = {at: cell for at, cell in cells.finished().items() if at[0] in names}
    found.absent = [name for name in names if not by_seed(made, name)]
    if not made:
        return found
    first = next(iter(made.values())).report
    found.metrics, found.setting = claim.metrics(first), str(first.metrics.setting)
    shown = found.metrics
    if claim.task == "multi_query":
        shown = [f"round{t}_r1" for t in range(1, first.turns + 1)]  # type: ignore[attr-defined]
    found.rows = tables.table_rows([cells.by_name[name] for name in names], made, shown, ())
    for row in found.rows:
        row["published"] = _published(claim, row["name"], first)
    for pair in claim.pairs:
        compared = _compare(claim, pair, made, found.metrics)
        if compared:
            found.pairs.append(compared)
    told = [{k: v for k, v in cell.report.versions.items() if k in ("machine", "torch")} for cell in made.values()]
    found.measured_with = sorted({", ".join(f"{k} {v}" for k, v in one.items()) for one in told})
    return found


def _compare(claim: Claim, pair: Pair, made: Made, metrics: Sequence[str]) -> dict[str, Any]:
    """A difference by metric; empty where a row or a seed in common is missing."""
    b, a = by_seed(made, pair.b), pair.a
    if a == BEST:
        there = [name for name in claim.baselines if set(by_seed(made, name)) & set(b)]
        if not there:
            return {}
        a = max(there, key=lambda name: tables.mean(by_seed(made, name), metrics[0]))
    cells = by_seed(made, a)
    gains = {metric: tables.gain(cells, b, metric) for metric in metrics}
    if not gains[metrics[0]]:
        return {}
    return {"a": a, "b": pair.b, "what": pair.what, "chosen": pair.a == BEST, "main": pair.main,
            "published": pair.published, "gains": gains, "verdict": verdict(gains[metrics[0]]["interval"])}  # fmt: skip


def verdict(interval: Sequence[float]) -> str:
    """What a 95 % interval of a difference says.

    >>> verdict([0.4, 2.0]), verdict([-0.1, 2.0]), verdict([-2.0, -0.3])
    ('better', 'no clear difference', 'worse')
    """
    low, high = interval
    return "better" if low > 0 else "worse" if high < 0 else "no clear difference"


def _published(claim: Claim, row: str, report: Report) -> dict[str, Any]:
    """The figures printed for a row's model under the very protocol on the whole gallery; empty elsewhere."""
    name, setting = claim.printed.get(row, ""), report.metrics.setting
    if not name or setting.coverage < 1:
        return {}
    known = {found.name: found for found in published_rows(setting.dataset, report.protocol.name)}
    return {"name": name, "source": known[name].source, "values": known[name].values} if name in known else {}
