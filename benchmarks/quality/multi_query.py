"""The table of multi-query retrieval: recall after every round, of HMRN, Drill-down and the simple baselines.

    python benchmarks/quality/multi_query.py [KEY=VALUE ...] [--data flickr8k] [--seeds 0 1 2]
        [--rows hmrn-t2i drilldown ...] [--out runs/multi_query/flickr8k]

The rows are the recipes ``multi_query/DATA-...``, some with the changes that :data:`ROWS` lists. A cell is one row
trained with one seed, in OUT/cells; one that is finished is not trained again, one that was stopped goes on, so rows
and seeds can be added later. After every cell OUT/table.md, OUT/table.json and OUT/rounds.png are written anew.

Rows of the kind ``again`` train nothing: they measure the model of another row in another way.
"""

from __future__ import annotations

# ruff: noqa: E402
import argparse
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # run as a file, it finds its neighbours too

from benchmarks.quality.image_text import Meter
from benchmarks.quality.rounds_table import Cell, write_table
from xretrieve.data.cache import FeatureCache
from xretrieve.data.turns import QuerySets, query_sets
from xretrieve.errors import XRetrieveError, unknown
from xretrieve.evaluation import Report, evaluate
from xretrieve.evaluation.rounds import evaluate_round_scores
from xretrieve.heads.hmrn import HMRN
from xretrieve.training.build import load_split
from xretrieve.training.recipe import MemberConfig, Recipe
from xretrieve.training.recipes import as_items, load_recipe
from xretrieve.training.run import Run, train
from xretrieve.utils.files import read_json


@dataclass(frozen=True)
class Row:
    """One line of the table.

    Args:
        name: as given to --rows, and the cell's folder.
        about: what it is.
        recipe: ``multi_query/DATA-<recipe>``; default: the name.
        keys: of the recipe, changed.
        members: average of these rows instead of a training.
        start: row whose weights the training starts from.
        of: row whose trained model is measured once more: with ``levels``, weights of the local, reasoning and global
            level, or with another way to ``combine`` sentences.
        kind: ``model``, ``average`` or ``again``, which trains nothing.
    """

    name: str
    about: str
    recipe: str = ""
    keys: dict[str, Any] = field(default_factory=dict)
    members: tuple[str, ...] = ()
    start: str = ""
    of: str = ""
    levels: tuple[float, float, float] | None = None
    combine: str = ""
    kind: str = "model"

    def needs(self) -> tuple[str, ...]:
        """Rows that must be there first."""
        return (*self.members, *filter(None, (self.start, self.of)))


def weights(alpha: float, beta: float) -> dict[str, float]:
    """Keys of a recipe for HMRN's levels: alpha for the local one, beta for the reasoning, the rest for the global."""
    return {"head.options.alpha": alpha, "head.options.beta": beta}


# Where a level is left out, the others keep their proportions of 0.6 : 0.3 : 0.1.
LOCAL, LOCAL_GLOBAL, LOCAL_REASON, GLOBAL_REASON = (1.0, 0.0), (6 / 7, 0.0), (2 / 3, 1 / 3), (0.0, 0.75)
ROWS = [
    Row("mean-similarity", "dual encoder, mean of the sentences' cosines"),
    Row("mean-as-fusion", "the same model, mean of the sentences' ranks", of="mean-similarity", combine="rank_fusion",
        kind="again"),
    Row("mean-as-paragraph", "the same model, sentences joined into one text", of="mean-similarity",
        combine="paragraph", kind="again"),
    Row("rank-fusion", "dual encoder, mean of the sentences' ranks, trained on sentences alone"),
    Row("paragraph", "dual encoder, sentences joined into one text, trained so"),
    Row("drilldown", "Drill-down, three slots"),
    Row("drilldown-policy", "Drill-down, the policy chooses the slot", start="drilldown"),
    Row("one-slot", "Drill-down's cell with one slot three times as wide"),
    Row("hmrn-t2i", "HMRN, sentences look at regions"),
    Row("hmrn-i2t", "HMRN, regions look at sentences"),
    Row("hmrn", "HMRN, average of both directions", members=("hmrn-t2i", "hmrn-i2t"), kind="average"),
    Row("t2i-local", "HMRN t2i trained with the local level alone", "hmrn-t2i", weights(*LOCAL)),
    Row("t2i-local-global", "trained with local and global", "hmrn-t2i", weights(*LOCAL_GLOBAL)),
    Row("t2i-local-reason", "trained with local and reasoning", "hmrn-t2i", weights(*LOCAL_REASON)),
    Row("t2i-global-reason", "trained with global and reasoning", "hmrn-t2i", weights(*GLOBAL_REASON)),
    Row("t2i-one-step", "HMRN t2i with one step of reasoning instead of three", "hmrn-t2i", {"head.options.steps": 1}),
    *(
        Row(f"t2i-by-{name}", f"HMRN t2i trained whole, ranked by {name.replace('-', ' and ')}", of="hmrn-t2i",
            levels=(alpha, beta, 1 - alpha - beta), kind="again")
        for name, (alpha, beta) in {
            "local": LOCAL, "global": (0.0, 0.0), "reason": (0.0, 1.0), "local-global": LOCAL_GLOBAL,
            "local-reason": LOCAL_REASON, "global-reason": GLOBAL_REASON,
        }.items()
    ),
]  # fmt: skip
BY_NAME = {row.name: row for row in ROWS}
OPPONENTS = ("drilldown", "mean-similarity")


