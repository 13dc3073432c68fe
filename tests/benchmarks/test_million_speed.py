"""benchmarks/speed/million.py at tiny sizes: data are as told, every row is there, nothing is left behind."""

from __future__ import annotations

import json
import sys

import numpy as np
import pytest

from benchmarks.speed import million
from benchmarks.speed.million import clustered, main, questions


def test_vectors_are_unit_and_have_near_copies(tmp_path):
    clustered(600, 32, tmp_path / "v.npy")
    vectors = np.load(tmp_path / "v.npy")
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    nearest = np.sort(vectors @ vectors.T, axis=1)[:, -2]  # the last one is itself
    assert np.median(nearest) > 0.9 and vectors.dtype == np.float32
    best = (questions(vectors, 40) @ vectors.T).max(1)
    assert (best[:20] > 0.85).all() and (best[20:] < 0.85).all()


def test_every_index_is_measured_against_exact_search(tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "faiss", pytest.importorskip("faiss"))  # put back in the end
    monkeypatch.setattr(million, "apart", lambda work, *arguments: work(*arguments))  # ten new processes take too long
    rows = main(["--sizes", "400", "--dim", "16", "--queries", "6", "--threshold", "50", "--folder", str(tmp_path),
                 "--indexes", "flat", "hnsw", "auto", "auto-numpy", "--out", str(tmp_path / "o.json")])  # fmt: skip
    assert [row["index"] for row in rows] == ["flat", "hnsw", "hnsw+", "auto", "auto-numpy"]
    assert rows[0]["near_recall"] == rows[0]["far_recall"] == 1 and rows[0]["disk_mb"] == 0
    assert all(row["near_recall"] >= 0.9 and row["near_ms"] > 0 for row in rows)
    assert all("measured" in row["chosen"] for row in rows[2:])
    assert [path.name for path in tmp_path.iterdir()] == ["o.json"], "what was made is deleted"
    assert json.loads((tmp_path / "o.json").read_text())["rows"] == rows
    assert "| 400 | auto-numpy |" in capsys.readouterr().out
