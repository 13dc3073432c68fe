"""benchmarks/quality/cascade.py on tiny runs: its rows are what searches find."""

from __future__ import annotations

import json

import pytest
import yaml

pytest.importorskip("timm")

from benchmarks.quality.cascade import main, searched  # noqa: E402
from tests.gallery_fakes import noise_photos, tiny_matcher  # noqa: E402
from xretrieve.gallery import Gallery  # noqa: E402
from xretrieve.query import Text  # noqa: E402


def test_rows_go_from_the_first_stage_to_every_picture(tmp_path, capsys):
    sgr = tiny_matcher("sgr")
    sgr.save(tmp_path / "sgr" / "matcher")
    tiny_matcher("dual", seed=1, image=sgr.image).save(tmp_path / "dual" / "matcher")
    recipe = {"dataset": {"name": "scenes", "options": {"train": 2, "val": 6, "test": 8, "size": 48}}}
    (tmp_path / "sgr" / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    found = main([str(tmp_path / "sgr"), "--coarse", str(tmp_path / "dual"), "--queries", "9", "--reranks", "0", "2",
                  "100", "all", "--out", str(tmp_path / "out.json")])  # fmt: skip
    rows = found["rows"]
    assert [row["rerank"] for row in rows if row["blend"] == 1] == ["0", "2", "all"], "100 is more than there are"
    assert all(0 <= row["r1"] <= row["r5"] <= row["r10"] == 100 for row in rows), "the top 10 of 8 pictures"
    assert all(row["same"] == 1 for row in rows), "searches find what the scores say"
    assert json.loads((tmp_path / "out.json").read_text())["rows"] == rows
    assert "| all | head |" in capsys.readouterr().out


def small_run(folder, head, **options):
    """A saved run over small scenes."""
    tiny_matcher(head, **options).save(folder / "matcher")
    recipe = {"dataset": {"name": "scenes", "options": {"train": 2, "val": 6, "test": 12, "size": 48}}}
    (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    return str(folder)


def test_a_head_with_a_bound_finds_the_same_as_the_scan_that_it_is_compared_with(tmp_path):
    found = main([small_run(tmp_path / "hmrn", "hmrn"), "--queries", "8"])
    rows = {row["rerank"]: row for row in found["rows"]}
    assert list(rows) == ["all", "scan"] and found["kind"] == "query sets" and found["tuned"] is None
    assert [rows["all"][f"r{k}"] for k in (1, 5, 10)] == [rows["scan"][f"r{k}"] for k in (1, 5, 10)]


def test_a_composed_head_is_answered_by_indexes_alone(tmp_path, capsys):
    pytest.importorskip("faiss")
    found = main([small_run(tmp_path / "sum", "sum"), "--queries", "6"])
    assert [row["rerank"] for row in found["rows"]] == ["flat", "hnsw"] and found["kind"] == "composed queries"
    assert [found["rows"][0][f"r{k}"] for k in (1, 5, 10)] == [found["rows"][1][f"r{k}"] for k in (1, 5, 10)]
    assert "behind an index of its vectors" in capsys.readouterr().out


def test_the_place_of_a_picture_is_that_among_the_hits(tmp_path):
    gallery = Gallery.build(tiny_matcher("dual"), noise_photos(tmp_path / "photos", 12), tmp_path / "g.xr")
    texts = ["a red dog", "a blue sledge", "snow"]
    ids = [gallery.search(text, k=12).ids for text in texts]
    places, cost = searched(gallery, [Text(text) for text in texts], [ids[0][0], ids[1][3], ids[2][11]])
    assert places.tolist() == [0, 3, float("inf")] and cost > 0
