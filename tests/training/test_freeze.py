"""A stage that trains what scores pairs alone, behind coarse vectors that stay as they are."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.training.test_groups import NCE, SGR
from tests.training.test_run import weights
from xretrieve.errors import XRetrieveError
from xretrieve.training.recipe import HeadConfig, Recipe, StageConfig
from xretrieve.training.run import train

PAIRS: dict[str, Any] = {"name": "pairs", "batch_size": 16, "lr": 0.01, "freeze_coarse": True}


@pytest.fixture
def frozen(make_recipe: Any) -> Recipe:
    """Coarse vectors for an epoch, then pairs behind them."""
    recipe = make_recipe(loss=None, coarse_loss=NCE, epochs=1)
    recipe.head = SGR
    recipe.stages.append(StageConfig(NCE, 1, **PAIRS))
    return recipe


def test_only_what_scores_pairs_moves(frozen: Recipe, tmp_path: Path) -> None:
    first = train(replace(frozen, stages=frozen.stages[:1]), out=tmp_path / "first")
    run = train(frozen, out=tmp_path / "run")
    before, after = weights(first.folder), weights(run.folder)
    still = ("head/image.", "head/text.", "head/v_global_w.", "head/t_global_w.", "text/")
    for key in (k for k in before if k.startswith(("head/", "text/"))):
        assert torch.equal(before[key], after[key]) == (key.startswith(still) or "graph_key_w.bias" in key), key
    assert run.matcher().head.coarse  # such vectors can pick candidates


def test_a_run_that_starts_from_trained_coarse_vectors_has_them(frozen: Recipe, tmp_path: Path) -> None:
    first = train(replace(frozen, stages=frozen.stages[:1]), out=tmp_path / "first")
    alone = replace(frozen, stages=frozen.stages[1:], start=str(first.folder))
    run = train(alone, out=tmp_path / "second")
    assert run.matcher().head.coarse
    assert torch.equal(weights(run.folder)["head/image.fc.weight"], weights(first.folder)["head/image.fc.weight"])


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"coarse_loss": NCE}, "freeze_coarse"),
        ({"loss": None, "coarse_loss": NCE}, "freeze_coarse"),
        ({"train": ["head", "text"]}, r"\[head\] or left out with freeze_coarse"),
    ],
)
def test_keys_that_contradict_it_are_named(change: dict[str, Any], said: str) -> None:
    with pytest.raises(XRetrieveError, match=said):
        StageConfig(**{"loss": NCE, "epochs": 1, **PAIRS, **change})


def test_there_must_be_something_to_freeze_and_something_to_learn(frozen: Recipe, tmp_path: Path) -> None:
    with pytest.raises(XRetrieveError, match="nothing has trained the coarse vectors yet"):
        train(replace(frozen, stages=frozen.stages[1:]), out=tmp_path / "run")
    frozen.head = HeadConfig("scan", {"dim": 16})
    with pytest.raises(XRetrieveError, match="head 'scan' has no weights beside"):
        train(frozen, out=tmp_path / "scan")
    frozen.head = HeadConfig("dual", {"dim": 16})
    with pytest.raises(XRetrieveError, match="coarse_loss"):
        train(frozen, out=tmp_path / "dual")
