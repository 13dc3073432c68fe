"""benchmarks/speed/scoring.py at toy sizes: every cell runs, and the engine's scores are the loop's."""

from __future__ import annotations

import argparse
from typing import Any

import pytest
import torch

from benchmarks.speed import scoring
from benchmarks.speed.scoring import HEADS, cell, main, multiply_adds

TOY = {"images": 3, "captions": 5, "loop_captions": 5, "threads": 1, "runs": 1, "loop_runs": 1,
       "dim": 16, "sim_dim": 8, "regions": 4, "alike": 1}  # fmt: skip


@pytest.mark.parametrize("name", list(HEADS))
def test_engine_and_loop_give_equal_scores(name: str) -> None:
    a = argparse.Namespace(**TOY)
    assert cell(name, "float32", a)["apart"] <= 1e-5
    assert cell(name, "loop", a)["cpu"] > 0


def test_the_table_has_a_line_for_every_way(capsys: pytest.CaptureFixture[str]) -> None:
    found = main(["--heads", "scan", *(f"--{k.replace('_', '-')}={v}" for k, v in TOY.items())])
    assert {"scan loop", "scan float32", "scan bfloat16"} < set(found)
    assert capsys.readouterr().out.count("scan ") >= 3


def test_the_count_of_an_sgr_pair_at_published_sizes_is_the_specifications() -> None:
    a = argparse.Namespace(**{**TOY, "dim": 1024, "sim_dim": 256, "regions": 36})
    # floating-point operations (two for a multiply-add) as written, less the steps as written, plus the merged ones
    assert 2 * multiply_adds("sgr", 12, a) == pytest.approx(24.44e6 - 15.86e6 + 7.46e6, rel=0.01)
    assert 2 * multiply_adds("sgr-i2t", 12, a) == pytest.approx(69.02e6 - 47.85e6 + 22.56e6, rel=0.01)
    assert 2 * multiply_adds("tshsr", 12, a) == pytest.approx(76.2e6, rel=0.01)


def test_the_peak_is_that_of_the_faster_way(monkeypatch: pytest.MonkeyPatch) -> None:
    ran = []

    def measured(work: Any, runs: int) -> tuple[torch.Tensor, float, float]:
        ran.append(work())
        return ran[-1], 1.0 if len(ran) % 2 else 0.5, 0.0

    monkeypatch.setattr(scoring, "median", measured)
    assert scoring.peak(torch.float32, 1, ((32, 8, 4),)) == 32 * 8 * 4 / 0.5
    torch.testing.assert_close(ran[0], ran[1])


def test_the_profile_names_every_kind_and_counts_the_products(capsys: pytest.CaptureFixture[str], monkeypatch) -> None:
    monkeypatch.setattr(scoring, "peak", lambda dtype, threads: 1e9)
    assert main(["--profile", "--heads", "sgr", *(f"--{k.replace('_', '-')}={v}" for k, v in TOY.items())]) == {}
    lines = {line[:18].strip(): line.split() for line in capsys.readouterr().out.splitlines()}
    assert {"weight products", "pair products", "norms", "softmax", "elementwise", "copies", "whole"} < set(lines)
    assert float(lines["whole"][-1]) > 0 and int(lines["pair products"][4]) > 0
