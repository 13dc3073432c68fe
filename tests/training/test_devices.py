"""Two processes give the loss and the weights of one: the negatives are those of the whole batch."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from xretrieve.cli.main import main
from xretrieve.errors import XRetrieveError
from xretrieve.training.log import read_log
from xretrieve.training.recipe import LossConfig, Recipe, StageConfig
from xretrieve.training.recipes import save_recipe
from xretrieve.training.run import train


def test_two_processes_equal_one(
    make_recipe: Callable[..., Recipe], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = make_recipe(
        epochs=1, token_dropout=0.0, word_dropout=0.0, batching="images", captions_per_image=2, lr=0.003, train=["head"]
    )
    recipe.stages.append(
        StageConfig(LossConfig("hinge"), epochs=1, name="all", batch_size=16, lr=0.001, accumulate=2, clip=2.0)
    )
    recipe.text.options["dropout"] = 0.0  # each process draws its own
    save_recipe(recipe, tmp_path / "recipe.yaml")
    one = train(recipe, out=tmp_path / "one")
    words = [
        "train",
        str(tmp_path / "recipe.yaml"),
        "--out",
        str(tmp_path / "two"),
        "--devices",
        "2",
        "--accelerator",
        "cpu",
    ]
    assert main(words) == 0
    rows = read_log(tmp_path / "two/log.csv")
    for key in ("loss", "grad_norm", "positive", "negative"):
        assert [row[key] for row in rows] == pytest.approx([row[key] for row in one.log], rel=1e-3), key
    for name in ("text/model.safetensors", "head.safetensors"):
        first, second = (load_file(f / "matcher" / name) for f in (one.folder, tmp_path / "two"))
        for key, value in first.items():
            assert torch.allclose(value, second[key], atol=1e-4), key
    assert (tmp_path / "two/report.json").is_file()


@pytest.mark.slow
def test_an_error_in_a_process_is_still_one_line(make_recipe: Callable[..., Recipe], tmp_path: Path) -> None:
    with pytest.raises(XRetrieveError, match="^batch_size 15 cannot be split over 2 devices"):
        train(make_recipe(batch_size=15), out=tmp_path / "run", devices=2, accelerator="cpu")
