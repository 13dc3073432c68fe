"""The comparison with an earlier commit: every difference is named, and nothing else."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from benchmarks.reliability import frozen


def write(folder: Path, value: float = 1.0, unit: str = "rank", text: str = "R@1 3.0\n0.2 s wall\n") -> Path:
    folder.mkdir()
    array = np.array([1.0, value, np.nan], np.float32)
    np.savez(folder / "ranks.npz", counts=array)
    told = {"metrics": {"r1": {"value": value, "unit": unit}}, "seconds": {"wall": np.random.rand()}, "low": np.nan}
    (folder / "report.json").write_text(json.dumps(told), encoding="utf-8")
    (folder / "table.txt").write_text(text, encoding="utf-8")
    return folder


def test_equal_outputs_have_no_difference_whatever_the_clock_says(tmp_path: Path) -> None:
    one = write(tmp_path / "a")
    other = write(tmp_path / "b", text="R@1 3.0\n17.5 s wall\n")
    assert frozen.differences(one, other) == []


def test_the_last_bit_a_line_a_key_and_a_missing_file_are_named(tmp_path: Path) -> None:
    one = write(tmp_path / "a")
    other = write(tmp_path / "b", float(np.nextafter(np.float32(1), np.float32(2))), "percent", "R@1 3.1\n0.2 s wall\n")
    (other / "more.txt").write_text("", encoding="utf-8")
    assert [line.split(" ")[0] for line in frozen.differences(one, other)] == [
        "more.txt:", "ranks.npz:", "report.json:", "report.json:", "table.txt:"
    ]  # fmt: skip
    assert "metrics.r1.unit 'rank' -> 'percent'" in "\n".join(frozen.differences(one, other))
    assert not any("unit" in line for line in frozen.differences(one, other, ["unit"]))


def test_a_wrong_name_or_commit_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        frozen.main(["--only", "tshr"])
    assert "no run tshr" in capsys.readouterr().err
    if not (frozen.ROOT / ".git").exists():
        pytest.skip("no history here")
    with pytest.raises(SystemExit, match="no commit 'nowhere'"):
        frozen.main(["--commit", "nowhere"])


@pytest.mark.slow
def test_two_runs_of_the_same_code_are_equal_to_the_bit(tmp_path: Path) -> None:
    sides = [frozen.made_by(frozen.ROOT, tmp_path / side, ["dual", "drilldown"]) for side in ("a", "b")]
    assert frozen.differences(*sides) == []
    assert {path.suffix for path in sides[0].rglob("*.*")} >= {".npz", ".json", ".txt", ".run", ".qrels"}
