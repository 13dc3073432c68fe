"""The cells of a table: one row trained with one seed, each in its own folder, made once, gone on with after a stop."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from inspect import signature
from pathlib import Path
from typing import Any

import torch

from xretrieve.bench.rows import Cell, Row, chosen
from xretrieve.config import first_difference, to_dict
from xretrieve.errors import XRetrieveError
from xretrieve.evaluation.report import Report
from xretrieve.heads import head_class
from xretrieve.training.recipe import Recipe
from xretrieve.training.recipes import load_recipe
from xretrieve.training.run import train
from xretrieve.training.run_folder import Run
from xretrieve.utils.files import read_json, write_json

SILENT = ("name", "description", "expect", "published")  # keys of a recipe that change no weight and no number


class Meter:
    """CPU seconds of a training that may be stopped and go on; kept in a file."""

    def __init__(self, path: Path) -> None:
        self.path, self.written = path, 0.0
        self.start: float | None = None
        self.before = self.seconds = read_json(path)["cpu"] if path.is_file() else 0.0

    def step(self, _: int) -> None:
        """After an optimizer step."""
        now = time.process_time()
        self.start = now if self.start is None else self.start
        self.seconds = self.before + now - self.start
        if now - self.written > 5:
            self.written = now
            self.save()

    def save(self, **more: Any) -> None:
        """Write what was measured so far."""
        write_json(self.path, {"cpu": self.seconds, **more})


def effective(recipe: Recipe) -> dict[str, Any]:
    """What of a recipe decides the numbers: equal for recipes that train and measure the same model.

    Options of the head that say the default are left out, and other runs count by the name of their folder, so that
    cells may be moved together.
    """
    values = {key: value for key, value in to_dict(recipe).items() if key not in SILENT}
    if recipe.head is not None:
        known = signature(head_class(recipe.head.name)).parameters
        said = {k: v for k, v in recipe.head.options.items() if k not in known or v != known[k].default}
        values["head"] = {"name": recipe.head.name, "options": said}
    values["start"] = Path(recipe.start).name if recipe.start else None
    values["members"] = [{**member, "recipe": Path(member["recipe"]).name} for member in values["members"]]
    return values


def head_parameters(run: Run) -> int:
    """Numbers that the head holds, summed over the members of an average."""
    matchers = [member.matcher() for member in run.members()] or [run.matcher()]
    return sum(p.numel() for matcher in matchers for p in matcher.head.parameters())  # type: ignore[union-attr]


def placed(matcher: Any) -> Any:
    """The matcher on the GPU where there is one."""
    return matcher.to(torch.device("cuda")) if torch.cuda.is_available() else matcher


class Cells(ABC):
    """The cells of a table in a folder: ``OUT/cells/ROW-sSEED`` is a run folder with ``cost.json``.

    A subclass says which recipe a row is (:meth:`recipe`) and how the table is written (:meth:`write`). Rows that train
    the very same model share one cell.

    Args:
        rows: in the table's order; a row comes after those that it needs.
        out: folder.
    """

    def __init__(self, rows: Sequence[Row], out: Path) -> None:
        self.rows, self.out = list(rows), out
        self.by_name = {row.name: row for row in self.rows}
        self._read: dict[tuple[str, int], tuple[int, Cell]] = {}  # with the time of its report
        self._checked: dict[Path, tuple[int, bool]] = {}
        self._same: dict[str, list[str]] = {}  # rows that train the very same model, by each of their names
        seen: list[tuple[dict[str, Any], list[str]]] = []
        for row in self.rows:
            if not row.members and not row.of:
                made = effective(self.recipe(row, 0))
                names = next((names for other, names in seen if other == made), [])
                if not names:
                    seen.append((made, names))
                names.append(row.name)
                self._same[row.name] = names

    @abstractmethod
    def recipe(self, row: Row, seed: int) -> Recipe:
        """What a cell trains, or averages."""

    @abstractmethod
    def write(self) -> dict[str, Any]:
        """Write the table of all finished cells into the folder; returns what its JSON holds."""

    def place(self, name: str, seed: int) -> Path:
        """The folder of a cell."""
        return self.out / "cells" / f"{self._stored(name, seed)}-s{seed}"

    def _stored(self, name: str, seed: int) -> str:
        """The row by whose name the cell lies there: the first one that trains the same model, unless one is there."""
        names = self._same.get(name, [name])
        there = (one for one in names if (self.out / "cells" / f"{one}-s{seed}" / "recipe.yaml").is_file())
        return next(there, names[0])

    def cost(self, name: str, seed: int) -> dict[str, Any]:
        """``cpu`` seconds, with those of the row that a cell started from, and head ``parameters``.

        Both are summed over the members of an average; a model that is measured again costs nothing more.
        """
        row = self.by_name[name]
        if row.of:
            return {}
        if row.members:
            parts = [self.cost(member, seed) for member in row.members]
            return {key: sum(part.get(key, 0) for part in parts) for key in ("cpu", "parameters")}
        path = self.place(name, seed) / "cost.json"
        own = read_json(path) if path.is_file() else {}
        if row.start and "cpu" in own:
            own["cpu"] += self.cost(row.start, seed).get("cpu", 0.0)
        return own

    def make(self, row: Row, seed: int) -> Cell:
        """Train a cell, average its members or measure another row's model again; what is there already is read."""
        folder = self.place(row.name, seed)
        if row.of:
            self.again(row, seed, folder)
        elif row.members:
            self.average(row, seed, folder)
        else:
            self._train(row, seed, folder)
        return self.cell(row.name, seed)

    def average(self, row: Row, seed: int, folder: Path) -> None:
        """Measure the average of the members' models."""
        recipe = self.recipe(row, seed)
        if not self._finished(folder, recipe):
            train(recipe, out=folder, resume=True)

    def again(self, row: Row, seed: int, folder: Path) -> None:
        """Measure the model of the row ``row.of`` in another way."""
        raise XRetrieveError(f"row {row.name!r}: this table measures no model again")

    def more(self, run: Run) -> None:
        """Called with every finished training: what else the table needs is put into its folder."""
        return None

    def _train(self, row: Row, seed: int, folder: Path) -> None:
        recipe = self.recipe(self.by_name[self._stored(row.name, seed)], seed)
        meter = Meter(folder / "cost.json")
        done = self._finished(folder, recipe)
        run = Run.open(folder) if done else train(recipe, out=folder, resume=True, on_step=meter.step)
        cost = read_json(folder / "cost.json") if (folder / "cost.json").is_file() else {}
        if "parameters" not in cost:
            meter.save(parameters=head_parameters(run))
        self.more(run)

    def _finished(self, folder: Path, recipe: Recipe) -> bool:
        """Whether a cell is finished; one of another recipe is an error."""
        if not (folder / "report.json").is_file():
            return False
        changed = first_difference(effective(load_recipe(folder / "recipe.yaml")), effective(recipe))
        if changed:
            raise XRetrieveError(
                f"{folder} was trained with another value of {changed}; delete that folder, or take another --out"
            )
        return True

    def current(self, row: Row, seed: int) -> bool:
        """Whether a finished cell is there, of the very recipe that the row has now, and so are those it is made of."""
        folder = self.place(row.name, seed)
        if not (folder / "report.json").is_file():
            return False
        if row.members or row.of:
            return all(self.current(self.by_name[name], seed) for name in row.needs())
        changed = (folder / "report.json").stat().st_mtime_ns
        if self._checked.get(folder, (0, False))[0] != changed:
            try:
                same = self._finished(folder, self.recipe(self.by_name[self._stored(row.name, seed)], seed))
            except XRetrieveError:  # another recipe, or one that this version cannot read
                same = False
            self._checked[folder] = changed, same
        return self._checked[folder][1]

    def cell(self, name: str, seed: int) -> Cell:
        """What the table shows of a finished cell."""
        folder = self.place(name, seed)
        changed = (folder / "report.json").stat().st_mtime_ns
        if self._read.get((name, seed), (0, None))[0] != changed:
            cost = self.cost(name, seed)
            made = Cell(Report.load(folder), cost.get("cpu"), cost.get("parameters"), self.extra(folder))
            self._read[name, seed] = changed, made
        return self._read[name, seed][1]

    def extra(self, folder: Path) -> dict[str, Any]:
        """What else the table shows of a cell."""
        return {}

    def finished(self) -> dict[tuple[str, int], Cell]:
        """The cells that are there already, by row and seed; those of other recipes are not looked at.

        The folder is read anew each time: several processes may fill one table.
        """
        found = {}
        seeds = sorted({path.parent.name.rpartition("-s")[2] for path in self.out.glob("cells/*/report.json")})
        for row in self.rows:
            for seed in (int(text) for text in seeds if text.isdigit()):
                if self.current(row, seed):
                    found[row.name, seed] = self.cell(row.name, seed)
        return found

    def run(self, names: Sequence[str] | None = None, seeds: Sequence[int] = (0,)) -> Iterator[dict[str, Any]]:
        """Make cells, seed by seed; yields the table after each one."""
        for seed in seeds:
            for row in chosen(self.rows, names):
                self.make(row, seed)
                yield self.write()
