"""Every shipped image-text recipe takes a training step, and every ablation switch is a recipe key.

The pictures and widths are a tiny stand-in; heads, switches, losses and stages are those of the recipe.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from xretrieve.data.base import RetrievalDataset
from xretrieve.training.build import build_matcher, load_split
from xretrieve.training.losses import create_loss, find_duplicates
from xretrieve.training.members import member_source
from xretrieve.training.preflight import preflight
from xretrieve.training.recipe import LossConfig, Recipe
from xretrieve.training.recipes import list_recipes, load_recipe
from xretrieve.training.run import resolve
from xretrieve.training.trainee import Trainee

NAMES = [name for name in list_recipes() if name.startswith("image_text/")]
SINGLE = [name for name in NAMES if not load_recipe(name).members]
SWITCHES: list[dict[str, Any]] = [
    {"streams": "t2i", "context": "none"}, {"streams": "i2t", "context": "none"}, {"context": "none"},
    {"streams": "t2i"}, {"streams": "i2t"}, {"context": "mean"}, {"levels": 1}, {"levels": 2}, {"levels": 3},
    {"clusters": [3, 2, 2]}, {"fusion": "concat"}, {"gate": "scalar"}, {"readout": "saf"},
    {"readout": "saf", "saf_norm": "batch"}, {"aux_streams": False}, {"aux_weight": 0.5},
    {"train_on": "probability"}, {"train_on": "logit"}, {"lambda_t2i": 6.0, "lambda_i2t": 9.0},
]  # fmt: skip


def stand_in(recipe: Recipe, root: Path) -> Recipe:
    """The recipe over four tiny regions per picture, with narrow encoders and heads."""
    widths = {"dim": 16, "sim_dim": 8, "image_hidden": 8, "text_hidden": 8, "regions": 4}
    options = recipe.head.options
    small = {"sim_dim": 8, "dim": 16} if recipe.head.name in ("sgr", "saf", "tshsr") else {"dim": 16}
    return resolve(recipe, {
        "dataset": {"name": "flickr30k", "root": str(root), "layout": "precomp"}, "protocol": "full", "published": [],
        "start": None,
        "image": {"backbone": "regions", "frozen": True, "options": {"dim": 12}},
        "text": {"backbone": "words", "options": {"min_count": 1, "word_dim": 8, "dim": 16}},
        "head.options": {**options, **{k: v for k, v in widths.items() if k in options}, **small},
    })  # fmt: skip


def step(recipe: Recipe) -> None:
    """Loss and gradient of one batch in every stage."""
    preflight(recipe)
    data = load_split(recipe.dataset, "train")
    for stage in recipe.stages:
        torch.manual_seed(0)
        matcher = build_matcher(recipe, data.captions)
        losses = [create_loss(loss.name, **loss.options) if loss else None for loss in (stage.loss, stage.coarse_loss)]
        group = 4 if stage.group else 0
        sides = (matcher.image, matcher.text, None)
        one_batch(Trainee(matcher.head, losses[0], *sides, losses[1], stage.coarse_weight, group).train(), data)
    assert matcher.head.coarse == (any(stage.coarse_loss for stage in recipe.stages) or matcher.head.indexable)


def one_batch(trainee: Trainee, data: RetrievalDataset) -> None:
    """Eight pairs forward and backward."""
    rows = range(0, 40, 5)
    texts = [data.captions[row] for row in rows]
    same = find_duplicates([int(data.owner[row]) for row in rows], texts)[None]
    pictures = trainee.image.prepare([data.images[data.owner[row]] for row in rows])
    total, logged = trainee(pictures, trainee.text.prepare(texts), same)
    assert 0 < float(total.detach()) < 1e4 and logged
    total.backward()
    moved = [name for name, p in trainee.named_parameters() if p.grad is not None and p.grad.abs().max() > 0]
    assert any(name.startswith("text.") for name in moved) and any(name.startswith("head.") for name in moved)
    assert all(bool(torch.isfinite(p.grad).all()) for p in trainee.parameters() if p.grad is not None)


@pytest.mark.parametrize("name", SINGLE)
def test_every_recipe_takes_a_training_step(name: str, precomp: Path) -> None:
    step(stand_in(load_recipe(name), precomp))


@pytest.mark.parametrize("name", [name for name in NAMES if name not in SINGLE])
def test_every_ensemble_names_shipped_recipes_of_its_own_data(name: str) -> None:
    recipe = load_recipe(name)
    for member in recipe.members:
        assert member.recipe in SINGLE
        made, alone = member_source(recipe, member), load_recipe(member.recipe)
        assert made.dataset == alone.dataset and made.protocol == alone.protocol


def test_the_family_is_there_for_every_dataset() -> None:
    for data in ("flickr8k", "flickr30k", "mscoco"):
        for kind in ("scan", "scan-t2i", "scan-i2t", "sgr", "saf", "sgraf", "tshsr"):
            assert f"image_text/{data}-{kind}" in NAMES


@pytest.mark.parametrize("name", [f"{d}-{k}" for d in ("flickr30k", "mscoco") for k in ("scan-t2i", "sgr", "saf")])
def test_published_models_keep_the_published_settings(name: str) -> None:
    recipe = load_recipe(name)
    stage = recipe.stages[0]
    assert (stage.optimizer, stage.batch_size, stage.clip, stage.weight_decay) == ("adam", 128, 2.0, 0.0)
    assert stage.loss == LossConfig("hinge", {"margin": 0.2, "mask_duplicates": False}) and stage.schedule == "step"
    assert recipe.head.options.get("train_on", "probability") == "probability"
    if recipe.head.name != "scan":
        assert recipe.head.options["region_norm"] == "index" and recipe.text.options["dropout"] == 0.4


@pytest.mark.parametrize("switch", SWITCHES, ids=str)
def test_every_ablation_switch_is_a_recipe_key(switch: dict[str, Any], precomp: Path) -> None:
    recipe = stand_in(load_recipe("image_text/flickr8k-tshsr"), precomp)
    keys = [f"head.options.{key}={str(value).lower() if isinstance(value, bool) else value}" for key, value in
            switch.items()]  # fmt: skip
    changed = resolve(recipe, keys)
    assert {key: changed.head.options[key] for key in switch} == switch
    step(changed)
