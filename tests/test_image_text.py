"""The front door of the task: what it names exists and can be built."""

from __future__ import annotations

import pytest

import xretrieve as xr
from xretrieve.data.datasets import info
from xretrieve.evaluation import get_protocol
from xretrieve.training import create_loss, load_recipe


def test_every_name_leads_somewhere() -> None:
    door = xr.image_text
    assert {"cosine", "dual"} <= set(door.heads()) <= set(xr.list_heads())
    assert all(create_loss(name) is not None for name in door.losses())
    assert all("image_text" in info(name).tasks for name in door.datasets()) and "flickr8k" in door.datasets()
    assert all(get_protocol(name).task == "image_text" for name in door.protocols())
    assert {"scan", "sgr", "saf", "tshsr"} <= set(door.heads()) and "infonce" in door.losses()
    assert load_recipe("flickr8k-sgraf", {"fusion": door.fusions()[0]}).fusion == door.fusions()[0]
    assert "SGRAF* (paper)" in door.published("flickr30k", "flickr-1k") and not door.published("flickr8k", "flickr-1k")
    assert all(load_recipe(name).task == "image_text" for name in door.recipes()) and door.recipes()


def test_heads_of_other_tasks_are_not_listed(monkeypatch: pytest.MonkeyPatch) -> None:
    from xretrieve.heads import head_class

    monkeypatch.setattr(head_class("dual"), "tasks", ("composed",))
    assert "dual" not in xr.image_text.heads()
