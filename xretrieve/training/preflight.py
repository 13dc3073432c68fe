"""What is wrong with a recipe, its data or its files, found before anything is computed."""

from __future__ import annotations

from typing import Any

from xretrieve.errors import XRetrieveError
from xretrieve.training.build import head_options, load_split, test_split
from xretrieve.training.composed_recipe import check_composed
from xretrieve.training.losses import create_loss
from xretrieve.training.recipe import Recipe
from xretrieve.training.recipes import find_weights


def preflight(recipe: Recipe) -> None:
    """Wrong names, and a test split that does not fit the protocol, are found now and not after an hour of training."""
    from xretrieve.data import datasets
    from xretrieve.evaluation.protocols import get_protocol, list_protocols
    from xretrieve.evaluation.published import published_rows

    protocol = get_protocol(recipe.protocol)
    if protocol.task != recipe.task and {"multi_query", "composed"} & {protocol.task, recipe.task}:
        raise XRetrieveError(
            f"recipe key 'protocol': {protocol.name!r} is of task {protocol.task}, the recipe of task {recipe.task}; "
            f"{recipe.task} has {', '.join(list_protocols(recipe.task)) or 'none'}"
        )
    published_rows(recipe.dataset.name, recipe.protocol, recipe.published)
    head_options(recipe)
    if recipe.task == "composed":
        check_composed(recipe)
    for stage in recipe.stages:
        for loss in (stage.loss, stage.coarse_loss):
            if loss is not None:
                create_loss(loss.name, **loss.options)
    if not datasets.found(recipe.dataset.name, recipe.dataset.root):
        load_split(recipe.dataset, "train")  # says what is missing and where it is looked for
    for config in (recipe.image, recipe.text):
        if config is not None and config.weights:
            find_weights(config.weights, recipe.dataset.root)
    _ready(recipe, protocol)


def _ready(recipe: Recipe, protocol: Any) -> None:
    """A test split of another size than the protocol's, or without photos that it needs, is an error now."""
    from xretrieve.data.triplets import composed
    from xretrieve.evaluation.composed import check_scored

    test = test_split(recipe.dataset)
    if recipe.task == "composed":
        data = composed(test)
        check_scored(data, protocol, data.allow_missing)
    else:
        protocol.check(len(test), test.coverage)
