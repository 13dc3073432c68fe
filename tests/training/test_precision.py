"""Precision by stage: trained, kept with the run, and resumed to the same bits, also where auto means another one."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.training.test_run import KilledError, kill_at, same
from xretrieve.training.recipe import LossConfig, Recipe, StageConfig
from xretrieve.training.run import train
from xretrieve.training.run_folder import Run
from xretrieve.utils.checksums import SUMS
from xretrieve.utils.files import read_json


def two_stages(recipe: Recipe, first: Any, second: Any) -> Recipe:
    recipe.stages[0] = replace(recipe.stages[0], precision=first, epochs=1)
    recipe.stages.append(StageConfig(LossConfig("hinge"), epochs=1, name="all", batch_size=16, lr=0.003,
                                     precision=second))  # fmt: skip
    return recipe


def point(folder: Path) -> Path:
    return max((folder / "last").iterdir()) / "state.json"


@pytest.mark.parametrize(("first", "second"), [("32", "bf16"), pytest.param("fp16", "32", marks=pytest.mark.slow)])
def test_stages_of_two_precisions_train_and_resume_to_the_same_bits(
    make_recipe: Callable[..., Recipe], tmp_path: Path, first: str, second: str
) -> None:
    recipe = two_stages(make_recipe(), first, second)
    recipe.save_every = 1
    whole = train(recipe, out=tmp_path / "whole")
    for stop in (2, 1 + round(whole.log[0]["step"])):
        with pytest.raises(KilledError):
            train(recipe, out=tmp_path / "cut", resume=True, on_step=kill_at(stop))
        scaled = bool(read_json(point(tmp_path / "cut"))["scaler"])
        assert scaled == ("fp16" == (first if stop == 2 else second))
    same(whole.folder, train(recipe, out=tmp_path / "cut", resume=True).folder)
    assert read_json(point(whole.folder))["precision"] == {"0": first, "1": second}
    words = {"32": "float32"}
    told = f"train {words.get(first, first)}, all {words.get(second, second)}"
    assert Run.open(whole.folder).report.precision == {"trained": told, "scored": "float32 (inner products)"}
    assert f"trained in {told}" in str(whole.report) and f"{told}" in (whole.folder / "report.html").read_text()


@pytest.mark.slow
def test_stages_compute_in_what_they_say(make_recipe: Callable[..., Recipe], tmp_path: Path) -> None:
    losses = {}
    for name in ("32", "bf16"):
        run = train(two_stages(make_recipe(), "32", name), out=tmp_path / name)
        losses[name] = [row["loss"] for row in run.log]
    assert losses["32"][0] == losses["bf16"][0] and losses["32"][1] != losses["bf16"][1]
    assert losses["32"][1] == pytest.approx(losses["bf16"][1], rel=0.05)


def test_a_resumed_run_keeps_what_auto_meant_where_it_was_started(
    tiny: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert tiny.stages[0].precision == "auto"
    tiny.save_every = 1
    monkeypatch.setenv("XRETRIEVE_PRECISION", "bf16")
    whole = train(tiny, out=tmp_path / "whole")
    with pytest.raises(KilledError):
        train(tiny, out=tmp_path / "cut", on_step=kill_at(2))
    monkeypatch.setenv("XRETRIEVE_PRECISION", "32")
    capsys.readouterr()
    resumed = train(tiny, out=tmp_path / "cut", resume=True)
    assert "goes on in bf16, as the run was started; auto means float32 on this cpu" in capsys.readouterr().err
    same(whole.folder, resumed.folder)
    assert resumed.report.precision["trained"] == "bf16" and resumed.recipe.stages[0].precision == "auto"


def test_a_run_of_an_older_version_that_says_bf16_goes_on_in_bf16(tiny: Recipe, tmp_path: Path) -> None:
    tiny.save_every = 1
    old = replace(tiny, stages=[replace(tiny.stages[0], precision="bf16")])
    whole = train(old, out=tmp_path / "whole")
    with pytest.raises(KilledError):
        train(old, out=tmp_path / "cut", on_step=kill_at(2))
    state = point(tmp_path / "cut")
    state.write_text(json.dumps({k: v for k, v in read_json(state).items() if k != "precision"}), encoding="utf-8")
    (state.parent / SUMS).unlink()  # older versions wrote no checksums
    same(whole.folder, train(tiny, out=tmp_path / "cut", resume=True).folder)
