"""The table of composed queries: every head and baseline, with and without each stage, strict and relaxed.

    python benchmarks/quality/composed.py [KEY=VALUE ...] [--data products] [--seeds 0 1 2]
        [--rows tirg progressive ...] [--out runs/composed/products]

The rows are the recipes ``composed/DATA-...`` with the changes that :data:`ROWS` lists. A cell is one row trained with
one seed, in OUT/cells; one that is finished is not trained again, one that was stopped goes on, so rows and seeds can
be added later. After every cell OUT/table.md and OUT/table.json are written anew.

Heads that read the same features share their second stage: it is trained once for each seed (the row ``sum``), and the
rows after it start from its weights.
"""

from __future__ import annotations

# ruff: noqa: E402
import argparse
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # run as a file, it finds its neighbours too

from benchmarks.quality.image_text import Meter
from benchmarks.quality.rounds_table import _average, _gain, _line, gain, mean
from xretrieve.data.cache import FeatureCache
from xretrieve.errors import unknown
from xretrieve.evaluation.composed_metrics import measures, resampled_composed
from xretrieve.evaluation.composed_report import ComposedReport
from xretrieve.evaluation.composed_vectors import asked
from xretrieve.evaluation.evaluator import versions
from xretrieve.evaluation.report import Report
from xretrieve.training.build import load_split
from xretrieve.training.recipes import as_items, load_recipe
from xretrieve.training.run import train
from xretrieve.utils.files import read_json, write_json, write_text


@dataclass(frozen=True)
class Row:
    """One line of the table.

    Args:
        name: as given to --rows, and the cell's folder.
        about: what it is.
        recipe: ``composed/DATA-<recipe>``; default: the name.
        keys: of the recipe, changed.
        start: row whose weights stage 3 starts from, in place of a stage 2 of its own.
    """

    name: str
    about: str
    recipe: str = ""
    keys: dict[str, Any] = field(default_factory=dict)
    start: str = ""


def direct(**keys: Any) -> dict[str, Any]:
    """Keys of a row without stage 2."""
    return {"stages.0.skip": True, **keys}


POOLED = {"image.options.layers": None, "image.options.places": 0}  # the backbone's mean alone, as published heads read
ROWS = [
    Row("image", "reference image alone, after stage 2"),
    Row("text", "text alone, after stage 2"),
    Row("sum", "sum of unit vectors, after stage 2"),
    Row("constant", "one weight for all queries, chosen on validation, after stage 2"),
    Row("sum-trained", "sum, sides trained in stage 3", "sum", {"stages.1.skip": False}, "sum"),
    Row("dqu", "DQU-CIR's convex gate", start="sum"),
    Row("combiner", "CLIP4Cir's Combiner", start="sum"),
    Row("tirg", "TIRG", start="sum"),
    Row("plain", "progressive, one pair of weights for each query, labels, residual", start="sum"),
    Row("plain-no-label", "the same without labels", "plain", {"stages.1.composition.label": "none"}, "sum"),
    Row("plain-half", "the same with weights of one half", "plain",
        {"stages.1.composition.label": "none", "head.options.weights": "half"}, "sum"),
    Row("dqu-direct", "DQU-CIR's gate without stage 2", "dqu", direct()),
    Row("combiner-direct", "Combiner without stage 2", "combiner", direct()),
    Row("tirg-direct", "TIRG without stage 2", "tirg", direct()),
    Row("plain-direct", "plain progressive without stage 2", "plain", direct()),
    Row("progressive", "progressive, weights for each attribute"),
    Row("progressive-direct", "the same without stage 2: attributes are read in stage 3 only", "progressive", direct()),
    Row("progressive-no-stage3", "the same after stage 2", "progressive", {"stages.1.skip": True}),
    Row("progressive-attributes", "stage 2 of attributes alone", "progressive",
        {"stages.0.domain.tasks": ["attributes"]}),
    Row("progressive-label", "with weight labels", "progressive", {"stages.1.composition.label": "logprob"}),
    Row("tirg-pooled", "TIRG without stage 2 on the backbone's mean alone", "tirg", direct(**POOLED)),
    Row("combiner-pooled", "Combiner without stage 2 on the backbone's mean alone", "combiner", direct(**POOLED)),
    Row("progressive-pooled", "progressive on the backbone's mean alone", "progressive", POOLED),
]  # fmt: skip
BY_NAME = {row.name: row for row in ROWS}
METRICS = {"products": ("mean_relaxed_r10", "mean_strict_r10", "same_model_strict_r10")}
OPPONENTS = ("tirg-direct", "tirg-pooled", "tirg")


