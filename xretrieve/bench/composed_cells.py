"""The table of composed queries: every head and baseline, with and without each stage, strict and relaxed.

The rows are the recipes ``composed/DATA-...`` with the changes that :data:`ROWS` lists. Heads that read the same
features share their second stage: it is trained once for each seed (the row ``sum``), and the rows after it start from
its weights.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from xretrieve.bench import tables
from xretrieve.bench.cells import Cells
from xretrieve.bench.recipes import known_rows, recipe_name, table_recipe
from xretrieve.bench.rows import Row
from xretrieve.data.cache import FeatureCache
from xretrieve.evaluation.composed_vectors import asked
from xretrieve.training.build import test_split
from xretrieve.training.recipe import Recipe
from xretrieve.training.recipes import list_recipes, load_recipe
from xretrieve.training.run_folder import Run
from xretrieve.utils.files import read_json, write_json, write_text


def direct(**keys: Any) -> dict[str, Any]:
    """Keys of a row without stage 2."""
    return {"stages.0.skip": True, **keys}


POOLED = {"image.options.layers": None, "image.options.places": 0}  # the backbone's mean alone, as published heads read
COLOURS = {"image.options.colours": 8}  # colour histograms beside what the recipes read
ROWS = [
    Row("image", "reference image alone, after stage 2"),
    Row("text", "text alone, after stage 2"),
    Row("sum", "sum of unit vectors, after stage 2"),
    Row("constant", "one weight for all queries, chosen on validation, after stage 2"),
    Row("sum-trained", "sum, sides trained in stage 3", "sum", {"stages.1.skip": False}, start="sum"),
    Row("dqu", "DQU-CIR's convex gate", start="sum"),
    Row("combiner", "CLIP4Cir's Combiner", start="sum"),
    Row("tirg", "TIRG", start="sum"),
    Row("plain", "progressive, one pair of weights for each query, labels, residual", start="sum"),
    Row("plain-no-label", "the same without labels", "plain", {"stages.1.composition.label": "none"}, start="sum"),
    Row("plain-half", "the same with weights of one half", "plain",
        {"stages.1.composition.label": "none", "head.options.weights": "half"}, start="sum"),
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
    Row("sum-pooled", "sum after stage 2, on the backbone's mean alone", "sum", POOLED),
    Row("dqu-pooled-staged", "DQU-CIR's gate with stage 2, on the mean alone", "dqu", POOLED, start="sum-pooled"),
    Row("combiner-pooled-staged", "Combiner with stage 2, on the mean alone", "combiner", POOLED, start="sum-pooled"),
    Row("tirg-pooled-staged", "TIRG with stage 2, on the mean alone", "tirg", POOLED, start="sum-pooled"),
    Row("plain-pooled-staged", "plain progressive on the mean alone", "plain", POOLED, start="sum-pooled"),
    Row("progressive-pooled", "progressive on the backbone's mean alone", "progressive", POOLED),
    Row("sum-colours", "sum after stage 2, with colour histograms", "sum", COLOURS),
    Row("tirg-colours", "TIRG without stage 2, with colour histograms", "tirg", direct(**COLOURS)),
    Row("tirg-colours-staged", "TIRG with stage 2 and colour histograms", "tirg", COLOURS, start="sum-colours"),
    Row("progressive-colours", "progressive; its reader of colours sees colour histograms, too", "progressive",
        {**COLOURS, "head.options.reading": {"own": ["colour"], "image_features": 2800}}),
]  # fmt: skip
METRICS = {"products": ("mean_relaxed_r10", "mean_strict_r10", "same_model_strict_r10"),
           "scenes": ("mean_relaxed_r1", "mean_strict_r1", "mean_relaxed_r10")}  # fmt: skip
OPPONENTS = ("tirg-direct", "tirg", "tirg-pooled", "tirg-pooled-staged", "tirg-colours", "tirg-colours-staged")
# where the recipe `progressive` reads no attributes, it is the plain form itself
PLAIN_ABOUT = {"progressive": "progressive, one pair of weights for each query",
               "progressive-direct": "the same without stage 2"}  # fmt: skip


def rows_of(data: str) -> list[Row]:
    """The rows that a dataset has recipes for; the plain form is ``progressive`` where that reads no attributes."""
    rows = ROWS
    if recipe_name("composed", data, Row("plain")) not in list_recipes():
        rows = [
            replace(row, recipe="progressive") if "plain" in (row.name, row.recipe) else
            replace(row, about=PLAIN_ABOUT.get(row.name, row.about))
            for row in ROWS if row.name != "progressive-attributes"
        ]  # fmt: skip
    there = known_rows("composed", data, rows)
    return known_rows("composed", data, [row for row in there if _applies(data, row)])


def _applies(data: str, row: Row) -> bool:
    """Whether a stage is left: some datasets have no stage 2, so that a row without stage 3 would train nothing; and
    whether a row that leaves earlier layers out, or adds to them, has any."""
    recipe = load_recipe(recipe_name("composed", data, row))
    if row.keys.keys() & (POOLED.keys() | COLOURS.keys()) and not (recipe.image and recipe.image.options.get("layers")):
        return False
    stages = recipe.stages
    skipped = [row.keys.get(f"stages.{i}.skip", stage.skip) for i, stage in enumerate(stages)]
    return not all(skipped[1:]) or not (skipped[0] or row.start)


class ComposedCells(Cells):
    """The cells of a dataset in a folder; beside each run ``weights.json``, how its head weighs image and text.

    Args:
        data: ``products``, ``scenes`` or another one that has recipes ``composed/DATA-...``.
        out: folder.
        overrides: ``key=value`` for every recipe.
        rows: of the table; default: :func:`rows_of`.
    """

    def __init__(self, data: str, out: Path, overrides: Sequence[str] = (), rows: Sequence[Row] | None = None) -> None:
        self.data, self.overrides = data, list(overrides)
        super().__init__(rows_of(data) if rows is None else rows, out)

    def recipe(self, row: Row, seed: int) -> Recipe:
        """What a cell trains; one that starts from another row has no stage 2 of its own."""
        keys = {"start": str(self.place(row.start, seed)), "stages.0.skip": True} if row.start else {}
        return table_recipe("composed", self.data, row, seed, self.overrides, keys)

    def more(self, run: Run) -> None:
        """Write ``weights.json``."""
        if not (run.folder / "weights.json").is_file():
            mode = run.report.protocol.mode  # type: ignore[attr-defined]
            found = weights_by_kind(run.matcher(), test_split(run.recipe.dataset), mode)
            write_json(run.folder / "weights.json", found)

    def extra(self, folder: Path) -> dict[str, Any]:
        """The weights of image and text by kind of edit."""
        return read_json(folder / "weights.json") if (folder / "weights.json").is_file() else {}

    def write(self) -> dict[str, Any]:
        """Write ``table.json`` and ``table.md``; returns what the JSON holds."""
        made = self.finished()
        first = next(iter(made.values())).report
        metrics = [m for m in METRICS.get(self.data, ()) if m in first.metrics.values]
        metrics = metrics or [first.headline.name]
        rows = tables.table_rows(self.rows, made, metrics, OPPONENTS)
        for row in rows:
            row["weights"] = {str(seed): made[row["name"], seed].extra for seed in row["seeds"]}
        table = {"metrics": metrics, **tables.about_table(made), "rows": rows}
        write_json(self.out / "table.json", table)
        write_text(self.out / "table.md", markdown(table))
        return table


@torch.inference_mode()
def weights_by_kind(matcher: Any, test: Any, mode: str) -> dict[str, Any]:
    """Mean and standard deviation of the image's weight over the test queries of each kind of edit; for a head that
    reads attributes also the mean for each attribute."""
    queries = asked(test, mode)
    images = matcher.encode_images(test.images, ids=test.image_ids, cache=FeatureCache())
    texts = matcher.encode_texts(queries.texts)
    kinds = np.array([test.triplets[i].kind or "all" for i in queries.pair])
    said = torch.from_numpy(np.ascontiguousarray(queries.text_rows[:, 0]))
    made = matcher.head.compose(images[torch.from_numpy(queries.reference)], texts[said])
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


def markdown(table: dict[str, Any]) -> str:
    """The table for people: metrics with intervals, gains over TIRG, then the image's weight by kind of edit."""
    there = {row["name"] for row in table["rows"]}
    against = [name for name in OPPONENTS if name in there]
    words = {m: m.replace("_", " ") for m in table["metrics"]}
    lines = tables.heading([
        "row", "what", "seeds", *words.values(),
        *(f"{words[m]} against {name}" for name in against for m in table["metrics"][::2]), *tables.COSTS,
    ])  # fmt: skip
    for row in table["rows"]:
        numbers = [tables.spread(row["values"][m], row["intervals"][m]) for m in table["metrics"]]
        gains = [tables.gained(row["against"].get(name, {}).get(m)) for name in against for m in table["metrics"][::2]]
        lines.append(tables.line([tables.label(row), row["about"], tables.seeds_of(row), *numbers, *gains,
                                  *tables.costs(row)]))  # fmt: skip
    kinds = list(dict.fromkeys(k for row in table["rows"] for w in row["weights"].values() for k in w))
    lines += ["", *tables.heading(["image weight, mean (sd)", *kinds])]
    for row in table["rows"]:
        told: dict[str, Any] = next(iter(row["weights"].values()), {})
        if told:
            shown = ["{mean:.2f} ({sd:.2f})".format(**told[k]) if k in told else "" for k in kinds]
            lines.append(tables.line([tables.label(row), *shown]))
    notes = [
        f"{table['setting']}.",
        "Means over the seeds; 95 % intervals, and those of gains, from 1,000 resamples of the queries, drawn in pairs "
        "over the seeds that both rows have. Image weights: first seed, test split.",
        tables.machine_line(table["versions"]),
    ]
    return "\n".join(lines) + "\n\n" + "\n".join(notes) + "\n"
