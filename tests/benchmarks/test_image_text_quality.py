"""The ablation table: every row is the base with its own change, cells are made once, and the numbers add up."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from benchmarks.quality import image_text as ablation
from xretrieve.errors import XRetrieveError
from xretrieve.evaluation import Report, compare
from xretrieve.evaluation.bootstrap import paired
from xretrieve.training.recipe import LossConfig, Recipe, StageConfig
from xretrieve.training.recipes import load_recipe
from xretrieve.training.run import preflight

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
    rows = {name: ablation.row_recipe(ablation.BY_NAME[name], base, 0).stages for name in ("dual", "scan-t2i", "saf")}
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
    assert [row.name for row in ablation.chosen(["avg-sgr", "dual"])] == ["dual", "sgr-t2i", "sgr-i2t", "avg-sgr"]
    assert len(ablation.chosen(None)) == len(ablation.ROWS)
    with pytest.raises(XRetrieveError, match="did you mean 'avg-sgr'"):
        ablation.chosen(["avg-sgt"])
    with pytest.raises(XRetrieveError, match="needs head 'tshsr'"):
        ablation.Table(load_recipe("image_text/scenes-sgr"), tmp_path)
    assert ablation.Table(base, tmp_path).same["levels-3"] == "tshsr"  # trained once


def test_the_table_is_made_cell_by_cell_and_no_cell_twice(base: Recipe, tmp_path: Path, capsys: Any) -> None:
    rows = ["tshsr", "levels-3", "avg-sgr"]
    tables = list(ablation.run_table(base, tmp_path, rows, (0,)))
    assert len(tables) == 5 and [len(t["rows"]) for t in tables] == [1, 2, 3, 4, 5]
    made = {row["name"]: row for row in tables[-1]["rows"]}
    cells = tmp_path / "cells"
    assert {p.name for p in cells.iterdir()} == {"sgr-t2i-s0", "sgr-i2t-s0", "tshsr-s0", "avg-sgr-s0"}
    model, average = Report.load(cells / "tshsr-s0"), Report.load(cells / "avg-sgr-s0")
    assert made["tshsr"]["metrics"]["rsum"] == made["levels-3"]["metrics"]["rsum"] == model["rsum"].value
    assert average.name.endswith("*")
    wanted = paired((average.i2t_ranks, average.t2i_ranks), (model.i2t_ranks, model.t2i_ranks), model.counts.owner)
    found = made["tshsr"]["against"]["avg-sgr"]
    assert (found["value"], found["low"], found["high"]) == pytest.approx(
        (wanted["rsum"].value, wanted["rsum"].low, wanted["rsum"].high)
    )
    assert compare(average, model)["rsum"].low == pytest.approx(found["low"])
    cpu = [made[name]["cpu_seconds"] for name in ("sgr-t2i", "sgr-i2t", "avg-sgr")]
    assert cpu[0] > 0 and cpu[2] == pytest.approx(cpu[0] + cpu[1])
    assert made["avg-sgr"]["parameters"] == 2 * made["sgr-t2i"]["parameters"] > 0

    stamps = {p: p.stat().st_mtime_ns for p in cells.rglob("report.json")}
    again = list(ablation.run_table(base, tmp_path, ["tshsr"], (0, 1)))[-1]  # rows made before stay in the table
    assert {p: p.stat().st_mtime_ns for p in stamps} == stamps
    row = next(row for row in again["rows"] if row["name"] == "tshsr")
    assert row["seeds"] == [0, 1] and row["rsum_sd_over_seeds"] is not None
    each = row["rsum_per_seed"]
    assert row["metrics"]["rsum"] == pytest.approx((each["0"] + each["1"]) / 2)
    assert row["against"]["avg-sgr"]["seeds"] == [0]
    # as above, and the same model by other names: without a residual in the base these rows are not cells of their own
    assert {row["name"] for row in again["rows"]} == {*made, "two-cluster", "residual", "sgr-extras"}
    text = (tmp_path / "table.md").read_text(encoding="utf-8")
    assert "| avg-sgr* |" in text and "against avg-sgr" in text and "protocol full" in text
    assert json.loads((tmp_path / "table.json").read_text(encoding="utf-8"))["rows"] == again["rows"]


def test_a_cell_of_another_base_is_not_taken(base: Recipe, tmp_path: Path) -> None:
    list(ablation.run_table(base, tmp_path, ["aux-off"], (0,)))
    base.stages[0].lr = 0.5
    (tmp_path / "cells/aux-off-s0/report.json").unlink()
    with pytest.raises(XRetrieveError, match="another value of stages.0.lr"):
        list(ablation.run_table(base, tmp_path, ["aux-off"], (0,)))


def test_cpu_seconds_go_on_after_a_stop(tmp_path: Path) -> None:
    meter = ablation.Meter(tmp_path / "cost.json")
    meter.step(1)
    sum(i * i for i in range(200_000))
    meter.step(2)
    meter.save()
    before = json.loads((tmp_path / "cost.json").read_text())["cpu"]
    again = ablation.Meter(tmp_path / "cost.json")
    again.step(3)
    assert before > 0 and again.seconds == pytest.approx(before)
