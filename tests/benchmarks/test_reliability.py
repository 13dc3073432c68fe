"""The campaigns of kills, writers and flips, their short forms: nothing lost, nothing silent, nothing left over."""

from __future__ import annotations

import sys

import pytest

from benchmarks.reliability import flips, kill, writers
from benchmarks.reliability.steps import steps

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="processes are forked and killed")


@pytest.mark.parametrize("name", ["overwrite", "add", "resume point", "leaderboard"])
def test_a_kill_anywhere_loses_nothing_mixes_nothing_and_leaves_nothing(name):
    step = next(one for one in steps() if one.name == name)
    told = kill.campaign(step, every=5)
    assert told["kills"] >= 3 and (told["lost"], told["mixed"], told["leftovers"]) == (0, 0, 0), told


def test_programs_that_write_at_once_lose_nothing_and_readers_meet_no_error(capsys):
    assert writers.main(["--rounds", "1", "--index", "flat"]) == 0
    assert "12 additions at once, 0 lost" in capsys.readouterr().out


def test_flipped_bits_are_never_silent(capsys):
    pytest.importorskip("faiss")
    assert flips.main(["--flips", "1"]) == 0
    assert " 0 tracebacks, 0 silent" in capsys.readouterr().out
