"""The table of composed queries: a row is its recipe with its own change, cells are made once, the numbers add up."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from xretrieve.bench import composed_cells as table
from xretrieve.bench.rows import Row, chosen
from xretrieve.errors import XRetrieveError
from xretrieve.evaluation import Report

TINY = [
    "dataset.options={train: 40, val: 12, test: 12, size: 48}", "image.options.size=48", "text.options.word_dim=8",
    "text.options.dim=16", "head.options.dim=16", "stages.0.epochs=1", "stages.1.epochs=1", "stages.0.batch_size=12",
    "stages.1.batch_size=12",
]  # fmt: skip


@pytest.mark.parametrize("data", ["products", "scenes"])
def test_every_row_is_a_recipe_and_what_it_starts_from_has_the_same_sides(data: str, tmp_path: Path) -> None:
    cells = table.ComposedCells(data, tmp_path)
    for row in cells.rows:
        recipe = cells.recipe(row, 3)
        assert recipe.seed == 3 and recipe.name == f"composed/{data}-{row.name}-s3"
        assert not all(stage.skip for stage in recipe.stages)
        if row.start:
            other = cells.recipe(cells.by_name[row.start], 3)
            assert (other.image, other.text) == (recipe.image, recipe.text)
            assert other.head is not None and recipe.head is not None
            assert other.head.options["sides"] == recipe.head.options["sides"]
            assert recipe.stages[0].skip and recipe.start == str(tmp_path / "cells" / f"{row.start}-s3")


def test_the_plain_form_is_a_row_of_every_dataset_and_equal_rows_share_a_cell(tmp_path: Path) -> None:
    assert [row.name for row in table.rows_of("products")] == [row.name for row in table.ROWS]
    cells = table.ComposedCells("scenes", tmp_path)
    half = cells.recipe(cells.by_name["plain-half"], 0)
    assert half.head is not None and half.head.options["weights"] == "half"
    assert "progressive-attributes" not in cells.by_name, "its model reads no attributes"
    assert cells.place("progressive-direct", 0) == cells.place("plain-direct", 0)
    products = table.ComposedCells("products", tmp_path)
    assert len({products.place(row.name, 0) for row in products.rows}) == len(products.rows)


def test_rows_come_with_those_that_they_start_from_and_wrong_names_are_said() -> None:
    assert [row.name for row in chosen(table.ROWS, ["tirg", "progressive"])] == ["sum", "tirg", "progressive"]
    with pytest.raises(XRetrieveError, match="did you mean 'tirg'"):
        chosen(table.ROWS, ["tirgg"])


def test_the_table_is_made_cell_by_cell_and_no_cell_twice(tmp_path: Path) -> None:
    cells = table.ComposedCells("scenes", tmp_path, TINY)
    tables = list(cells.run(["tirg", "tirg-direct"], (0, 1)))
    made = {row["name"]: row for row in tables[-1]["rows"]}
    assert list(made) == ["sum", "tirg", "tirg-direct"] and len(tables) == 6
    folder = tmp_path / "cells"
    own, before = (json.loads((folder / f"{name}-s0/cost.json").read_text())["cpu"] for name in ("tirg", "sum"))
    assert cells.cell("tirg", 0).cpu == pytest.approx(own + before)
    metric = tables[-1]["metrics"][0]
    values = [Report.load(folder / f"tirg-s{seed}")[metric].value for seed in (0, 1)]
    assert made["tirg"]["values"][metric] == pytest.approx(np.mean(values))
    other = [Report.load(folder / f"tirg-direct-s{seed}")[metric].value for seed in (0, 1)]
    assert made["tirg"]["against"]["tirg-direct"][metric]["value"] == pytest.approx(np.mean(values) - np.mean(other))
    text = (tmp_path / "table.md").read_text(encoding="utf-8")
    assert "| `tirg` |" in text and "image weight" in text

    moved = tmp_path / "elsewhere"
    folder.parent.joinpath("cells").rename(tmp_path / "kept")
    moved.mkdir()
    (tmp_path / "kept").rename(moved / "cells")
    stamps = {path: path.stat().st_mtime_ns for path in moved.rglob("report.json")}
    again = list(table.ComposedCells("scenes", moved, TINY).run(["tirg"], (0, 1)))[-1]
    assert {path: path.stat().st_mtime_ns for path in stamps} == stamps, "a start in the old folder is the same start"
    assert len(again["rows"]) == len(made)


def test_rows_may_be_given(tmp_path: Path) -> None:
    cells = table.ComposedCells("scenes", tmp_path, TINY, [Row("sum", "one row")])
    assert [row.name for row in cells.rows] == ["sum"]
