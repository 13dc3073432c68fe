"""The benchmark of all rounds: both ways agree, and a row says what it measured."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch

from benchmarks.speed import rounds

TINY = ["--images", "9", "--sets", "4", "--loop-sets", "2", "--rounds", "3", "--regions", "4", "--width", "8"]


@pytest.mark.parametrize("direction", ["t2i", "i2t"])
def test_the_loop_and_the_single_pass_give_equal_scores(direction):
    args = rounds.parse([*TINY, "--direction", direction])
    with torch.inference_mode():
        head, sets, images = rounds.inputs(args)
        want = rounds.by_loop(head, sets, images)
        assert want.shape == (3, 9, 4)
        torch.testing.assert_close(rounds.score_rounds(head, sets, images), want, atol=1e-6, rtol=0)


def test_a_row_is_scaled_to_all_sets_and_saves_its_scores(tmp_path):
    found = {}
    for row in rounds.ROWS:
        found[row] = rounds.measure(rounds.parse([*TINY, "--row", row, "--scores", str(tmp_path / row)]))
        assert torch.load(tmp_path / row, weights_only=True).shape == (3, 9, 2)
    assert all(one["cpu"] > 0 and one["mb"] >= 0 for one in found.values())


def test_the_count_at_published_sizes_is_the_specifications():
    assert rounds.multiply_adds(rounds.parse([])) == pytest.approx(23.8e6, rel=0.01)


@pytest.mark.slow
def test_it_runs_as_a_script():
    done = subprocess.run([sys.executable, rounds.__file__, *TINY], capture_output=True, text=True, check=True)
    assert done.stdout.count(" us a pair ") == 3
