"""The ablation table: every row is the base with its own change, cells are made once, and the numbers add up."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from xretrieve.bench import head_cells as ablation
from xretrieve.bench.cells import Meter, effective
from xretrieve.bench.rows import chosen
from xretrieve.errors import XRetrieveError
from xretrieve.evaluation import Report, compare
from xretrieve.training.preflight import preflight
from xretrieve.training.recipe import LossConfig, Recipe, StageConfig
from xretrieve.training.recipes import load_recipe

BY_NAME = {row.name: row for row in ablation.ROWS}
COARSE = LossConfig("infonce", {"temperature": 0.05})
TINY = [
    "dataset.options={train: 12, val: 6, test: 8, size: 48}", "image.options.size=48", "text.options.word_dim=8",
    "text.options.dim=16", "head.options={dim: 16, sim_dim: 8, train_on: logit, levels: 3}", "start=null",
]  # fmt: skip


@pytest.fixture
def base() -> Recipe:
    recipe = load_recipe("image_text/scenes-tshsr", TINY)
    loss = LossConfig("infonce", {"temperature": 1.0})
    recipe.stages = [StageConfig(loss, 1, COARSE, batch_size=6, batching="images", lr=0.003)]
    return recipe


def test_a_row_changes_what_it_says_and_nothing_else(base: Recipe) -> None:
    rows = {row.name: ablation.row_recipe(row, base, 5) for row in ablation.ROWS if not row.members}
    for name, recipe in rows.items():
        preflight(recipe)
        assert recipe.seed == 5 and recipe.dataset == base.dataset and recipe.image == base.image
        assert [s.epochs for s in recipe.stages] == [s.epochs for s in base.stages], name
    for name in ("sgr-i2t", "two-mean", "levels-1", "concat", "scalar-gate", "aux-off", "saf"):
        assert rows[name].stages == base.stages
    assert rows["tshsr"].head == base.head
    changed = {k: v for k, v in rows["sgr-i2t"].head.options.items() if base.head.options.get(k) != v}
    assert changed == {"streams": "i2t", "context": "none"}
    assert rows["scan-i2t"].head.name == "scan" and rows["scan-i2t"].head.options["stream"] == "i2t"
    assert rows["dual"].stages[0].loss == COARSE and rows["dual"].stages[0].coarse_loss is None


def test_a_stage_of_coarse_vectors_alone_stays_one_and_a_dual_encoder_trains_in_it(base: Recipe) -> None:
    base.stages.insert(0, StageConfig(None, 1, COARSE, batch_size=6))
    base.stages[1] = replace(base.stages[1], group=3)
    rows = {name: ablation.row_recipe(BY_NAME[name], base, 0).stages for name in ("dual", "scan-t2i", "saf")}
    assert [stage.loss for stage in rows["dual"]] == [COARSE, COARSE] and rows["dual"][1].group == 0
    assert [stage.loss for stage in rows["scan-t2i"]] == [None, COARSE] and rows["scan-t2i"][1].group == 3
    assert rows["saf"] == base.stages


def test_cosine_heads_keep_the_hinge_and_take_no_temperature_of_logits() -> None:
    hinge, nce, coarse = {"name": "hinge"}, {"name": "infonce", "options": {"temperature": 1.0}}, {"name": "infonce"}
    assert ablation.cosine_loss({"loss": hinge, "coarse_loss": coarse}) is hinge
    assert ablation.cosine_loss({"loss": nce, "coarse_loss": coarse}) is coarse
    assert ablation.cosine_loss({"loss": None, "coarse_loss": coarse}) is coarse
    assert ablation.cosine_loss({"loss": nce, "coarse_loss": None})["options"]["temperature"] == 0.05


def test_rows_come_with_the_members_of_averages_and_wrong_names_are_said(base: Recipe, tmp_path: Path) -> None:
    names = [row.name for row in chosen(ablation.ROWS, ["avg-sgr", "dual"])]
    assert names == ["dual", "sgr-t2i", "sgr-i2t", "avg-sgr"]
    assert len(chosen(ablation.ROWS, None)) == len(ablation.ROWS)
    with pytest.raises(XRetrieveError, match="did you mean 'avg-sgr'"):
        chosen(ablation.ROWS, ["avg-sgt"])
    with pytest.raises(XRetrieveError, match="needs head 'tshsr'"):
        ablation.HeadCells(load_recipe("image_text/scenes-sgr"), tmp_path)
    cells = ablation.HeadCells(base, tmp_path)
    assert cells.place("levels-3", 0) == cells.place("tshsr", 0), "trained once"


def test_the_table_is_made_cell_by_cell_and_no_cell_twice(base: Recipe, tmp_path: Path) -> None:
    rows = [row for row in ablation.ROWS if row.name in ("sgr-t2i", "sgr-i2t", "tshsr", "levels-3", "avg-sgr")]
    cells = ablation.HeadCells(base, tmp_path, rows=rows)
    tables = list(cells.run(["tshsr", "levels-3", "avg-sgr"], (0,)))
    assert [len(table["rows"]) for table in tables] == [1, 2, 4, 4, 5], "levels-3 is the model itself"
    made = {row["name"]: row for row in tables[-1]["rows"]}
    folder = tmp_path / "cells"
    assert {p.name for p in folder.iterdir()} == {"sgr-t2i-s0", "sgr-i2t-s0", "tshsr-s0", "avg-sgr-s0"}
    model, average = Report.load(folder / "tshsr-s0"), Report.load(folder / "avg-sgr-s0")
    assert made["tshsr"]["values"]["rsum"] == made["levels-3"]["values"]["rsum"] == model["rsum"].value
    assert average.name.endswith("*")
    wanted = compare(average, model)["rsum"]
    found = made["tshsr"]["against"]["avg-sgr"]["rsum"]
    assert (found["value"], *found["interval"]) == pytest.approx((wanted.value, wanted.low, wanted.high))
    cpu = [made[name]["cpu_seconds"] for name in ("sgr-t2i", "sgr-i2t", "avg-sgr")]
    assert cpu[0] > 0 and cpu[2] == pytest.approx(cpu[0] + cpu[1])
    assert made["avg-sgr"]["parameters"] == 2 * made["sgr-t2i"]["parameters"] > 0

    stamps = {p: p.stat().st_mtime_ns for p in folder.rglob("report.json")}
    again = list(cells.run(["tshsr"], (0, 1)))[-1]  # rows made before stay in the table
    assert {p: p.stat().st_mtime_ns for p in stamps} == stamps
    row = next(row for row in again["rows"] if row["name"] == "tshsr")
    assert row["seeds"] == [0, 1] and row["sd"]["rsum"] is not None
    each = row["per_seed"]["rsum"]
    assert row["values"]["rsum"] == pytest.approx((each["0"] + each["1"]) / 2)
    assert row["against"]["avg-sgr"]["rsum"]["seeds"] == [0]
    assert {row["name"] for row in again["rows"]} == set(made)
    text = (tmp_path / "table.md").read_text(encoding="utf-8")
    assert "| `avg-sgr`* |" in text and "against avg-sgr" in text and "protocol full" in text
    assert json.loads((tmp_path / "table.json").read_text(encoding="utf-8"))["rows"] == again["rows"]


def test_a_cell_of_another_recipe_is_refused_and_not_shown(base: Recipe, tmp_path: Path) -> None:
    rows = [BY_NAME["aux-off"]]
    list(ablation.HeadCells(base, tmp_path, rows=rows).run())
    base.stages[0].lr = 0.5
    other = ablation.HeadCells(base, tmp_path, rows=rows)
    assert other.finished() == {}
    with pytest.raises(XRetrieveError, match="another value of stages.0.lr .0.003, now 0.5.; delete that folder"):
        list(other.run())


def test_a_cell_under_another_name_of_the_same_model_is_taken(base: Recipe, tmp_path: Path) -> None:
    rows = [BY_NAME["tshsr"], BY_NAME["levels-3"]]
    list(ablation.HeadCells(base, tmp_path, rows=rows).run(["tshsr"]))
    (tmp_path / "cells/tshsr-s0").rename(tmp_path / "cells/levels-3-s0")
    cells = ablation.HeadCells(base, tmp_path, rows=rows)
    assert cells.place("tshsr", 0).name == "levels-3-s0" and cells.place("tshsr", 1).name == "tshsr-s1"
    assert set(cells.finished()) == {("tshsr", 0), ("levels-3", 0)}
    list(cells.run(["tshsr"]))
    assert [path.name for path in (tmp_path / "cells").iterdir()] == ["levels-3-s0"]


def test_what_decides_no_number_does_not_tell_recipes_apart(base: Recipe) -> None:
    other = ablation.row_recipe(BY_NAME["tshsr"], base, 0)
    other.name, other.description = "another", "in other words"
    other.head.options["streams"] = "both"  # the default
    assert effective(other) == effective(ablation.row_recipe(BY_NAME["tshsr"], base, 0))
    assert effective(other) != effective(ablation.row_recipe(BY_NAME["tshsr"], base, 1))


def test_cpu_seconds_go_on_after_a_stop(tmp_path: Path) -> None:
    meter = Meter(tmp_path / "cost.json")
    meter.step(1)
    sum(i * i for i in range(200_000))
    meter.step(2)
    meter.save()
    before = json.loads((tmp_path / "cost.json").read_text())["cpu"]
    again = Meter(tmp_path / "cost.json")
    again.step(3)
    assert before > 0 and again.seconds == pytest.approx(before)
