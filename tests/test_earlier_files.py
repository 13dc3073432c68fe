"""Runs, galleries and a bench cell that an earlier version wrote (benchmarks/reliability/frozen.py --keep) still do."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import xretrieve as xr
from benchmarks.reliability import frozen
from xretrieve.bench.suites import SuiteCells

FIXTURES = Path(__file__).resolve().parent / "fixtures"
PICTURES = ("thumbnail", "heat")  # arrays of ranks.npz that hold a JPEG: a decoder's matter


@pytest.fixture(scope="module")
def split(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The pictures that all of them were measured on."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XRETRIEVE_CACHE", str(tmp_path_factory.mktemp("cache")))
        return xr.datasets.load("scenes", split="test", **frozen.SCENES)


def arrays(folder: Path) -> dict[str, np.ndarray]:
    with np.load(folder / "ranks.npz", allow_pickle=False) as found:
        return {name: found[name] for name in found.files if not name.startswith(PICTURES)}


@pytest.mark.parametrize("name", frozen.KEPT)
def test_a_run_loads_and_gives_the_ranks_that_it_gave(name: str, split: Any, tmp_path: Path) -> None:
    run = FIXTURES / "trained" / name
    kept = xr.Report.load(run)
    report = xr.evaluate(xr.load(run), split, kept.protocol)
    report.save(tmp_path)
    before, after = arrays(run), arrays(tmp_path)
    assert before.keys() == after.keys() and len(before) > 3
    for part, values in before.items():
        np.testing.assert_array_equal(after[part], values, part)
    assert report.metrics.values == kept.metrics.values


@pytest.mark.parametrize("name", frozen.KEPT)
def test_a_gallery_opens_and_answers_as_it_did(name: str, split: Any, tmp_path: Path) -> None:
    shutil.copytree(FIXTURES / "galleries" / name, tmp_path / "g.xr")
    gallery = xr.Gallery.open(tmp_path / "g.xr", xr.load(FIXTURES / "trained" / name))
    before = json.loads((FIXTURES / "galleries" / f"{name}.json").read_text(encoding="utf-8"))
    after = frozen.rankings(gallery, split, frozen.RUNS[name].get("task", "image_text"))
    assert [[id_ for id_, _ in hits] for hits in after] == [[id_ for id_, _ in hits] for hits in before]
    scores = [np.array([[score for _, score in hits] for hits in side]) for side in (after, before)]
    np.testing.assert_allclose(*scores, rtol=1e-4, atol=1e-5)


def test_a_bench_cell_is_finished_and_its_table_the_same(tmp_path: Path) -> None:
    shutil.copytree(FIXTURES / "bench", tmp_path / "bench")
    before = json.loads((tmp_path / "bench" / "table.json").read_text(encoding="utf-8"))["rows"]
    cells = SuiteCells(frozen.CELL[:1], tmp_path / "bench", frozen.CELL[1:])
    assert list(cells.finished()) == [("image_text.scenes-dual", 0)]  # nothing is trained anew
    assert cells.write()["rows"] == before


def test_they_name_no_place_of_the_machine_that_made_them() -> None:
    texts = {path: path.read_text(encoding="utf-8") for path in FIXTURES.rglob("*") if path.suffix in frozen.TEXTS}
    assert len(texts) > 20
    assert not [str(path) for path, text in texts.items() if '"/' in text or ": /" in text or "/tmp/" in text]


def test_they_are_small() -> None:
    assert sum(path.stat().st_size for path in FIXTURES.rglob("*") if path.is_file()) < 1_000_000
