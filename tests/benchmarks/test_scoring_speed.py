"""benchmarks/speed/scoring.py at toy sizes: every cell runs, and the engine's scores are the loop's."""

from __future__ import annotations

import argparse

import pytest

from benchmarks.speed.scoring import HEADS, cell, main, multiply_adds

TOY = {"images": 3, "captions": 5, "loop_captions": 5, "threads": 1, "runs": 1, "dim": 16, "sim_dim": 8, "regions": 4}


@pytest.mark.parametrize("name", list(HEADS))
def test_engine_and_loop_give_equal_scores(name: str) -> None:
    a = argparse.Namespace(**TOY)
    assert cell(name, "float32", a)["apart"] <= 1e-5
    assert cell(name, "loop", a)["cpu"] > 0


def test_the_table_has_a_line_for_every_way(capsys: pytest.CaptureFixture[str]) -> None:
    found = main(["--heads", "scan", *(f"--{k.replace('_', '-')}={v}" for k, v in TOY.items())])
    assert {"scan loop", "scan float32", "scan bfloat16"} < set(found)
    assert capsys.readouterr().out.count("scan ") >= 3


def test_the_count_of_a_plain_sgr_pair_at_published_sizes_is_the_specifications() -> None:
    a = argparse.Namespace(**{**TOY, "dim": 1024, "sim_dim": 256, "regions": 36})
    assert multiply_adds("sgr", 12, a) == pytest.approx(7.46e6, rel=0.1)
    assert multiply_adds("sgr-i2t", 12, a) == pytest.approx(22.56e6, rel=0.1)
