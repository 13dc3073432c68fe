"""A head that reads attributes: its values come from the tags, both stages teach it, and runs resume and load."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.testing import assert_close

import xretrieve as xr
from tests.training.composed_recipes import tiny_composed
from xretrieve.errors import XRetrieveError
from xretrieve.training.optimizer import make_optimizer
from xretrieve.training.recipe import Recipe, StageConfig
from xretrieve.training.run import train

READS = {"attributes": ["x", "y"], "residual": False, "sides": {"projection": "perceptron", "image_standardise": True}}


@pytest.fixture(autouse=True)
def tags(monkeypatch: pytest.MonkeyPatch) -> None:
    """Scenes of which every picture has a made-up x, and most have a y."""
    import xretrieve.training.triplets as module

    plain = module.with_texts

    def with_tags(data: Any, mode: str, queries: str = "") -> Any:
        said = plain(data, mode, queries)
        said.metadata = [m | {"tags": [f"x={row % 3}"] + [f"y={row % 2}"] * (row % 5 > 0)}
                         for row, m in enumerate(said.metadata)]  # fmt: skip
        return said

    monkeypatch.setattr(module, "with_texts", with_tags)


def reads(**composition: Any) -> Recipe:
    return tiny_composed(options=READS, domain={"tasks": ["t2i", "i2i", "attributes"]},
                         composition={"label": "logprob", "attribute_weight": 1.0, **composition})  # fmt: skip


def test_values_come_from_the_tags_and_a_run_loads_to_the_same_scores(tmp_path: Path) -> None:
    run = train(reads(), out=tmp_path / "run")
    matcher = run.matcher()
    assert matcher.head.config["attributes"] == {"x": ["0", "1", "2"], "y": ["0", "1"]}
    assert run.recipe.head is not None and run.recipe.head.options["attributes"] == ["x", "y"]
    assert all("attribute_loss" in row and "label_loss" not in row for row in run.log[:1])
    assert all("attribute_loss" in row and "label_loss" in row for row in run.log[1:])
    again = xr.load(tmp_path / "run")
    pictures = torch.randint(0, 255, (3, 3, 32, 32), dtype=torch.uint8)
    with torch.no_grad():
        one, other = (m.head.prepare_gallery(m.image(pictures)).pooled for m in (matcher, again))
    assert_close(one, other)
    assert one.shape[1] == 8 + 5 + 1


def test_reading_gets_better_in_stage_two(tmp_path: Path) -> None:
    recipe = reads()
    first = replace(recipe.stages[0], epochs=12, domain=replace(recipe.stages[0].domain, tasks=["attributes"]))
    run = train(replace(recipe, stages=[first, recipe.stages[1]]), out=tmp_path / "run")
    losses = [row["attribute_loss"] for row in run.log if row["stage"] == "domain"]
    assert losses[-1] < 0.8 * losses[0]


def test_an_interrupted_run_resumes_to_the_same_numbers(tmp_path: Path) -> None:
    recipe = replace(reads(), save_every=1)
    whole = train(recipe, out=tmp_path / "whole")

    def kill(number: int) -> None:
        if number == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(recipe, out=tmp_path / "broken", on_step=kill)
    again = train(recipe, out=tmp_path / "broken", resume=True)
    assert whole.report.metrics.values == again.report.metrics.values


def test_wrong_keys_are_named(tmp_path: Path) -> None:
    with pytest.raises(XRetrieveError, match="attribute 'z'.*x.*y"):
        train(replace(reads(), head=replace(reads().head, options={**READS, "attributes": ["z"]})), out=tmp_path / "a")
    other = tiny_composed("tirg", composition={"attribute_weight": 1.0})
    with pytest.raises(XRetrieveError, match="'tirg' reads no attributes"):
        train(other, out=tmp_path / "b")


def test_rates_are_scaled_by_the_longest_name() -> None:
    module = torch.nn.ModuleDict({"image": torch.nn.Linear(2, 2), "text": torch.nn.Linear(2, 2)})
    loss = tiny_composed().stages[0].loss
    stage = StageConfig(loss, 1, lr=1.0, lr_scale={"head": 0.5, "head.image": 0.1, "head.image.bias": 0.01})
    rates = {id(p): g["lr"] for g in make_optimizer(stage, {"head": module}).param_groups for p in g["params"]}
    found = {name: rates[id(p)] for name, p in module.named_parameters()}
    assert found == {"image.weight": 0.1, "image.bias": 0.01, "text.weight": 0.5, "text.bias": 0.5}
    wrong = StageConfig(loss, 1, lr_scale={"head.imge": 0.1})
    with pytest.raises(XRetrieveError, match="head.imge"):
        make_optimizer(wrong, {"head": module})
