"""The ablation table of the two-stream model: every row from one base recipe, at the same budget.

    python benchmarks/quality/image_text.py [KEY=VALUE ...] [--base image_text/flickr8k-tshsr] [--seeds 0 1 2]
        [--rows sgr-t2i tshsr ...] [--out runs/ablation]

A row changes what its name says and nothing else. A cell is one row trained with one seed, in OUT/cells; one that is
finished is not trained again, one that was stopped goes on, so rows and seeds can be added later. After every cell
OUT/table.md and OUT/table.json are written anew.

Differences are paired over the test images and averaged over the seeds that both rows have; their 95 % intervals come
from a bootstrap over images. CPU seconds run from the first to the last optimizer step, validation included.
"""

from __future__ import annotations

# ruff: noqa: E402
import argparse
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from inspect import signature
from pathlib import Path
from typing import Any

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # run as a file, it finds its neighbour too

from benchmarks.quality.table import Cell, write_table
from xretrieve.config import apply_overrides, from_dict, to_dict
from xretrieve.data.cache import FeatureCache
from xretrieve.ensemble import fuse
from xretrieve.errors import XRetrieveError, unknown
from xretrieve.evaluation import Report, evaluate_scores, score_matrix
from xretrieve.heads import head_class
from xretrieve.training.build import load_split
from xretrieve.training.recipe import HeadConfig, Recipe
from xretrieve.training.recipes import load_recipe
from xretrieve.training.run import Run, train
from xretrieve.utils.files import atomic_path, read_json, write_json


@dataclass(frozen=True)
class Row:
    """One line of the table.

    Args:
        name: as given to --rows, and the cell's folder.
        about: what is changed.
        options: of the head, over those of the base.
        head: another head; it takes those of the base's options that it knows.
        members: average of these rows instead of a training.
        kind: ``single`` stream, ``two`` streams, ``average`` or ``other``.
    """

    name: str
    about: str
    options: dict[str, Any] = field(default_factory=dict)
    head: str = "tshsr"
    members: tuple[str, ...] = ()
    kind: str = "two"


# what of the base's options the published single-stream models and the two ideas alone do without
PUBLISHED: dict[str, Any] = {"residual": None, "use_pooled": False, "text_hidden": 0}

ROWS = [
    Row("dual", "dual encoder", head="dual", kind="other"),
    Row("scan-t2i", "SCAN, words look at regions", {"stream": "t2i"}, "scan", kind="single"),
    Row("scan-i2t", "SCAN, regions look at words", {"stream": "i2t"}, "scan", kind="single"),
    Row("saf", "SAF t2i", PUBLISHED, "saf", kind="single"),
    Row("sgr-t2i", "SGR t2i", PUBLISHED | {"streams": "t2i", "context": "none"}, kind="single"),
    Row("sgr-i2t", "SGR i2t", PUBLISHED | {"streams": "i2t", "context": "none"}, kind="single"),
    Row("context-t2i", "t2i stream with cluster context", PUBLISHED | {"streams": "t2i", "context": "cluster"},
        kind="single"),
    Row("context-i2t", "i2t stream with cluster context", PUBLISHED | {"streams": "i2t", "context": "cluster"},
        kind="single"),
    Row("tshsr", "the model as the base has it"),
    Row("two-none", "both streams, no context", PUBLISHED | {"context": "none"}),
    Row("two-mean", "both streams, mean context", PUBLISHED | {"context": "mean"}),
    Row("two-cluster", "both streams, cluster context", PUBLISHED | {"context": "cluster"}),
    Row("residual", "the model without the pooled vectors", {"use_pooled": False, "text_hidden": 0}),
    Row("sgr-extras", "SGR t2i with the base's residual and pooled vectors", {"streams": "t2i", "context": "none"},
        kind="single"),
    Row("levels-1", "K = 1", {"levels": 1, "clusters": None}),
    Row("levels-2", "K = 2", {"levels": 2, "clusters": None}),
    Row("levels-3", "K = 3", {"levels": 3, "clusters": None}),
    Row("concat", "streams joined before one logit", {"fusion": "concat"}),
    Row("scalar-gate", "one gate per node", {"gate": "scalar"}),
    Row("aux-off", "no losses on single streams", {"aux_streams": False}),
    Row("avg-sgr", "average of SGR t2i and SGR i2t", members=("sgr-t2i", "sgr-i2t"), kind="average"),
    Row("avg-context", "average of the two streams with context, trained apart",
        members=("context-t2i", "context-i2t"), kind="average"),
    Row("avg-sgraf", "average of SGR t2i and SAF", members=("sgr-t2i", "saf"), kind="average"),
    Row("avg-scan", "average of SCAN t2i and i2t", members=("scan-t2i", "scan-i2t"), kind="average"),
]  # fmt: skip
BY_NAME = {row.name: row for row in ROWS}
OPPONENT = "avg-sgr"  # the fair one: a second direction alone is worth a lot


