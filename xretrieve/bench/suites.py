"""Suites: all models of a dataset under its protocols, trained recipes and pretrained models in one table."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from xretrieve.bench import tables
from xretrieve.bench.cells import Cells, placed
from xretrieve.bench.ready import missing
from xretrieve.bench.rows import Cell, Row, chosen
from xretrieve.data import datasets
from xretrieve.data.cache import FeatureCache
from xretrieve.errors import XRetrieveError, unknown
from xretrieve.evaluation import evaluate
from xretrieve.evaluation.report import Report
from xretrieve.loading import load
from xretrieve.training.build import test_split
from xretrieve.training.recipe import Recipe
from xretrieve.training.recipes import as_items, list_recipes, load_recipe, recipes_named
from xretrieve.utils.files import write_json, write_text
from xretrieve.utils.paths import is_file, is_folder
from xretrieve.utils.processes import silent

RECIPES, ZERO_SHOT = "recipes", "zero-shot"  # words of --models for many at once
BASELINES = ("open_clip:ViT-B-32/laion2b_s34b_b79k", "transformers:google/siglip-base-patch16-224")


def suites() -> dict[str, list[str]]:
    """Suite (a dataset) -> its recipes.

    >>> suites()["shoes"][0]
    'composed/shoes-combiner'
    """
    names = list_recipes()
    found = {data: [n for n in names if n.rpartition("/")[2].startswith(f"{data}-")] for data in datasets.names()}
    return {data: recipes for data, recipes in found.items() if recipes}


@dataclass(frozen=True)
class Ready:
    """A model that is measured without training, under the protocol of some recipe.

    Args:
        model: what :func:`xretrieve.load` takes: a pretrained name, or a run folder.
        like: recipe whose dataset and protocol are taken.
    """

    model: str
    like: Recipe

    @property
    def name(self) -> str:
        """Of the row."""
        return f"{self.model}, {self.like.protocol}"

    @property
    def kind(self) -> str:
        """``zero-shot`` for a pretrained name, ``run`` for a run folder."""
        return "run" if is_folder(Path(self.model)) else ZERO_SHOT

    @property
    def folder(self) -> str:
        """Of the report."""
        return re.sub(r"[^\w.-]+", "-", self.name)


class SuiteCells(Cells):
    """Recipes of one dataset as rows, and models that are ready beside them.

    Args:
        recipes: their names; one that starts from another comes after it.
        out: folder.
        overrides: ``key=value`` for every recipe.
        ready: models without training, one for each protocol that they are measured under.
    """

    def __init__(
        self, recipes: Sequence[str], out: Path, overrides: Sequence[str] = (), ready: Sequence[str] = ()
    ) -> None:
        self.overrides = list(overrides)
        self.shipped = {name: load_recipe(name, self.overrides) for name in recipes}
        last = {name.rpartition("/")[2]: name for name in self.shipped}
        rows = [
            Row(row_name(name), recipe.description, name, kind="average" if recipe.members else "trained",
                start=row_name(last[begins]) if (begins := Path(recipe.start or "").name) in last else "")
            for name, recipe in self.shipped.items()
        ]  # fmt: skip
        rows.sort(key=lambda row: bool(row.start))
        super().__init__(rows, out)
        by_protocol = {(r.task, r.protocol): r for r in self.shipped.values()}
        self.ready = [Ready(model, like) for model in ready for like in by_protocol.values()]

    def recipe(self, row: Row, seed: int) -> Recipe:
        """The shipped recipe with this seed."""
        keys: dict[str, Any] = {"seed": seed, "expect": {}}
        if row.start:
            keys["start"] = str(self.place(row.start, seed))
        return load_recipe(row.recipe, [*self.overrides, *as_items(keys)])

    def measure(self, ready: Ready) -> Cell:
        """The report of a model that is ready, made once."""
        folder = self.out / "ready" / ready.folder
        if not is_file(folder / "report.json"):
            report = evaluate(placed(load(ready.model)), test_split(ready.like.dataset), cache=FeatureCache(),
                              protocol=ready.like.protocol, name=ready.model)  # fmt: skip
            report.save(folder)
        return Cell(Report.load(folder))

    def measured(self) -> dict[tuple[str, int], Cell]:
        """The finished cells, and the models that are ready and measured, as of seed 0."""
        there = [one for one in self.ready if is_file(self.out / "ready" / one.folder / "report.json")]
        return {**self.finished(), **{(one.name, 0): self.measure(one) for one in there}}

    def all_rows(self) -> list[Row]:
        """Recipes, then the models that are ready."""
        return [*self.rows, *(Row(one.name, "without training here", kind=one.kind) for one in self.ready)]

    def write(self) -> dict[str, Any]:
        """Write ``table.json`` and ``table.md``: a part for each protocol; returns what the JSON holds."""
        made, parts = self.measured(), []
        protocols = dict.fromkeys(cell.report.protocol.name for cell in made.values())
        for protocol in protocols:
            own = {at: cell for at, cell in made.items() if cell.report.protocol.name == protocol}
            metrics = next(iter(own.values())).report.main_metrics()
            parts.append({"protocol": protocol, "metrics": metrics, **tables.about_table(own),
                          "rows": tables.table_rows(self.all_rows(), own, metrics, ())})  # fmt: skip
        table = {"parts": parts, "rows": [row for part in parts for row in part["rows"]]}
        write_json(self.out / "table.json", table)
        write_text(self.out / "table.md", markdown(table))
        return table


def row_name(recipe: str) -> str:
    """A recipe's name as the name of a row and a folder.

    >>> row_name("image_text/scenes-dual")
    'image_text.scenes-dual'
    """
    return recipe.replace("/", ".")


def markdown(table: dict[str, Any]) -> str:
    """The table for people: a part for each protocol, the best row first."""
    lines: list[str] = []
    for part in table["parts"]:
        head = part["metrics"][0]
        lines += [f"## {part['protocol']}", "", *tables.heading(
            ["model", "kind", "seeds", *(m.replace("_", " ") for m in part["metrics"]), *tables.COSTS]
        )]  # fmt: skip
        for row in sorted(part["rows"], key=lambda row: -row["values"][head]):
            others = [f"{row['values'][m]:.1f}" for m in part["metrics"][1:]]
            lines.append(tables.line([tables.label(row), row["kind"], tables.seeds_of(row),
                                      tables.spread(row["values"][head], row["intervals"][head]), *others,
                                      *tables.costs(row)]))  # fmt: skip
        lines += ["", f"{part['setting']}.", tables.machine_line(part["versions"]), ""]
    return "\n".join(lines)


@dataclass
class SuiteResult:
    """What a suite gave.

    Args:
        name: of the suite.
        folder: with ``table.md``, ``table.json`` and the runs.
        table: what its JSON holds, empty when nothing was measured.
        skipped: model -> why it was not measured.
        cells: for the leaderboard.
    """

    name: str
    folder: Path
    table: dict[str, Any] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)
    cells: SuiteCells | None = None


def run_suite(
    target: str, out: Path, models: Sequence[str] = (RECIPES,), seeds: Sequence[int] = (0,),
    overrides: Sequence[str] = (), say: Callable[[str], None] = silent,
) -> SuiteResult:  # fmt: skip
    """Check the data, then train and measure every model that is asked for.

    Args:
        target: a suite, or a recipe.
        out: folder; cells lie in ``OUT/SUITE/cells``, and finished ones are kept.
        models: ``recipes``, ``zero-shot``, names of recipes, pretrained names (``open_clip:...``) or run folders.
        seeds: of the recipes.
        overrides: ``key=value`` for every recipe.
        say: receives a line before each model and for each that is skipped.
    """
    data, recipes, ready = select(target, models)
    result = SuiteResult(data, out / data)
    cells = result.cells = SuiteCells(recipes or suites()[data], result.folder, overrides, ready)
    absent: dict[str, str] = {}  # by the dataset's options, each looked at once
    work: list[tuple[str, str, Recipe, Callable[[], Any]]] = [
        (row.name, f"{row.recipe}, seed {seed}", cells.shipped[row.recipe], partial(cells.make, row, seed))
        for seed in seeds for row in chosen(cells.rows, [row_name(name) for name in recipes])
    ]  # fmt: skip
    work += [(one.name, one.name, one.like, partial(cells.measure, one)) for one in cells.ready]
    for name, said, recipe, do in work:
        key = repr(recipe.dataset)
        absent[key] = absent[key] if key in absent else missing(recipe.dataset)
        try:
            if absent[key]:
                raise XRetrieveError(absent[key])
            say(f"{data}: {said}")
            do()
        except XRetrieveError as error:  # what one model lacks does not stop the others
            result.skipped[name] = str(error)
    if cells.measured():
        result.table = cells.write()
    return result


def select(target: str, models: Sequence[str] = (RECIPES,)) -> tuple[str, list[str], list[str]]:
    """The dataset of a suite or recipe, the recipes that are asked for, and the models that need no training."""
    known = suites()
    if target in known:
        data, own = target, known[target]
    else:
        matches = recipes_named(target)
        if len(matches) != 1:
            lists = "`xretrieve bench --list`, `xretrieve train --list`"
            raise unknown("suite or recipe", target, [*known, *list_recipes()], lists)
        data, own = load_recipe(matches[0]).dataset.name, matches
    recipes: list[str] = []
    ready: list[str] = []
    for model in models:
        short = [n for n in own if model in (n, n.rpartition("/")[2], n.rpartition("/")[2].removeprefix(f"{data}-"))]
        if model == RECIPES:
            recipes += own
        elif model == ZERO_SHOT:
            ready += BASELINES
        elif short:
            recipes += short
        elif ":" in model or is_folder(Path(model)):
            ready.append(model)
        else:
            raise unknown(f"model of {target}:", model, [RECIPES, ZERO_SHOT, *own])
    needed = _with_starts(list(dict.fromkeys(recipes)), known.get(data, own))
    return data, needed, list(dict.fromkeys(ready))


def _with_starts(recipes: list[str], known: Sequence[str]) -> list[str]:
    """The recipes with those of the dataset that they start from."""
    for name in recipes:  # grows while it is read
        begins = Path(load_recipe(name).start or "").name
        recipes += [n for n in known if begins and n.rpartition("/")[2] == begins and n not in recipes]
    return recipes


def describe() -> list[dict[str, Any]]:
    """What ``bench --list`` says of each suite: name, task and protocol of its recipes, and what is missing."""
    told = []
    for data, recipes in suites().items():
        shipped = [load_recipe(name) for name in recipes]
        protocols = list(dict.fromkeys(f"{r.task}: {r.protocol}" for r in shipped))
        told.append({"name": data, "recipes": recipes, "protocols": protocols, "missing": missing(data)})
    return told
