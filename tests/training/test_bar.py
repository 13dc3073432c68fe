"""Off a terminal each epoch is a line with the time left; on a terminal there is a bar, and False says nothing."""

from __future__ import annotations

from dataclasses import replace

import pytest

from xretrieve.training.bar import Bar, epoch_line
from xretrieve.training.recipe import LossConfig, StageConfig

STAGES = [StageConfig(LossConfig("infonce"), 4, name="coarse"), StageConfig(LossConfig("infonce"), 3, name="pairs")]
ROWS = [{"stage": "coarse", "epoch": 1, "loss": 2.0, "seconds": 10.0},
        {"stage": "coarse", "epoch": 2, "loss": 1.5, "rsum": 81.25, "seconds": 20.0}]  # fmt: skip


def test_a_line_says_loss_validation_and_the_time_left_at_the_pace_so_far() -> None:
    assert epoch_line("scenes-sgr", ROWS, STAGES, 0) == (
        "scenes-sgr, coarse 2/4: loss 1.500, validation rsum 81.2, 20.0 s; about 30 s left in this stage, then pairs "
        "(3 epochs)"
    )
    assert "validation" not in epoch_line("", ROWS[:1], STAGES, 0), "an epoch that was not validated shows no old value"


def test_a_later_stage_counts_its_own_epochs_only_and_the_last_epoch_has_nothing_left() -> None:
    own = [{"stage": "pairs", "epoch": i, "loss": 1.0, "seconds": 100.0} for i in (1, 2, 3)]
    assert epoch_line("", [*ROWS, *own[:1]], STAGES, 1).endswith("; about 3 min 20 s left")
    assert epoch_line("", [*ROWS, *own], STAGES, 1) == "pairs 3/3: loss 1.000, 100.0 s"
    skipped = [STAGES[0], replace(STAGES[1], skip=True)]
    assert "then" not in epoch_line("", ROWS, skipped, 0), "a stage that is left out takes no time"


@pytest.mark.parametrize(("shown", "terminal", "lines"), [
    (None, False, True), (None, True, False), ("lines", True, True), (False, False, False), (True, False, False),
])  # fmt: skip
def test_lines_are_for_where_there_is_no_terminal(shown, terminal, lines, capsys, monkeypatch) -> None:
    monkeypatch.setattr("sys.stderr.isatty", lambda: terminal)
    bar = Bar(shown, "mine")
    bar.epoch(ROWS, STAGES, 0)
    assert capsys.readouterr().err.startswith("mine, coarse 2/4") == lines
    assert bar.shown == (shown is True or (shown is None and terminal))
