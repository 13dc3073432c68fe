"""The encoders that come with the package: small, whole, trained on other pictures than those that they are used on."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

import xretrieve as xr
from xretrieve.backbones import create_backbone
from xretrieve.errors import XRetrieveError
from xretrieve.training.build import build_matcher
from xretrieve.training.recipes import PACKAGE_DATA, find_weights, list_recipes, load_recipe

FOLDER = PACKAGE_DATA / "scenes" / "encoders"
FROZEN = [name for name in list_recipes() if name.endswith("-frozen")]
MAKERS = ("multi_query/encoders-scenes-pictures", "image_text/encoders-scenes-captions")


def test_they_are_small_and_their_card_names_each_with_its_size() -> None:
    files = [f for f in FOLDER.iterdir() if f.name != "README.md"]
    assert sum(f.stat().st_size for f in files) < 2_000_000 and all(f.stat().st_size < 1_000_000 for f in files)
    card = (FOLDER / "README.md").read_text(encoding="utf-8")
    for file in files:
        assert f"`{file.name}`" in card and f"{file.stat().st_size:,} |" in card, file.name
    assert all(f"`{name}`" in card for name in MAKERS) and "benchmarks/quality/scenes_encoders.py" in card


@pytest.mark.parametrize("name", FROZEN)
def test_the_frozen_recipes_load_them_whole(name: str) -> None:
    recipe = load_recipe(name)
    matcher = build_matcher(recipe, [])  # the vocabulary comes with them: no captions are needed
    assert matcher.image.frozen and not any(p.requires_grad for p in matcher.image.parameters())
    assert matcher.text.frozen == (recipe.task != "composed"), "texts of changes have new words: that side learns"


def test_they_were_trained_on_other_pictures_than_the_recipes_use_them_on() -> None:
    for name in MAKERS:
        made = load_recipe(name).dataset.options
        assert made["seed"] != 0
    for name in FROZEN:
        assert "seed" not in load_recipe(name).dataset.options, "the default pictures, of seed 0"


def test_the_picture_encoder_has_near_duplicates_side_by_side(tmp_path: Path) -> None:
    data = xr.datasets.load("scenes", str(tmp_path), "test", train=1, val=1, test=60)
    image = load_recipe("image_text/scenes-dual-frozen").image
    assert image is not None and image.weights is not None
    backbone = create_backbone(image.backbone, weights=find_weights(image.weights, None), frozen=True, **image.options)
    cells = torch.nn.functional.normalize(backbone.encode(data.images).local.flatten(1), dim=1)
    near = (cells @ cells.T).fill_diagonal_(-1).argmax(1).numpy()
    family = np.array([row["family"] for row in data.metadata])
    shared = np.array([row["family_size"] > 1 for row in data.metadata])
    assert shared.sum() >= 20 and (family[near] == family)[shared].mean() > 0.8  # chance: about 1 in 30


def test_a_built_in_file_that_does_not_exist_names_those_that_do() -> None:
    with pytest.raises(XRetrieveError, match="did you mean 'built-in:scenes/encoders/pictures.safetensors'"):
        find_weights("built-in:scenes/encoders/picture.safetensors", None)
