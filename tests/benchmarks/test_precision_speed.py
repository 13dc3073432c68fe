"""benchmarks/speed/precision.py at toy sizes: every row is measured in each precision, and auto is one of them."""

from __future__ import annotations

import pytest

from benchmarks.speed import precision

TOY = ["--runs=1", "--pictures=3", "--batch=3", "--images=3", "--captions=3", "--dim=32", "--sim-dim=16",
       "--regions=4"]  # fmt: skip


def test_every_row_is_measured_in_each_precision(capsys: pytest.CaptureFixture[str]) -> None:
    found = precision.main(TOY)
    assert list(found) == list(precision.ROWS)
    assert all(one["32"] > 0 and one["bf16"] > 0 and one["auto"] == one["32"] for one in found.values())
    told = capsys.readouterr().out
    assert "auto is float32 (auto: XRETRIEVE_PRECISION=32)" in told and "torch uses" in told
    assert all(row in told for row in precision.ROWS)
