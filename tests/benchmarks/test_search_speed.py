"""benchmarks/speed/search.py at tiny sizes: copies are like the gallery, every row is there."""

from __future__ import annotations

import pytest

pytest.importorskip("timm")

from benchmarks.speed.search import indexed, main, recall, tiled  # noqa: E402
from tests.gallery_fakes import noise_photos, tiny_matcher  # noqa: E402
from xretrieve.gallery import Gallery  # noqa: E402
from xretrieve.gallery.store import Store  # noqa: E402


@pytest.fixture(scope="module")
def gallery(tmp_path_factory):
    place = tmp_path_factory.mktemp("tiled")
    sgr = tiny_matcher("sgr")
    dual = tiny_matcher("dual", seed=1, image=sgr.image)
    sgr.save(place / "sgr" / "matcher")
    dual.save(place / "dual" / "matcher")
    from xretrieve.loading import load

    return Gallery.build(load(place / "sgr"), noise_photos(place / "photos", 6), place / "g.xr",
                         coarse=load(place / "dual"))  # fmt: skip


def test_without_noise_every_copy_scores_as_its_picture(gallery, tmp_path):
    large, _ = tiled(gallery, 15, 0.0, tmp_path)
    large, told = indexed(large, "flat")
    scores = dict(zip(gallery.ids, gallery.search("a red dog", k=6).scores, strict=False))
    ranking = large.search("a red dog", k=15)
    by_row = {int(hit.id): hit.score for hit in ranking}
    assert len(by_row) == 15 and told["disk_bytes"] > 0 and len(scores) == 6
    for row, score in by_row.items():
        assert score == pytest.approx(by_row[row % 6], rel=1e-3), "copies are alike"


def test_an_index_is_changed_and_its_recall_is_that_of_the_texts(gallery, tmp_path):
    pytest.importorskip("faiss")
    large, _ = tiled(gallery, 40, 0.1, tmp_path)
    exact = large.search("a red dog", k=10, rerank=0).ids
    approximate, told = indexed(large, "hnsw")
    assert approximate.info["index"]["name"] == "hnsw" and told["memory_bytes"] >= 0 < told["disk_bytes"]
    found = approximate.search("a red dog", k=10, rerank=0).ids
    assert recall(approximate, ["a red dog"]) == len(set(found) & set(exact)) / 10
    large, _ = indexed(large, "flat")
    assert recall(large, ["a red dog"]) == 1
    large.remove(exact[:4])
    assert recall(large, ["a red dog"]) == 1, "what is gone does not count"


def test_pictures_get_as_many_tokens_as_are_asked_for(gallery, tmp_path):
    store = Store.open(tiled(gallery, 7, 0.1, tmp_path, 20)[0].path)
    own = Store.open(gallery.path).tokens([0]).local[0]
    longer = store.tokens([0]).local[0]
    assert store.longest == len(longer) == 20 and (longer[: len(own)] == own).all(), "its own tokens come first"
    assert 0 < (longer[len(own)] - own[0]).norm() < 0.3 * own[0].norm(), "the others are like them"


def test_every_row_of_the_table_is_measured(gallery, tmp_path, capsys):
    found = main([str(gallery.path), "--sizes", "8", "20", "--queries", "3", "--indexes", "flat", "--reranks", "0", "4",
                  "--clients", "1", "2", "--folder", str(tmp_path), "--out", str(tmp_path / "out.json")])  # fmt: skip
    own = [(row["size"], row["rerank"], row["clients"]) for row in found["rows"] if row["what"] == "flat"]
    assert own == [(size, rerank, clients) for size in (8, 20) for rerank in (0, 4) for clients in (1, 2)]
    assert all(0 < row["p50_ms"] <= row["p95_ms"] for row in found["rows"])
    assert [path.name for path in tmp_path.iterdir()] == ["out.json"], "what was made is deleted"
    assert "| 20 | flat | 4 | 2 |" in capsys.readouterr().out
