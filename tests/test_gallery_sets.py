"""Galleries of heads over query sets: the exact search that reasons about few pictures, and what explains a hit."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import xretrieve as xr
from tests.gallery_fakes import tiny_matcher
from tests.set_galleries import COUNT, SENTENCES, Galleries
from xretrieve.gallery import Gallery
from xretrieve.gallery.search import Stages

pytest.importorskip("timm")
QUERY = xr.MultiText(SENTENCES[:3])
HMRN = ["hmrn-t2i", "hmrn-i2t", "hmrn-no-global"]


@pytest.fixture(scope="module")
def galleries(tmp_path_factory):
    return Galleries(tmp_path_factory.mktemp("sets"))


@pytest.fixture
def everything(monkeypatch):
    """Searches below score every picture in full."""
    return lambda: monkeypatch.setattr(Stages, "_bounds", lambda self: False)


@pytest.mark.parametrize("case", [*HMRN, "drilldown"])
@pytest.mark.parametrize("count", [1, 3, 5])
def test_a_search_by_default_is_that_of_scoring_everything(galleries, everything, case, count):
    gallery, query = galleries[case], xr.MultiText(SENTENCES[:count])
    few, most = (gallery.search(query, k=k, rerank=None if case in HMRN else "all") for k in (4, COUNT))
    inside = gallery.search(query, k=4, where={"folder": "."})
    everything()
    wanted = gallery.search(query, k=COUNT, rerank="all")
    assert most.ids == wanted.ids and few.ids == inside.ids == wanted.ids[:4]
    assert most.scores == pytest.approx(wanted.scores, abs=1e-5)
    assert all(hit.exact for hit in most) and wanted.share == 1 and few.to_json()["share"] == few.share
    spread = np.std(wanted.scores)
    matcher, paths = gallery.matcher, [hit.path for hit in wanted]
    own = matcher.score(matcher.encode_query(query), matcher.encode_images(paths))[0].numpy()
    assert np.abs(own - wanted.scores).max() < 0.02 * spread, "float16 on the disk moves a score by little"


def test_few_pictures_are_reasoned_about_while_the_reasoning_weighs_little(galleries):
    for case in HMRN:
        ranking = galleries[case].search(SENTENCES[0], k=2)
        assert 16 / COUNT <= ranking.share < 1, case
        assert galleries[case].bounded, case
    assert not galleries["drilldown"].bounded and not galleries["dual"].bounded
    assert galleries["drilldown"].search(SENTENCES[0], rerank="all").share == 1
    assert galleries["dual"].search(SENTENCES[0]).share is None
    assert galleries["hmrn-t2i"].search(QUERY, rerank=15).share == 15 / COUNT
    assert galleries["hmrn-t2i"].search(QUERY, rerank=0).share == 0


def test_candidates_come_from_another_matcher_or_an_approximate_index_where_one_was_given(galleries, tmp_path):
    matcher = galleries["hmrn-t2i"].matcher
    dual = tiny_matcher("dual", seed=1, image=matcher.image)
    riding = Gallery.build(matcher, galleries.photos, tmp_path / "riding.xr", coarse=dual)
    found, coarse = riding.search(QUERY, k=COUNT, rerank=4), riding.search(QUERY, k=COUNT, rerank=0)
    assert set(found.ids[:4]) == set(coarse.ids[:4]) and found.ids[4:] == coarse.ids[4:]
    assert riding.search(QUERY, k=3).ids == galleries["hmrn-t2i"].search(QUERY, k=3).ids, "100 candidates are all"
    assert riding.search(QUERY, k=3).share == 1 and not riding.bounded
    pytest.importorskip("faiss")
    near = Gallery.build(matcher, galleries.photos, tmp_path / "hnsw.xr", index="hnsw")
    assert not near.bounded
    assert near.search(QUERY, k=3).share == 1 and near.search(QUERY, k=3, rerank=20).share == 20 / COUNT


def test_a_picture_as_query_is_answered_in_coarse_order(galleries):
    like = galleries["hmrn-t2i"].search(xr.Image(galleries.photos / "2.png"), k=3)
    assert "takes no query of a picture" in like.note and not like[0].exact and like.ids[0] == "2.png"


@pytest.mark.parametrize("case", ["hmrn-t2i", "hmrn-i2t", "drilldown", "drilldown-policy"])
def test_an_explanation_tells_each_sentences_score_and_region(galleries, case):
    gallery, query = galleries[case], xr.MultiText(SENTENCES)
    ranking = gallery.search(query, k=3, rerank="all")
    told = ranking.explain(1)
    attention = told["attention"]
    assert attention["of"] == "sentences" and attention["words"] == list(SENTENCES)
    assert attention["layout"]["grid"] == [3, 3]
    weights = np.array(attention["streams"]["t2i"]["weights"])
    assert weights.shape == (5, 9) and weights.sum(1) == pytest.approx(np.ones(5), abs=1e-4)
    for place, part in enumerate(told["parts"]):
        alone = gallery.search(part["text"], k=COUNT, rerank="all")
        assert part["text"] == SENTENCES[place]
        assert part["score"] == pytest.approx(alone.scores[alone.ids.index(told["id"])], abs=1e-5)
        assert part["region"] == weights[place].argmax()
        assert part["found"] == attention["streams"]["t2i"]["match"][place]
    if case.startswith("hmrn"):
        levels = told["levels"]
        assert sum(one["value"] * one["weight"] for one in levels.values()) == pytest.approx(told["score"], abs=1e-4)
        reads = levels["reason"]["reads_global"] + sum(part["reads"] for part in told["parts"])
        assert reads == pytest.approx(1, abs=1e-4)
    else:
        assert sum(p["counts"] * p["found"] for p in told["parts"]) == pytest.approx(told["score"], abs=1e-4)
        slots = [part["slot"] for part in told["parts"]]
        assert slots == [0, 1, 0, 1, 0] if case == "drilldown" else slots[:2] == [0, 1]
        assert sum(part["counts"] > 0 for part in told["parts"]) == 2, "one standing sentence for each of two slots"


def test_one_sentence_and_a_reasoning_without_weight_are_explained_too(galleries, tmp_path):
    one = galleries["hmrn-t2i"].search("yellow water", k=1).explain(0)
    assert len(one["parts"]) == 1 and one["parts"][0]["score"] == pytest.approx(one["score"], abs=1e-5)
    plain = tiny_matcher("hmrn", image=galleries["hmrn-t2i"].matcher.image, beta=0.0)
    told = Gallery.build(plain, galleries.photos, tmp_path / "plain.xr").search(QUERY, k=1).explain(0)
    assert set(told["levels"]) == {"local", "global"} and "reads" not in told["parts"][0]


def test_a_dual_encoder_tells_each_sentences_cosine(galleries):
    ranking = galleries["dual"].search(QUERY, k=1)
    parts = ranking.explain(0)["parts"]
    assert np.mean([part["score"] for part in parts]) == pytest.approx(ranking[0].score, abs=1e-5)
    assert set(parts[0]) == {"kind", "text", "score"}


def test_a_run_of_rows_reads_what_picking_them_reads(galleries):
    store = galleries["drilldown"]._store
    run, picked = store.tokens(range(3, 9)), store.tokens([8, 3, 4, 5, 6, 7])
    order = [1, 2, 3, 4, 5, 0]
    assert torch.equal(run.local, picked.local[order]) and torch.equal(run.mask, picked.mask[order])
    bare = [store.tokens(rows, local=False) for rows in (range(3, 9), [8, 3, 4, 5, 6, 7])]
    assert [b.local.shape for b in bare] == [(6, 9, 0)] * 2 and torch.equal(bare[0].mask, run.mask)
    assert torch.equal(bare[0].pooled, bare[1].pooled[order])
