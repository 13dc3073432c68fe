"""The table of query sets: every row is its recipe with its own change, cells are made once, and the numbers add up."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from xretrieve.bench import set_cells as table
from xretrieve.bench.rows import Cell, chosen
from xretrieve.bench.tables import gain
from xretrieve.errors import XRetrieveError
from xretrieve.evaluation import Report
from xretrieve.training.preflight import preflight

TINY = [
    "dataset.options={train: 12, val: 6, test: 8, size: 48}", "image.options.size=48", "text.options.word_dim=8",
    "text.options.dim=16", "head.options.dim=16", "stages.0.epochs=1", "stages.0.batch_size=6",
]  # fmt: skip


def test_a_row_changes_what_it_says_and_nothing_else(tmp_path: Path) -> None:
    made = table.SetCells("scenes", tmp_path)
    rows = {row.name: made.recipe(row, 5) for row in table.ROWS if not row.of and not row.members and not row.start}
    for name, recipe in rows.items():
        preflight(recipe)
        assert recipe.seed == 5 and recipe.protocol == "scenes-10" and recipe.dataset == rows["hmrn-t2i"].dataset, name
    whole = rows["hmrn-t2i"].head.options
    for name in ("t2i-local", "t2i-local-global", "t2i-local-reason", "t2i-global-reason"):
        changed = {k: v for k, v in rows[name].head.options.items() if whole.get(k) != v}
        assert set(changed) <= {"alpha", "beta"} and rows[name].stages == rows["hmrn-t2i"].stages
    assert rows["one-slot"].head.options["slots"] == 1 and rows["one-slot"].stages == rows["drilldown"].stages


def test_what_is_left_of_the_levels_keeps_its_proportions() -> None:
    for row in table.ROWS:
        levels = row.levels or (row.keys.get("head.options.alpha", 0.6), row.keys.get("head.options.beta", 0.3))
        shares = np.array([*levels, 1 - sum(levels)][:3])
        assert shares.sum() == pytest.approx(1)
        there = shares > 1e-6
        kept = np.array([0.6, 0.3, 0.1])[there]
        np.testing.assert_allclose(shares[there], kept / kept.sum(), err_msg=row.name)


def test_rows_come_with_those_that_they_need_and_wrong_names_are_said() -> None:
    assert [row.name for row in chosen(table.ROWS, ["hmrn"])] == ["hmrn-t2i", "hmrn-i2t", "hmrn"]
    assert [row.name for row in chosen(table.ROWS, ["drilldown-policy"])] == ["drilldown", "drilldown-policy"]
    assert [row.name for row in chosen(table.ROWS, ["t2i-by-local"])] == ["hmrn-t2i", "t2i-by-local"]
    with pytest.raises(XRetrieveError, match="did you mean 'drilldown'"):
        chosen(table.ROWS, ["drilldwon"])


def test_the_table_is_made_cell_by_cell_and_no_cell_twice(tmp_path: Path) -> None:
    rows = ["drilldown-policy", "hmrn", "t2i-by-reason", "mean-as-paragraph"]
    tables = list(table.SetCells("scenes", tmp_path, TINY).run(rows))
    names = ["mean-similarity", "mean-as-paragraph", "drilldown", "drilldown-policy", "hmrn-t2i", "hmrn-i2t", "hmrn",
             "t2i-by-reason"]  # fmt: skip
    made = {row["name"]: row for row in tables[-1]["rows"]}
    assert set(names) <= set(made) and len(tables) == len(names)
    cells = tmp_path / "cells"
    policy, supervised = (json.loads((cells / f"{n}-s0/cost.json").read_text()) for n in names[3:1:-1])
    assert made["drilldown-policy"]["cpu_seconds"] == pytest.approx(policy["cpu"] + supervised["cpu"])
    assert made["drilldown-policy"]["parameters"] == supervised["parameters"] > 0
    assert made["hmrn"]["parameters"] == 2 * made["hmrn-t2i"]["parameters"]
    assert made["hmrn-t2i"]["values"]["round10_r1"] == Report.load(cells / "hmrn-t2i-s0")["round10_r1"].value

    stamps = {path: path.stat().st_mtime_ns for path in cells.rglob("report.json")}
    again = list(table.SetCells("scenes", tmp_path, TINY).run(["mean-similarity"]))[-1]
    assert {path: path.stat().st_mtime_ns for path in stamps} == stamps
    assert len(again["rows"]) == len(made)  # rows made before stay in the table
    text = (tmp_path / "table.md").read_text(encoding="utf-8")
    assert "| `hmrn`* |" in text and "R@1 after 10" in text and "against drilldown" in text
    assert (tmp_path / "rounds.png").read_bytes().startswith(b"\x89PNG")


def test_all_levels_with_their_own_weights_are_the_model(tmp_path: Path) -> None:
    row = table.SetRow("t2i-by-all", of="hmrn-t2i", levels=(0.6, 0.3, 0.1), kind="again")
    model = next(one for one in table.ROWS if one.name == "hmrn-t2i")
    whole, parts = list(table.SetCells("scenes", tmp_path, TINY, [model, row]).run())[-1]["rows"]
    assert parts["values"] == whole["values"] and parts["intervals"] == whole["intervals"]


def test_rows_without_a_recipe_are_left_out(tmp_path: Path) -> None:
    names = {row.name for row in table.SetCells("visual_genome", tmp_path).rows}
    assert {"drilldown", "hmrn", "t2i-by-reason"} <= names and not {"mean-similarity", "mean-as-fusion"} & names


def test_a_gain_is_relative_to_the_opponent_and_paired() -> None:
    class Fake(Cell):
        def __init__(self, hits: list[int]) -> None:
            self.hits = np.array(hits)

        @property
        def draws(self) -> dict[str, np.ndarray]:  # type: ignore[override]
            rng = np.random.default_rng(0)
            return {"r1": np.array([100 * self.hits[rng.integers(0, 8, 8)].mean() + 1 for _ in range(50)])}

        def value(self, metric: str) -> float:
            return 100 * float(self.hits.mean()) + 1

    low, high = {0: Fake([1, 0, 0, 0, 1, 0, 0, 0])}, {0: Fake([1, 1, 0, 0, 1, 0, 0, 0]), 1: Fake([1] * 8)}
    found = gain(low, high, "r1")
    assert found["seeds"] == [0] and found["value"] == pytest.approx(12.5)
    assert found["relative"] == pytest.approx(100 * 12.5 / 26) and found["interval"][0] >= 0
    assert gain(low, {1: high[1]}, "r1") == {}
