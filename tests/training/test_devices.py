"""Two processes give the loss and the weights of one: the negatives are those of the whole batch."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from xretrieve.training.log import read_log
from xretrieve.training.recipe import Recipe
from xretrieve.training.recipes import save_recipe
from xretrieve.training.run import train


@pytest.mark.skipif(sys.platform == "win32", reason="gloo processes are started by spawn on POSIX here")
def test_two_processes_equal_one(make_recipe: Callable[..., Recipe], tmp_path: Path) -> None:
    recipe = make_recipe(epochs=1, token_dropout=0.0, word_dropout=0.0, batching="images", lr=0.003)
    recipe.text.options["dropout"] = 0.0  # each process draws its own
    save_recipe(recipe, tmp_path / "recipe.yaml")
    one = train(recipe, out=tmp_path / "one")
    command = [sys.executable, "-m", "xretrieve", "train", str(tmp_path / "recipe.yaml"), "--out", str(tmp_path / "two"), "--devices", "2",
               "--accelerator", "cpu"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    rows = read_log(tmp_path / "two/log.csv")
    assert [row["loss"] for row in rows] == pytest.approx([row["loss"] for row in one.log], rel=1e-4)
    first, second = (load_file(f / "matcher/text/model.safetensors") for f in (one.folder, tmp_path / "two"))
    for key, value in first.items():
        assert torch.allclose(value, second[key], atol=1e-4), key
    assert (tmp_path / "two/report.json").is_file()