def row_recipe(row: Row, base: Recipe, seed: int) -> Recipe:
    """The base recipe with a row's change."""
    values = to_dict(base)
    known = signature(head_class(row.head)).parameters
    own = base.head.options
    options = {k: v for k, v in own.items() if k in known}
    options |= {k: v for k, v in row.options.items() if k in own or k not in PUBLISHED}
    values |= {"name": f"ablation/{row.name}-s{seed}", "seed": seed, "expect": {}, "published": []}
    values["head"] = {"name": row.head, "options": options}
    for stage in values["stages"]:
        if row.head == "dual" or (row.head == "scan" and stage["loss"] is not None):
            stage |= {"loss": cosine_loss(stage), "freeze_coarse": False}
        if row.head == "dual":  # its score is the cosine that coarse_loss reads, and it has no token pairs to group
            stage |= {"coarse_loss": None, "group": 0, "group_pool": 0}
    return from_dict(Recipe, values, row.name)


def effective(recipe: Recipe) -> Recipe:
    """Without its name and without options that say the default: equal for recipes that train the same model."""
    defaults = {key: known.default for key, known in signature(head_class(recipe.head.name)).parameters.items()}
    options = {key: value for key, value in recipe.head.options.items() if value != defaults[key]}
    return replace(recipe, name="", head=HeadConfig(recipe.head.name, options))


def same_model(file: Path, recipe: Recipe) -> bool:
    """Whether a cell's recipe file trains what ``recipe`` trains."""
    return effective(load_recipe(file)) == effective(recipe)


def cosine_loss(stage: dict[str, Any]) -> dict[str, Any]:
    """The loss for heads that score by cosines: the base's hinge, else its loss on coarse vectors, else InfoNCE at
    temperature 0.05 (the base's own temperature is one for logits)."""
    if stage["loss"] is not None and stage["loss"]["name"] == "hinge":
        return stage["loss"]
    return stage["coarse_loss"] or {"name": "infonce", "options": {"temperature": 0.05, "learnable": False}}


class Meter:
    """CPU seconds of a training that may be stopped and go on; kept in a file."""

    def __init__(self, path: Path) -> None:
        self.path, self.start, self.written = path, None, 0.0
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