@dataclass
class Cell:
    """One row trained with one seed: its report, CPU seconds of training, parameters of the head, weights by kind."""

    report: ComposedReport
    cpu: float | None = None
    parameters: int | None = None
    weights: dict[str, Any] = field(default_factory=dict)

    @cached_property
    def draws(self) -> dict[str, np.ndarray]:
        """Each metric on each resample of the queries; every cell draws the same queries."""
        r = self.report
        return resampled_composed(measures(r.counts, r.protocol), r.counts)

    def value(self, metric: str) -> float:
        """A metric of the report."""
        return self.report[metric].value


class Table:
    """The cells of a dataset in a folder.

    Args:
        data: ``products``, ``scenes`` or another one that has recipes ``composed/DATA-...``.
        out: folder.
        overrides: ``key=value`` for every recipe.
    """

    def __init__(self, data: str, out: Path, overrides: list[str] | None = None) -> None:
        self.data, self.out, self.overrides = data, out, overrides or []

    def place(self, name: str, seed: int) -> Path:
        """The folder of a cell."""
        return self.out / "cells" / f"{name}-s{seed}"

    def make(self, row: Row, seed: int) -> Cell:
        """Train a cell; one that is there is read."""
        folder, keys = self.place(row.name, seed), dict(row.keys)
        if row.start:
            keys |= {"start": str(self.place(row.start, seed)), "stages.0.skip": True}
        common = {"name": f"composed/{self.data}-{row.name}-s{seed}", "seed": seed, "expect": {}}
        changes = [*self.overrides, *as_items({**common, **keys})]
        recipe = load_recipe(f"composed/{self.data}-{row.recipe or row.name}", changes)
        meter = Meter(folder / "cost.json")
        run = train(recipe, out=folder, resume=True, on_step=meter.step)
        if not (folder / "weights.json").is_file():
            matcher = run.matcher()
            write_json(folder / "weights.json", weights_by_kind(matcher, load_split(recipe.dataset, "test"),
                                                                run.report.protocol.mode))  # fmt: skip
            meter.save(parameters=sum(p.numel() for p in matcher.head.parameters()))
        return self.cell(folder)

    def cell(self, folder: Path) -> Cell:
        """What the table shows of a finished cell; its cost holds that of the row it started from."""
        cost = read_json(folder / "cost.json") if (folder / "cost.json").is_file() else {}
        weights = read_json(folder / "weights.json") if (folder / "weights.json").is_file() else {}
        name, _, seed = folder.name.rpartition("-s")
        start = BY_NAME[name].start
        before = read_json(self.place(start, int(seed)) / "cost.json").get("cpu", 0.0) if start else 0.0
        report = Report.load(folder)
        assert isinstance(report, ComposedReport)
        return Cell(report, cost.get("cpu", 0.0) + before, cost.get("parameters"), weights)

    def finished(self) -> dict[tuple[str, int], Cell]:
        """The cells that are there already, by row and seed."""
        return {
            (row.name, int(path.parent.name.rpartition("-s")[2])): self.cell(path.parent)
            for row in ROWS
            for path in sorted(self.out.glob(f"cells/{row.name}-s*/report.json"))
        }


@torch.inference_mode()
def weights_by_kind(matcher: Any, test: Any, mode: str) -> dict[str, Any]:
    """Mean and standard deviation of the image's weight over the test queries of each kind of edit; for a head that
    reads attributes also the mean for each attribute."""
    queries = asked(test, mode)
    images = matcher.encode_images(test.images, ids=test.image_ids, cache=FeatureCache())
    texts = matcher.encode_texts(queries.texts)
    kinds = np.array([test.triplets[i].kind or "all" for i in queries.pair])
    chosen_text = torch.from_numpy(np.ascontiguousarray(queries.text_rows[:, 0]))
    made = matcher.head.compose(images[torch.from_numpy(queries.reference)], texts[chosen_text])
    if made.weights is None:
        return {}
    share, each = made.weights[:, 0].numpy(), made.trace.get("attribute_weights")
    told: dict[str, Any] = {}
    for kind in dict.fromkeys(kinds.tolist()):
        here = kinds == kind
        told[kind] = {"mean": float(share[here].mean()), "sd": float(share[here].std())}
        if each is not None:
            of = each[torch.from_numpy(here)][:, 0].mean(0).tolist()
            told[kind]["attributes"] = dict(zip(["vector", *matcher.head.reading.names], of, strict=True))
    return told


