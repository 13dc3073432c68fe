"""Several searches at once give what each gives alone."""

from __future__ import annotations

import pytest
import torch
from PIL import Image as PILImage

import xretrieve as xr
from tests.gallery_fakes import noise_photos, tiny_matcher
from xretrieve.errors import XRetrieveError
from xretrieve.gallery import Gallery
from xretrieve.gallery.matchers import Matchers
from xretrieve.gallery.queries import Ask, Asked
from xretrieve.gallery.store import Store
from xretrieve.matcher import Matcher, build_head

pytest.importorskip("timm")


@pytest.fixture(scope="module")
def sgr():
    return tiny_matcher("sgr")


@pytest.fixture(scope="module")
def dual(sgr):
    return tiny_matcher("dual", seed=1, image=sgr.image)


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    return noise_photos(tmp_path_factory.mktemp("asked") / "photos", 10)


@pytest.fixture(scope="module", params=["dual", "riding", "hmrn"])
def gallery(request, sgr, dual, photos, tmp_path_factory):
    out = tmp_path_factory.mktemp(request.param) / "g.xr"
    if request.param == "riding":
        return Gallery.build(sgr, photos, out, coarse=dual)
    return Gallery.build(dual if request.param == "dual" else tiny_matcher("hmrn"), photos, out)


def asks(photos):
    return [
        Ask("a red dog", k=3),
        Ask(xr.MultiText(["a blue sledge", "two green birds near yellow water", "snow"]), k=10),
        Ask(xr.Text("two green birds near yellow water"), k=4, rerank="all"),
        Ask(xr.Image(photos / "2.png"), k=2),
        Ask(xr.ImageText(PILImage.open(photos / "3.png"), "a red dog"), k=10),
    ]


def test_many_searches_give_what_each_gives_alone(gallery, photos):
    together = gallery.search_many(asks(photos))
    for ask, found in zip(asks(photos), together, strict=True):
        try:
            alone = gallery.search(ask.query, ask.k, rerank=ask.rerank)
        except XRetrieveError as error:
            assert type(found) is type(error) and str(found) == str(error)
            continue
        assert found.ids == alone.ids and found.note == alone.note
        assert found.scores == pytest.approx(alone.scores, rel=1e-4, abs=1e-5)


def test_texts_of_all_queries_go_through_the_model_once(dual, photos, tmp_path, monkeypatch):
    gallery, calls, encode = Gallery.build(dual, photos, tmp_path / "g.xr"), [], dual.text.encode
    monkeypatch.setattr(dual.text, "encode", lambda items, *more: calls.append(list(items)) or encode(items, *more))
    gallery.search_many([Ask("a dog"), Ask(xr.MultiText(["snow", "a sledge"])), Ask("birds")])
    assert calls == [["a dog", "snow", "a sledge", "birds"]]


def test_what_two_heads_over_one_backbone_read_goes_through_it_once(sgr, dual, photos, tmp_path, monkeypatch):
    rider = Matcher(sgr.image, sgr.text, build_head("dual", sgr.image, sgr.text, dim=16))
    gallery, calls, encode = Gallery.build(sgr, photos, tmp_path / "g.xr", coarse=rider), [], sgr.text.encode
    alone = [rider.encode_query("a red dog", coarse=True).pooled, sgr.encode_query("a red dog").local]
    monkeypatch.setattr(sgr.text, "encode", lambda items, *more: calls.append(list(items)) or encode(items, *more))
    ranking = gallery.search("a red dog", k=5, rerank=3)
    assert calls == [["a red dog"]]
    assert sum(hit.exact for hit in ranking) == 3
    query = xr.Text("a red dog")
    asked = Asked([query], Matchers(Store.open(gallery.path), sgr, rider))
    assert torch.equal(asked.prepared(rider, query, coarse=True).pooled, alone[0])
    assert torch.equal(asked.prepared(sgr, query).local, alone[1])


def test_a_bad_query_among_good_ones_fails_alone(gallery, photos, tmp_path):
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(b"\xff\xd8 not a picture")
    found = gallery.search_many([Ask("a red dog", k=2), Ask("  "), Ask("snow", k=0), Ask(3), Ask(xr.Image(broken))])
    assert found[0].ids == gallery.search("a red dog", k=2).ids
    assert ["empty" in str(found[1]), "k is 0" in str(found[2]), "not a query" in str(found[3])] == [True] * 3
    assert isinstance(found[4], XRetrieveError)


def test_prepared_rows_are_those_of_a_single_query(dual):
    queries = [xr.Text("a red dog"), xr.Text("two green birds near yellow water")]
    asked = Asked(queries)
    for query in queries:
        torch.testing.assert_close(asked.prepared(dual, query).pooled, dual.encode_query(query).pooled)


def test_any_picture_can_be_explained_found_or_not(gallery):
    ranking = gallery.search("a red dog", k=10)
    for place in (0, 9):
        told = ranking.explain(place)
        assert gallery.explain("a red dog", ranking.ids[place])["parts"] == told["parts"]
    with pytest.raises(XRetrieveError, match="no id '11.png'; did you mean"):
        gallery.explain("a red dog", "11.png")


def test_the_file_of_a_picture(gallery, photos):
    assert gallery.picture("4.png") == (photos / "4.png").resolve()
    with pytest.raises(XRetrieveError, match="no id"):
        gallery.picture("../photos/4.png")
