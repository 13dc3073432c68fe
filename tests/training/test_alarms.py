"""What a training says of itself: a collapsed hinge after its first epoch, batch norms that processes do not share."""

from __future__ import annotations

import pytest
from torch import nn

from xretrieve.config import from_dict
from xretrieve.training.alarms import collapsed, norms_apart
from xretrieve.training.recipe import StageConfig

ALIKE = {"positive": 0.801, "negative": 0.803, "active": 1.0}


def stage(loss: str = "hinge", **options: object) -> StageConfig:
    return from_dict(StageConfig, {"loss": {"name": loss, "options": options}, "epochs": 2, "batch_size": 8, "lr": 0.1})


def test_a_collapsed_hinge_is_told_with_the_key_to_change() -> None:
    said = collapsed(stage(margin=0.2), 1, ALIKE)
    assert "all scores are alike" in said and "stages.1.loss.options.warmup_epochs=1" in said and "(now 0.1)" in said


@pytest.mark.parametrize(
    ("made", "logged"),
    [
        (stage(), {**ALIKE, "active": 0.7}),
        (stage(), {**ALIKE, "negative": 0.7}),
        (stage(), {**ALIKE, "negative": 0.95}),
        (stage(warmup_epochs=1), ALIKE),
        (stage(negatives="all"), ALIKE),
        (stage("infonce"), ALIKE),
        (stage(), {"loss": 0.4}),
    ],
)
def test_a_hinge_that_learns_and_other_losses_are_not(made: StageConfig, logged: dict[str, float]) -> None:
    assert collapsed(made, 0, logged) == ""


def test_batch_norms_of_several_processes_are_told() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    assert "1 batch norms take their statistics" in norms_apart(model, 2) and "1/2" in norms_apart(model, 2)
    assert norms_apart(model, 1) == "" and norms_apart(nn.Linear(2, 2), 2) == ""
