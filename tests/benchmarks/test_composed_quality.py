"""The table of composed queries: a row is its recipe with its own change, cells are made once, the numbers add up."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from benchmarks.quality import composed as table
from xretrieve.errors import XRetrieveError
from xretrieve.evaluation import Report
from xretrieve.training.recipes import as_items, load_recipe

TINY = [
    "dataset.options={train: 40, val: 12, test: 12, size: 48}", "image.options.size=48", "text.options.word_dim=8",
    "text.options.dim=16", "head.options.dim=16", "stages.0.epochs=1", "stages.1.epochs=1", "stages.0.batch_size=12",
    "stages.1.batch_size=12",
]  # fmt: skip


@pytest.mark.parametrize("row", table.ROWS, ids=lambda row: row.name)
def test_every_row_is_a_recipe_of_the_catalogue(row: table.Row) -> None:
    keys = row.keys | ({"start": "runs/other", "stages.0.skip": True} if row.start else {})
    recipe = load_recipe(f"composed/products-{row.recipe or row.name}", as_items(keys))
    assert not all(stage.skip for stage in recipe.stages)
    if row.start:
        other = load_recipe(f"composed/products-{table.BY_NAME[row.start].name}")
        assert (other.image, other.text) == (recipe.image, recipe.text)
        assert other.head is not None and recipe.head is not None
        assert other.head.options["sides"] == recipe.head.options["sides"]
        assert other.stages[0] == load_recipe(f"composed/products-{row.recipe or row.name}").stages[0]


def test_rows_come_after_those_that_they_start_from_and_wrong_names_are_said() -> None:
    assert [row.name for row in table.chosen(["tirg", "progressive"])] == ["sum", "progressive", "tirg"]
    with pytest.raises(XRetrieveError, match="did you mean 'tirg'"):
        table.chosen(["tirgg"])


def test_the_table_is_made_cell_by_cell_and_no_cell_twice(tmp_path: Path) -> None:
    tables = list(table.run_table("scenes", tmp_path, ["tirg", "tirg-direct"], (0, 1), TINY))
    made = {row["name"]: row for row in tables[-1]["rows"]}
    assert list(made) == ["sum", "tirg", "tirg-direct"] and len(tables) == 6
    cells = tmp_path / "cells"
    own, before = (json.loads((cells / f"{name}-s0/cost.json").read_text())["cpu"] for name in ("tirg", "sum"))
    cell = table.Table("scenes", tmp_path).cell(cells / "tirg-s0")
    assert cell.cpu == pytest.approx(own + before)
    (metric,) = tables[-1]["metrics"]
    values = [Report.load(cells / f"tirg-s{seed}")[metric].value for seed in (0, 1)]
    assert made["tirg"]["values"][metric] == pytest.approx(np.mean(values))
    other = [Report.load(cells / f"tirg-direct-s{seed}")[metric].value for seed in (0, 1)]
    assert made["tirg"]["against"]["tirg-direct"][metric]["value"] == pytest.approx(np.mean(values) - np.mean(other))
    stamps = {path: path.stat().st_mtime_ns for path in cells.rglob("report.json")}
    again = list(table.run_table("scenes", tmp_path, ["sum"], (0,), TINY))[-1]
    assert {path: path.stat().st_mtime_ns for path in stamps} == stamps and len(again["rows"]) == len(made)
    text = (tmp_path / "table.md").read_text(encoding="utf-8")
    assert "| `tirg` |" in text and "image weight" in text