def write_table(out: Path, cells: Mapping[tuple[str, int], Cell], metrics: Sequence[str]) -> dict[str, Any]:
    """Write ``table.json`` and ``table.md``; returns what the JSON holds."""
    rows = [row for row in ROWS if any(name == row.name for name, _ in cells)]
    by_row = {row.name: {s: c for (name, s), c in cells.items() if name == row.name} for row in rows}
    first = next(iter(cells.values())).report
    metrics = [m for m in metrics if m in first.metrics.values] or [first.headline.name]
    lines = []
    for row in rows:
        made = by_row[row.name]
        drawn = {m: np.mean([cell.draws[m] for cell in made.values()], 0) for m in metrics}
        lines.append({
            "name": row.name, "about": row.about, "seeds": sorted(made),
            "values": {m: mean(made, m) for m in metrics},
            "per_seed": {m: {str(s): cell.value(m) for s, cell in sorted(made.items())} for m in metrics},
            "intervals": {m: np.percentile(drawn[m], [2.5, 97.5]).tolist() for m in metrics},
            "against": {name: {m: gain(by_row[name], made, m) for m in metrics}
                        for name in OPPONENTS if name in by_row and name != row.name},
            "weights": {str(s): cell.weights for s, cell in made.items()},
            "parameters": next(iter(made.values())).parameters,
            "cpu_seconds": _average([cell.cpu for cell in made.values()]),
        })  # fmt: skip
    table = {"metrics": metrics, "setting": str(first.metrics.setting), "versions": versions(), "rows": lines,
             "created": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())}  # fmt: skip
    write_json(out / "table.json", table)
    write_text(out / "table.md", markdown(table))
    return table


def markdown(table: dict[str, Any]) -> str:
    """The table for people: metrics with intervals, gains over TIRG, then the image's weight by kind of edit."""
    there = {row["name"] for row in table["rows"]}
    against = [name for name in OPPONENTS if name in there]
    head = ["row", "what", "seeds", *(m.replace("_", " ") for m in table["metrics"]),
            *(f"{m.replace('_', ' ')} against {name}" for name in against for m in table["metrics"][::2]),
            "head parameters", "training CPU s"]  # fmt: skip
    lines = [_line(head), "|" + "---|" * len(head)]
    for row in table["rows"]:
        numbers = ["{:.1f} [{:.1f}, {:.1f}]".format(row["values"][m], *row["intervals"][m]) for m in table["metrics"]]
        gains = [_gain(row["against"].get(name, {}).get(m)) for name in against for m in table["metrics"][::2]]
        cost = f"{row['cpu_seconds']:.0f}" if row["cpu_seconds"] else ""
        count = f"{row['parameters']:,}" if row["parameters"] else ""
        lines.append(_line([f"`{row['name']}`", row["about"], " ".join(map(str, row["seeds"])), *numbers, *gains,
                            count, cost]))  # fmt: skip
    kinds = list(dict.fromkeys(k for row in table["rows"] for w in row["weights"].values() for k in w))
    lines += ["", _line(["image weight, mean (sd)", *kinds]), "|" + "---|" * (1 + len(kinds))]
    for row in table["rows"]:
        told = next(iter(row["weights"].values()), {})
        if told:
            shown = ["{mean:.2f} ({sd:.2f})".format(**told[k]) if k in told else "" for k in kinds]
            lines.append(_line([f"`{row['name']}`", *shown]))
    notes = [
        f"{table['setting']}.",
        "Means over the seeds; 95 % intervals, and those of gains, from 1,000 resamples of the queries, drawn in pairs "
        "over the seeds that both rows have. Image weights: first seed, test split.",
        "Machine: " + ", ".join(f"{k} {v}" for k, v in table["versions"].items()),
    ]
    return "\n".join(lines) + "\n\n" + "\n".join(notes) + "\n"


def chosen(names: list[str] | None) -> list[Row]:
    """The rows of these names with those that they start from; a start comes before what needs it."""
    wanted, more = set(), list(names or BY_NAME)
    while more:
        name = more.pop()
        if name not in BY_NAME:
            raise unknown("row", name, BY_NAME)
        wanted.add(name)
        if BY_NAME[name].start:
            more.append(BY_NAME[name].start)
    return sorted((row for row in ROWS if row.name in wanted), key=lambda row: bool(row.start))


def run_table(data: str, out: Path, rows: list[str] | None = None, seeds: tuple[int, ...] = (0,),
              overrides: list[str] | None = None) -> Iterator[dict[str, Any]]:  # fmt: skip
    """Make all cells, seed by seed; yields the table after each one."""
    table = Table(data, out, overrides)
    for seed in seeds:
        for row in chosen(rows):
            table.make(row, seed)
            yield write_table(out, table.finished(), METRICS.get(data, ()))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="keys of every row's recipe")
    parser.add_argument("--data", default="products", help="dataset with recipes composed/DATA-...")
    parser.add_argument("--rows", nargs="+", help=f"of {', '.join(BY_NAME)}; default: all")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--out", type=Path, help="default: runs/composed/DATA")
    given = parser.parse_args()
    out = given.out or Path("runs/composed") / given.data
    for table in run_table(given.data, out, given.rows, tuple(given.seeds), given.overrides):
        print(f"{len(table['rows'])} rows, written to {out}/table.md", flush=True)
    print((out / "table.md").read_text(encoding="utf-8"))


if __name__ == "__main__":
    main()