class Table:
    """The cells of a dataset in a folder.

    Args:
        data: ``scenes``, ``flickr8k`` or another one that has recipes ``multi_query/DATA-...``.
        out: folder.
        overrides: ``key=value`` for every recipe.
    """

    def __init__(self, data: str, out: Path, overrides: list[str] | None = None) -> None:
        self.data, self.out, self.overrides = data, out, overrides or []
        base = load_recipe(f"multi_query/{data}-hmrn-t2i", self.overrides)
        self.dataset, self.protocol = base.dataset, base.protocol
        self.levels: tuple[Path, list[torch.Tensor]] | None = None

    def place(self, name: str, seed: int) -> Path:
        """The folder of a cell."""
        return self.out / "cells" / f"{name}-s{seed}"

    def recipe(self, row: Row, seed: int) -> Recipe:
        """What a cell trains or averages."""
        common = {"name": f"multi_query/{self.data}-{row.name}-s{seed}", "seed": seed, "expect": {}}
        if row.members:
            members = [MemberConfig(str(self.place(member, seed)), name=member) for member in row.members]
            return Recipe(common["name"], self.dataset, self.protocol, members=members, task="multi_query", seed=seed)
        start = {"start": str(self.place(row.start, seed))} if row.start else {}
        changes = [*self.overrides, *as_items({**common, **row.keys, **start})]
        return load_recipe(f"multi_query/{self.data}-{row.recipe or row.name}", changes)

    def cost(self, name: str, seed: int) -> dict[str, Any]:
        """CPU seconds and head parameters of a cell, with those of the rows that it needs."""
        own = [self.cost(other, seed) for other in BY_NAME[name].needs()]
        path = self.place(name, seed) / "cost.json"
        own += [read_json(path)] if path.is_file() else []
        if BY_NAME[name].of:
            return {}
        if BY_NAME[name].start:  # the same weights, trained further
            return {"cpu": sum(cost.get("cpu", 0) for cost in own), "parameters": own[-1].get("parameters")}
        return {key: sum(cost.get(key, 0) for cost in own) for key in ("cpu", "parameters")}

    def make(self, row: Row, seed: int) -> Report:
        """Train a cell, average its members or measure another row's model again; what is there already is read."""
        if row.of:
            return self._again(row, seed)
        folder, meter = self.place(row.name, seed), None
        if not row.members:
            meter = Meter(folder / "cost.json")
        run = train(self.recipe(row, seed), out=folder, resume=True, on_step=meter.step if meter else None)
        if meter is not None and "parameters" not in read_json(folder / "cost.json"):
            meter.save(parameters=sum(p.numel() for p in run.matcher().head.parameters()))
        return run.report

    def _again(self, row: Row, seed: int) -> Report:
        run, place = Run.open(self.place(row.of, seed)), self.place(row.name, seed)
        made_of = f"{run.report.matcher['fingerprint']} {row.combine or row.levels}"
        if (place / "report.json").is_file():
            stored = Report.load(place)
            if stored.matcher.get("fingerprint") == made_of:
                return stored
        name, test = f"multi_query/{self.data}-{row.name}-s{seed}", load_split(self.dataset, "test")
        if row.combine:
            report = evaluate(run.matcher(), test, protocol=self.protocol, cache=FeatureCache(), combine=row.combine)
        else:
            sets = query_sets(test, run.report.turns)
            if self.levels is None or self.levels[0] != run.folder:  # the model is run once for all its rows
                self.levels = run.folder, level_scores(run, test.images, test.image_ids, sets)
            scores = sum(weight * level for weight, level in zip(row.levels, self.levels[1], strict=True))
            report = evaluate_round_scores(scores.numpy(), sets, test, run.report.protocol)
        report.name, report.matcher = name, {"name": name, "fingerprint": made_of, "source": ""}
        report.save(place)
        return report

    def finished(self) -> dict[tuple[str, int], Cell]:
        """The cells that are there already, by row and seed; those of other recipes are an error when they are made."""
        return {
            (row.name, int(path.parent.name.rpartition("-s")[2])): self.cell(row.name, path.parent)
            for row in ROWS
            for path in sorted(self.out.glob(f"cells/{row.name}-s*/report.json"))
        }

    def cell(self, name: str, folder: Path) -> Cell:
        """What the table shows of a finished cell."""
        return Cell(Report.load(folder), **self.cost(name, int(folder.name.rpartition("-s")[2])))


