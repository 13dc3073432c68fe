"""The front door of the task: what it names exists and can be built."""

from __future__ import annotations

import xretrieve as xr
from xretrieve.data.datasets import info
from xretrieve.evaluation import get_protocol
from xretrieve.training import create_loss, load_recipe


def test_every_name_leads_somewhere() -> None:
    door = xr.multi_query
    assert {"cosine", "dual", "hmrn", "drilldown"} <= set(door.heads()) <= set(xr.list_heads())
    assert all(create_loss(name) is not None for name in door.losses())
    assert all("multi_query" in info(name).tasks for name in door.datasets())  # type: ignore[union-attr]
    assert {"flickr8k", "phrases", "scenes", "visual_genome"} <= set(door.datasets())
    assert all(get_protocol(name).task == "multi_query" for name in door.protocols())
    assert all(load_recipe(name).task == "multi_query" for name in door.recipes()) and door.recipes()
    assert {load_recipe(name).combine or "head" for name in door.recipes()} <= set(door.combinations())


def test_query_sets_are_those_of_the_data_layer() -> None:
    data = xr.datasets.load("scenes", split="test", train=4, val=4, test=6)
    assert xr.multi_query.query_sets(data, 3).sizes.tolist() == [3] * 6