class Table:
    """The cells of a base recipe in a folder.

    Args:
        base: with head tshsr.
        out: folder.
        fusion: of the averages; None: of the logits where the base trains on logits, else of the probabilities.
    """

    def __init__(self, base: Recipe, out: Path, fusion: str | None = None) -> None:
        if base.head is None or base.head.name != "tshsr":
            raise XRetrieveError(f"{base.name}: the base of this table needs head 'tshsr'")
        self.base, self.out = base, out
        self.fusion = fusion or ("logit" if base.head.options.get("train_on") == "logit" else "mean")
        self.test: Any = None
        self.same: dict[str, str] = {}  # row -> the first row with the very same recipe (K = 3 is the base, mostly)
        seen: list[tuple[str, Recipe]] = []
        for row in [row for row in ROWS if not row.members]:
            made = effective(row_recipe(row, base, 0))
            self.same[row.name] = next((n for n, other in seen if other == made), row.name)
            seen.append((row.name, made))

    def place(self, name: str, seed: int) -> Path:
        """The folder of a cell."""
        return self.out / "cells" / f"{self.same.get(name, name)}-s{seed}"

    def cost(self, name: str, seed: int) -> dict[str, Any]:
        """CPU seconds and head parameters of a cell, summed over the members of an average."""
        own = [self.cost(member, seed) for member in BY_NAME[name].members]
        if own:
            return {key: sum(cost.get(key, 0) for cost in own) for key in ("cpu", "parameters")}
        path = self.place(name, seed) / "cost.json"
        return read_json(path) if path.is_file() else {}

    def make(self, row: Row, seed: int) -> Report:
        """Train a cell, or average its members; what is there already is read."""
        if row.members:
            return self._average(row, seed)
        folder = self.place(row.name, seed)
        meter = Meter(folder / "cost.json")
        recipe = row_recipe(BY_NAME[self.same[row.name]], self.base, seed)
        done = (folder / "report.json").is_file() and same_model(folder / "recipe.yaml", recipe)
        run = Run.open(folder) if done else train(recipe, out=folder, resume=True, on_step=meter.step)
        if "parameters" not in self.cost(row.name, seed):
            meter.save(parameters=sum(p.numel() for p in run.matcher().head.parameters()))
        return run.report

    def finished(self) -> dict[tuple[str, int], Cell]:
        """The cells of this base that are there already, by row and seed; those of another base are not looked at."""
        found = {}
        for row in ROWS:
            for path in self.out.glob(f"cells/{self.same.get(row.name, row.name)}-s*/report.json"):
                seed = int(path.parent.name.rpartition("-s")[2])
                known = [(self.same[name], self.place(name, seed)) for name in row.members or (row.name,)]
                files = [(name, folder / "recipe.yaml") for name, folder in known]
                if all(file.is_file() and same_model(file, row_recipe(BY_NAME[name], self.base, seed))
                       for name, file in files):  # fmt: skip
                    found[row.name, seed] = Cell(Report.load(path.parent), **self.cost(row.name, seed))
        return found

    def _average(self, row: Row, seed: int) -> Report:
        runs = [Run.open(self.place(member, seed)) for member in row.members]
        made_of = " + ".join([*(run.report.matcher["fingerprint"] for run in runs), self.fusion])
        folder = self.place(row.name, seed)
        if (folder / "report.json").is_file():
            stored = Report.load(folder)
            if stored.matcher.get("fingerprint") == made_of:
                return stored
        found = [self._scores(run) for run in runs]
        heads = [run.matcher().head for run in runs]
        fusion = self.fusion if heads[0].logits else "mean"
        fused = fuse(heads, [torch.from_numpy(scores) for scores in found], fusion).numpy()
        test, name = self._test(), f"ablation/{row.name}-s{seed}*"
        report = evaluate_scores(
            fused, test.owner, protocol=self.base.protocol, dataset=test.name, split=test.split,
            image_ids=test.image_ids, caption_ids=test.caption_ids, captions=test.captions,
            expected_images=test.expected_images, name=name,
        )  # fmt: skip
        report.matcher = {"name": name, "fingerprint": made_of, "source": ""}
        report.save(folder, rows=[run.report for run in runs])
        return report

    def _scores(self, run: Run) -> np.ndarray:
        """(N, C) float32 of the test split, kept beside the run."""
        path = run.folder / f"scores-{run.report.matcher['fingerprint']}.npy"
        if not path.is_file():
            scores, _ = score_matrix(run.matcher(), self._test(), cache=FeatureCache())
            with atomic_path(path) as part, open(part, "wb") as handle:
                np.save(handle, np.ascontiguousarray(scores))
        return np.load(path)

    def _test(self) -> Any:
        if self.test is None:
            self.test = load_split(self.base.dataset, "test")
        return self.test


def chosen(names: list[str] | None) -> list[Row]:
    """The rows of these names with the members of averages, in the order of the table."""
    wanted = set(names or BY_NAME)
    for name in wanted:
        if name not in BY_NAME:
            raise unknown("row", name, BY_NAME)
    wanted |= {member for name in wanted for member in BY_NAME[name].members}
    return [row for row in ROWS if row.name in wanted]


def run_table(
    base: Recipe, out: Path, rows: list[str] | None = None, seeds: tuple[int, ...] = (0,), fusion: str | None = None
) -> Iterator[dict[str, Any]]:
    """Make all cells, seed by seed; yields the table after each one."""
    table = Table(base, out, fusion)
    cells = table.finished()
    about = {"base": to_dict(base), "fusion": table.fusion, "opponent": OPPONENT}
    for seed in seeds:
        for row in chosen(rows):
            cells[row.name, seed] = Cell(table.make(row, seed), **table.cost(row.name, seed))
            there = {name for name, _ in cells}
            yield write_table(out, [row for row in ROWS if row.name in there], cells, about)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="keys of the base recipe, for every row")
    parser.add_argument("--base", default="image_text/flickr8k-tshsr")
    parser.add_argument("--rows", nargs="+", help=f"of {', '.join(BY_NAME)}; default: all")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--out", type=Path, default=Path("runs/ablation"))
    parser.add_argument("--fusion", choices=["mean", "logit"], help="of the averages; default: as the base trains")
    given = parser.parse_args()
    base = from_dict(Recipe, apply_overrides(to_dict(load_recipe(given.base)), given.overrides), given.base)
    for table in run_table(base, given.out, given.rows, tuple(given.seeds), given.fusion):
        print(f"{len(table['rows'])} rows, written to {given.out}/table.md", flush=True)
    print((given.out / "table.md").read_text(encoding="utf-8"))


if __name__ == "__main__":
    main()