def level_scores(run: Run, images: Any, ids: list[str], sets: QuerySets) -> list[torch.Tensor]:
    """Local, weighted reasoning and global scores (T,N,M) of HMRN, each before its share of the sum."""
    matcher = run.matcher()
    if not isinstance(matcher.head, HMRN):
        raise XRetrieveError(f"{run.folder}: only head 'hmrn' has levels, this is {matcher.head.name!r}")
    with torch.inference_mode():
        gallery = matcher.encode_images(images, ids=ids, cache=FeatureCache())
        queries = matcher.encode_sets([sets.said(i) for i in range(len(sets))], cache=FeatureCache())
        made = matcher.head.score_rounds(queries, gallery, levels=True)
        last = torch.arange(sets.longest)[:, None].minimum(torch.from_numpy(sets.sizes) - 1)  # (T,M)
        width = matcher.head.round_weights(sets.longest).float()[last]
    return [made["local"], width[:, None] * made["reason"], made["global"]]


def chosen(names: list[str] | None) -> list[Row]:
    """The rows of these names with those that they need, in the order of the table."""
    wanted, more = set(), list(names or BY_NAME)
    while more:
        name = more.pop()
        if name not in BY_NAME:
            raise unknown("row", name, BY_NAME)
        wanted.add(name)
        more += BY_NAME[name].needs()
    return [row for row in ROWS if row.name in wanted]


def run_table(
    data: str, out: Path, rows: list[str] | None = None, seeds: tuple[int, ...] = (0,),
    overrides: list[str] | None = None,
) -> Iterator[dict[str, Any]]:  # fmt: skip
    """Make all cells, seed by seed; yields the table after each one."""
    table = Table(data, out, overrides)
    cells = table.finished()
    for seed in seeds:
        for row in chosen(rows):
            table.make(row, seed)
            cells[row.name, seed] = table.cell(row.name, table.place(row.name, seed))
            there = {name for name, _ in cells}
            yield write_table(out, [row for row in ROWS if row.name in there], cells, OPPONENTS)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="keys of every row's recipe")
    parser.add_argument("--data", default="flickr8k", help="dataset with recipes multi_query/DATA-...")
    parser.add_argument("--rows", nargs="+", help=f"of {', '.join(BY_NAME)}; default: all")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--out", type=Path, help="default: runs/multi_query/DATA")
    given = parser.parse_args()
    out = given.out or Path("runs/multi_query") / given.data
    for table in run_table(given.data, out, given.rows, tuple(given.seeds), given.overrides):
        print(f"{len(table['rows'])} rows, written to {out}/table.md", flush=True)
    print((out / "table.md").read_text(encoding="utf-8"))


if __name__ == "__main__":
    main()
