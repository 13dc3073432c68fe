"""The front door of the task: what it names exists and can be built."""

from __future__ import annotations

import pytest
import torch

import xretrieve as xr
from xretrieve.data.datasets import info
from xretrieve.errors import XRetrieveError
from xretrieve.evaluation import get_protocol
from xretrieve.training import create_loss, load_recipe


def test_every_name_leads_somewhere() -> None:
    door = xr.composed
    heads = {"progressive", "combiner", "tirg", "dqu", "sum", "constant", "image_only", "text_only", "cosine", "dual"}
    assert set(door.heads()) == heads <= set(xr.list_heads())
    assert all(create_loss(name) is not None for name in door.losses())
    assert all("composed" in info(name).tasks for name in door.datasets())  # type: ignore[union-attr]
    assert {"fashion_iq", "shoes", "cirr", "products", "scenes"} <= set(door.datasets())
    assert all(get_protocol(name).task == "composed" for name in door.protocols())
    assert all(load_recipe(name).task == "composed" for name in door.recipes()) and door.recipes()
    assert {load_recipe(name).head.name for name in door.recipes()} <= set(door.heads())  # type: ignore[union-attr]
    assert {"single", "and", "mean-orders"} <= set(door.caption_modes())


def test_triplets_and_labels_are_those_of_the_layers_below() -> None:
    data = xr.composed.triplets(xr.datasets.load("scenes", split="test", train=12, val=12, test=12))
    assert data.triplets and data.galleries["split"].listed == 12
    unit = torch.nn.functional.normalize(torch.randn(3, 4), dim=1)
    assert xr.composed.weight_labels(unit, unit, unit, kappa=2.0).tolist() == [[0.5, 0.5]] * 3
    with pytest.raises(XRetrieveError, match="no composed queries"):
        xr.composed.triplets(type(data)(**{**vars(data), "triplets": []}))
