"""The local leaderboard: one JSON line for each measured model, with the recipe that makes it again."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from xretrieve.bench.rows import Cell
from xretrieve.bench.suites import SuiteCells
from xretrieve.config import to_dict
from xretrieve.errors import XRetrieveError
from xretrieve.evaluation.report import Report
from xretrieve.utils.files import locked, write_text
from xretrieve.utils.paths import is_file
from xretrieve.utils.texts import BrokenJsonError, json_lines, to_json_lines

SAME = ("fingerprint", "dataset", "split", "protocol")  # entries that agree in these are one result


def read(path: Path) -> list[dict[str, Any]]:
    """All entries, the oldest first; none where there is no file. A broken line is an error that names it."""
    if not is_file(path):
        return []
    found: list[dict[str, Any]] = []
    try:
        for number, value in json_lines(path):
            if not isinstance(value, dict):
                raise XRetrieveError(f"{path}, line {number}: not valid JSON of an entry; delete that line")
            found.append({"number": len(found) + 1, **value})
    except BrokenJsonError as error:
        raise XRetrieveError(f"{path}, line {error.number}: not valid JSON; delete that line") from error
    return found


def append(entries: Sequence[dict[str, Any]], path: Path) -> list[int]:
    """Add entries at the end; returns their numbers, of one that is there already its old number.

    The file is written anew and renamed, by one process at a time: it is whole at every moment.
    """
    with locked(path):
        there = read(path)
        numbers = []
        for entry in entries:
            old = next((one["number"] for one in there if all(one[key] == entry[key] for key in SAME)), None)
            if old is None:
                old = len(there) + 1
                there.append({"number": old, **entry})
            numbers.append(old)
        write_text(path, to_json_lines({k: v for k, v in one.items() if k != "number"} for one in there))
    return numbers


def entries(cells: SuiteCells) -> list[dict[str, Any]]:
    """An entry for each model that a suite has measured, those that others start from first."""
    told, finished = [], cells.finished()
    for row in cells.rows:
        for seed in sorted(seed for name, seed in finished if name == row.name):
            cell, folder = cells.cell(row.name, seed), cells.place(row.name, seed)
            recipe = to_dict(cells.recipe(row, seed))
            told.append(_entry(cell, row.recipe, "trained", folder, seed=seed, recipe=recipe))
    for one in cells.ready:
        if is_file(cells.out / "ready" / one.folder / "report.json"):
            own = one.like.dataset
            command = f"xretrieve evaluate {one.model} --dataset {own.name} --protocol {one.like.protocol}"
            told.append(_entry(cells.measure(one), one.model, one.kind, cells.out / "ready" / one.folder,
                               command=command))  # fmt: skip
    return told


def _entry(
    cell: Cell, model: str, kind: str, folder: Path, seed: int | None = None, recipe: dict[str, Any] | None = None,
    command: str = "",
) -> dict[str, Any]:  # fmt: skip
    report: Report = cell.report
    setting, metrics = report.metrics.setting, report.main_metrics()
    head = report[metrics[0]]
    return {
        "model": model, "kind": kind, "dataset": setting.dataset, "split": setting.split, "task": report.protocol.task,
        "protocol": setting.protocol, "setting": str(setting), "seed": seed, "metric": head.name, "value": head.value,
        "low": head.low, "high": head.high, "values": {name: report[name].value for name in metrics},
        "cpu_seconds": cell.cpu, "parameters": cell.parameters, "created": report.created, "versions": report.versions,
        "precision": report.precision,
        "fingerprint": report.matcher.get("fingerprint", ""), "folder": str(folder), "recipe": recipe,
        "command": command,
    }  # fmt: skip


def shown(path: Path, data: str = "", protocol: str = "") -> list[dict[str, Any]]:
    """Entries of a dataset or protocol, those of a protocol together, the best first."""
    found = [one for one in read(path) if data in ("", one["dataset"]) and protocol in ("", one["protocol"])]
    return sorted(found, key=lambda one: (one["dataset"], one["split"], one["protocol"], -one["value"]))


def computed_in(one: dict[str, Any]) -> str:
    """The precisions that an entry was trained and scored in, in few words; empty where it does not say."""
    found = one.get("precision", {})
    return ", ".join(dict.fromkeys(used.partition(" (")[0] for used in (found.get(k, "") for k in ("trained", "scored"))
                                   if used))  # fmt: skip


def entry(number: int, path: Path) -> dict[str, Any]:
    """One entry by its number."""
    there = read(path)
    if not 1 <= number <= len(there):
        raise XRetrieveError(f"no entry {number} in {path}, which has {len(there)}; `xretrieve leaderboard` lists them")
    return there[number - 1]


def again(one: dict[str, Any], path: Path) -> str:
    """How an entry is made again: its recipe as YAML under the commands, or the command alone."""
    if not one["recipe"]:
        return f"{one['command']}\n"
    number, begins = one["number"], one["recipe"].get("start")
    lines = [f"# {one['model']}, seed {one['seed']}: {one['metric']} {one['value']:.2f}; {one['setting']}"]
    if begins:
        before = next((other["number"] for other in read(path) if other["folder"] == begins), None)
        if before is not None:
            lines += [f"# xretrieve leaderboard show {before} > start.yaml",
                      f"# xretrieve train start.yaml --out {begins}"]  # fmt: skip
    lines += [f"# xretrieve leaderboard show {number} > row.yaml", "# xretrieve train row.yaml --out runs/again"]
    return "\n".join(lines) + "\n" + yaml.safe_dump(one["recipe"], sort_keys=False, allow_unicode=True)
