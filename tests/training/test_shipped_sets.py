"""Every shipped recipe for query sets takes a training step on small stand-ins for its pictures and texts."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from xretrieve.data.turns import spoken
from xretrieve.training.build import Split, build_matcher, load_split
from xretrieve.training.feeds import LiveFeed
from xretrieve.training.losses import create_loss
from xretrieve.training.members import member_source
from xretrieve.training.preflight import preflight
from xretrieve.training.recipe import LossConfig, Recipe
from xretrieve.training.recipes import list_recipes, load_recipe
from xretrieve.training.run import resolve
from xretrieve.training.sets import SetWork, turns_of

NAMES = [name for name in list_recipes() if name.startswith("multi_query/")]
SINGLE = [name for name in NAMES if not load_recipe(name).members]
HORIZON = {"scenes": 10, "flickr8k": 5, "visual_genome": 10}


def stand_in(recipe: Recipe, root: Path) -> Recipe:
    """The recipe over four tiny regions and the five captions of a picture, with narrow encoders and heads."""
    narrow = {"dim": 16, "sim_dim": 8, "regions": 4}
    backbone = recipe.text.backbone if recipe.text.backbone in ("words", "sentences") else "sentences"
    text = {**recipe.text.options, "min_count": 1, "word_dim": 8, "dim": 16}
    text.pop("vocab", None)
    return replace(
        resolve(recipe, {
            "dataset": {"name": "flickr30k", "root": str(root), "layout": "precomp"}, "protocol": "rounds",
            "image": {"backbone": "regions", "frozen": True, "options": {"dim": 12}},
            "text": {"backbone": backbone, "options": text},
            "head.options": {k: narrow.get(k, v) for k, v in recipe.head.options.items()},
        }),
        start=None,
    )  # fmt: skip


@pytest.mark.parametrize("name", SINGLE)
def test_every_recipe_takes_a_training_step(name: str, precomp: Path) -> None:
    shipped = load_recipe(name)
    recipe = stand_in(shipped, precomp)
    preflight(recipe)
    data, stage = spoken(load_split(recipe.dataset, "train")), recipe.stages[0]
    torch.manual_seed(0)
    matcher = build_matcher(recipe, data.captions)
    split = Split(data, LiveFeed(matcher.image, data.images), LiveFeed(matcher.text, data.captions))
    work = SetWork(recipe, (split, split))
    batch = work.sampler(replace(stage, batch_size=8), 0, 1).epoch(0)[0]
    trainee = work.trainee(matcher.head, create_loss(stage.loss.name, **stage.loss.options), matcher.image,
                           matcher.text).train()  # fmt: skip
    total, logged = trainee(*work.block(stage, batch, np.random.default_rng(0), 0, 1))
    total.backward()
    total = total.detach()
    assert torch.isfinite(total) and float(total) > 0 and all(abs(float(v)) < 1e4 for v in logged.values())
    moved = [n for n, p in trainee.named_parameters() if p.grad is not None and p.grad.abs().max() > 0]
    assert any(n.startswith("text.") for n in moved) and any(n.startswith("head.") for n in moved)
    assert all(bool(torch.isfinite(p.grad).all()) for p in trainee.parameters() if p.grad is not None)


@pytest.mark.parametrize(
    "name", [name for name in SINGLE if "/encoders-" not in name]
)  # those train with half the turns
def test_rounds_of_training_evaluation_and_round_weights_agree(name: str) -> None:
    recipe = load_recipe(name)
    data = recipe.dataset.name
    assert turns_of(recipe) == HORIZON[data]
    if recipe.head.name == "hmrn":
        assert recipe.head.options["weight_horizon"] == HORIZON[data]


def test_the_family_is_there_for_every_dataset() -> None:
    kinds = ("hmrn", "hmrn-t2i", "hmrn-i2t", "drilldown", "rank-fusion", "paragraph")
    assert {f"multi_query/{data}-{kind}" for data in HORIZON for kind in kinds} <= set(NAMES)
    for data in HORIZON:
        ensemble = load_recipe(f"multi_query/{data}-hmrn")
        members = [member_source(ensemble, member) for member in ensemble.members]
        assert [m.head.options["direction"] for m in members] == ["t2i", "i2t"]  # type: ignore[union-attr]
        assert all(m.dataset == ensemble.dataset and m.protocol == ensemble.protocol for m in members)  # type: ignore


def test_a_policy_starts_from_its_supervised_recipe_and_fits_it() -> None:
    for data in HORIZON:
        first, then = load_recipe(f"{data}-drilldown"), load_recipe(f"{data}-drilldown-policy")
        assert then.start == f"runs/{data}-drilldown" and then.seed == first.seed
        assert then.text == first.text and then.image == first.image and then.dataset == first.dataset
        assert {**then.head.options, "mode": None} == {**first.head.options, "mode": None}
        assert then.stages[0].keep == "rounds" and then.stages[0].lr == pytest.approx(first.stages[0].lr / 10)


@pytest.mark.parametrize("direction", ["t2i", "i2t"])
def test_hmrn_keeps_the_published_settings(direction: str) -> None:
    recipe = load_recipe(f"visual_genome-hmrn-{direction}")
    stage, head = recipe.stages[0], recipe.head.options
    assert (stage.optimizer, stage.lr, stage.epochs, stage.batch_size, stage.clip) == ("adam", 4e-4, 150, 128, 2.0)
    assert (stage.schedule, stage.step_epochs, stage.step_factor, stage.weight_decay) == ("step", 75, 0.1, 0.0)
    sharp = {"temperature": 0.025, "learnable": False, "directions": "sum", "mask_duplicates": False}
    assert stage.loss == LossConfig("infonce", sharp)
    assert (head["dim"], head["sim_dim"], head["region_norm"], head["regions"]) == (256, 256, "index", 36)
    assert recipe.text.options["dropout"] == 0.4 and recipe.seed == 0 and stage.keep == "rsum"


def test_drill_down_keeps_the_published_settings() -> None:
    recipe = load_recipe("visual_genome-drilldown")
    stage = recipe.stages[0]
    assert (stage.optimizer, stage.lr, stage.epochs, stage.batch_size, stage.clip) == ("adam", 2e-4, 300, 128, 10.0)
    assert stage.loss == LossConfig("hinge", {"margin": 0.2, "mask_duplicates": False}) and stage.keep == "loss"
    assert stage.schedule == "constant" and recipe.seed == 1 and recipe.head.options == {"dim": 128, "slots": 3}
    options: dict[str, Any] = recipe.text.options
    assert options["xavier"] and not options["bidirectional"] and options["dropout"] == 0.0
