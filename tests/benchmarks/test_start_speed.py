"""benchmarks/speed/start.py with models of no size: every row is there and counts what it says."""

import sys

import pytest

pytest.importorskip("timm")

from benchmarks.speed.start import main, spent  # noqa: E402


def test_every_row_is_measured(tmp_path, capsys, monkeypatch):
    """The processes are made up here: tests of the search itself start them."""
    seconds = iter([2.0, 2.5, 4.0, 2.25, 1.0, 2.75])  # in turns, `import torch` first
    monkeypatch.setattr("benchmarks.speed.start.spent", lambda command: next(seconds))
    found = main(["--sides", "words", "--pictures", "7", "--runs", "3", "--large", "30", "--queries", "2", "--tiny",
                  "--heads", "dual-words", "tshsr-words", "--rerank", "4",
                  "--folder", str(tmp_path), "--out", str(tmp_path / "out.json")])  # fmt: skip
    torch_, words = found["start"]
    assert (torch_["cpu_s"], words["cpu_s"], words["low"], words["high"]) == (2.0, 2.5, 2.25, 2.75)
    assert (torch_["above_torch"], words["above_torch"]) == (0, 0.5)
    rows = [(row["head"], row["text"], row["pictures"], row.get("rerank")) for row in found["search"]]
    assert rows == [("dual", "words", 30, None), ("tshsr", "words", 30, 4)]
    assert all(row["search_ms"] > 0 < row["encode_ms"] for row in found["search"])
    assert [path.name for path in tmp_path.iterdir()] == ["out.json"], "what was made is deleted"
    assert "| words | 2.50 | 2.25 to 2.75 | 0.50 |" in capsys.readouterr().out


def test_the_time_of_a_process_is_its_own():
    assert 0 < spent([sys.executable, "-c", "sum(range(10**6))"]) < 60
