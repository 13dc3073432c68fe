"""Every shipped recipe for composed queries takes training steps on small stand-ins for its pictures and texts."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from tests.training.composed_recipes import SCENES
from xretrieve.training.build import Split, build_matcher, load_split
from xretrieve.training.feeds import LiveFeed
from xretrieve.training.losses import create_loss
from xretrieve.training.preflight import preflight
from xretrieve.training.recipe import Recipe
from xretrieve.training.recipes import list_recipes, load_recipe
from xretrieve.training.run import resolve
from xretrieve.training.tasks import create_work
from xretrieve.training.triplets import fill_attributes, triplet_data

NAMES = [name for name in list_recipes() if name.startswith("composed/")]
KINDS = ("progressive", "combiner", "tirg", "dqu", "sum", "constant", "image", "text")


def stand_in(recipe: Recipe) -> Recipe:
    """The recipe over a few small scenes, with narrow encoders and heads."""
    head: dict[str, Any] = dict(recipe.head.options)  # type: ignore[union-attr]
    head |= {key: 8 for key in ("dim", "projection", "hidden") if head.get(key)}
    if not head.get("dim"):  # encoders of one space; the small ones share none
        head |= {"dim": 8}
    if "sides" in head:
        head["sides"] = {k: 8 if v and k.endswith("_hidden") else v for k, v in head["sides"].items()}
    image = {"pretrained": False, "size": 48, "mean": 0.5, "std": 0.5}
    words = {"min_count": 1, "word_dim": 8, "dim": 8, "dropout": 0.1}
    return replace(
        resolve(recipe, {
            "dataset": {"name": "scenes", "options": SCENES}, "protocol": "scenes/split/removed/each",
            "image": {"backbone": "timm:test_resnet", "options": image, "frozen": recipe.image.frozen},
            "text": {"backbone": "words", "options": words}, "head.options": head,
            **{f"stages.{i}.domain.tasks": ["t2i", "i2i"] for i, s in enumerate(recipe.stages) if s.domain and s.skip},
        }),
        start=None,
    )  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_every_recipe_takes_a_step_in_each_of_its_stages(name: str) -> None:
    recipe = stand_in(load_recipe(name))
    preflight(recipe)
    data = triplet_data(recipe, [load_split(recipe.dataset, split) for split in ("train", "val")])
    for split in data:  # scenes have no tags; catalogues do
        split.metadata = [m | {"tags": [f"{key}={row % 2}" for key in recipe.head.options.get("attributes", [])]}
                          for row, m in enumerate(split.metadata)]  # fmt: skip
    recipe = fill_attributes(recipe, data[0])
    torch.manual_seed(0)
    matcher = build_matcher(recipe, data[0].captions + data[1].captions)
    splits = [Split(d, LiveFeed(matcher.image, d.images), LiveFeed(matcher.text, d.captions)) for d in data]
    for number, stage in enumerate(recipe.stages):
        stage = replace(stage, batch_size=8)
        work = create_work(recipe, splits, stage)
        work.modules(matcher.head)
        loss = create_loss(stage.loss.name, **stage.loss.options)  # type: ignore[union-attr]
        trainee = work.trainee(matcher.head, loss, matcher.image, matcher.text).train()
        batch = work.sampler(stage, number, 1).epoch(0)[0]
        total, logged = trainee(*work.block(stage, batch, np.random.default_rng(0), 0, 1))
        total.backward()
        assert torch.isfinite(total.detach()) and all(np.isfinite(float(v)) for v in logged.values())
        moved = [n for n, p in trainee.named_parameters() if p.grad is not None and p.grad.abs().max() > 0]
        assert any(n.startswith("head.") for n in moved)


def test_the_family_is_there_and_differs_in_nothing_but_the_head() -> None:
    for data, form in (("scenes", "progressive"), ("products", "plain")):
        kinds = [form if kind == "progressive" else kind for kind in KINDS]
        recipes = {kind: load_recipe(f"composed/{data}-{kind}") for kind in kinds}
        ours = recipes[form]
        for recipe in recipes.values():
            assert (recipe.dataset, recipe.image, recipe.text, recipe.protocol) == (
                ours.dataset, ours.image, ours.text, ours.protocol
            )  # fmt: skip
            assert recipe.head.options["sides"] == ours.head.options["sides"]  # type: ignore[union-attr]
            assert recipe.stages[0] == ours.stages[0]  # every head starts from the same stage 2
            same = replace(recipe.stages[1], skip=False, composition=ours.stages[1].composition)
            assert same == ours.stages[1]


def test_the_form_with_attributes_reads_the_same_features_with_sides_alike() -> None:
    ours, plain = load_recipe("composed/products-progressive"), load_recipe("composed/products-plain")
    assert (ours.dataset, ours.image, ours.text, ours.protocol) == (
        plain.dataset, plain.image, plain.text, plain.protocol
    )  # fmt: skip
    assert ours.head is not None and plain.head is not None
    assert ours.head.options["sides"] == plain.head.options["sides"]


@pytest.mark.parametrize("data", ["fashion_iq", "shoes", "cirr"])
def test_the_official_sets_have_the_trained_heads(data: str) -> None:
    recipes = [load_recipe(f"composed/{data}-{kind}") for kind in ("progressive", "combiner", "tirg", "dqu", "sum")]
    for recipe in recipes:
        assert recipe.dataset.name == data and recipe.protocol.startswith(data.replace("_", "-"))
        assert (recipe.image, recipe.text) == (recipes[0].image, recipes[0].text)
        assert [stage.skip for stage in recipe.stages] == [data != "shoes", False]
