"""Composed queries on two processes: both stages give the losses and the weights of one process."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tests.training.composed_recipes import tiny_composed
from xretrieve.cli.main import main
from xretrieve.training.log import read_log
from xretrieve.training.recipes import save_recipe
from xretrieve.training.run import train


def test_two_processes_equal_one_in_both_stages(tmp_path: Path) -> None:
    told = {"label": "logprob", "texts": "single"}  # of several texts each process draws its own
    recipe = tiny_composed("progressive", {"dropout": 0.0}, composition=told, domain={"tasks": ["t2i"]}, lr=0.001)
    recipe.stages[1].epochs = 1  # later, Adam makes rounding visible
    recipe.text.options["dropout"] = 0.0  # as that of the head: each process draws its own
    save_recipe(recipe, tmp_path / "recipe.yaml")
    one = train(recipe, out=tmp_path / "one")
    words = ["--out", str(tmp_path / "two"), "--devices", "2", "--accelerator", "cpu"]
    assert main(["train", str(tmp_path / "recipe.yaml"), *words]) == 0
    two = read_log(tmp_path / "two/log.csv")
    for key in ("loss", "grad_norm", "positive", "negative", "label_loss"):
        mine, theirs = ([row.get(key) for row in log] for log in (one.log, two))
        assert [v is None for v in mine] == [v is None for v in theirs], key
        assert [v for v in theirs if v is not None] == pytest.approx([v for v in mine if v is not None], rel=1e-3), key
    first, second = (load_file(f / "matcher" / "head.safetensors") for f in (one.folder, tmp_path / "two"))
    for key, value in first.items():
        assert torch.allclose(value, second[key], atol=1e-4), key
