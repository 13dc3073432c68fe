"""A gallery's matchers come late: a text needs no image side, and a wrong side is refused when it is needed."""

import copy
import json
import logging
import shutil

import pytest
import torch

import xretrieve as xr
from tests.gallery_fakes import noise_photos, tiny_matcher
from xretrieve.errors import XRetrieveError
from xretrieve.gallery import Gallery
from xretrieve.matcher_sides import LateMatcher

pytest.importorskip("timm")


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    place = tmp_path_factory.mktemp("late")
    tiny_matcher("dual").save(place / "run" / "matcher")
    Gallery.build(xr.load(place / "run"), noise_photos(place / "photos", 3), place / "g.xr")
    return place


@pytest.fixture
def place(made, tmp_path):
    """A gallery of its own run, which may be broken."""
    for name in ("run", "g.xr"):
        shutil.copytree(made / name, tmp_path / name)
    about = json.loads((tmp_path / "g.xr/gallery.json").read_text())
    about["matcher"]["source"] = str(tmp_path / "run")
    (tmp_path / "g.xr/gallery.json").write_text(json.dumps(about))
    return tmp_path


def other_side(folder, side):
    """Other weights in a saved side."""
    backbone = xr.load(folder / "run").__getattr__(side)
    with torch.no_grad():
        next(backbone.network.parameters()).add_(1)
    shutil.rmtree(folder / "run/matcher" / side)
    backbone.save(folder / "run/matcher" / side)


def test_a_text_loads_the_text_side_only_and_finds_the_same(made, caplog):
    whole, late = Gallery.open(made / "g.xr", xr.load(made / "run")), Gallery.open(made / "g.xr")
    with caplog.at_level(logging.INFO, "xretrieve.loading"):
        assert late.search("a red dog").to_json() == whole.search("a red dog").to_json()
    assert isinstance(late.matcher, LateMatcher) and late.matcher.loaded("text") and not late.matcher.loaded("image")
    assert [line.startswith("loading the text side") for line in caplog.messages][-1:] == [True], (
        "what is loaded is said"
    )
    photo = xr.Image(made / "photos/0.png")
    assert late.search(photo).to_json() == whole.search(photo).to_json() and late.matcher.loaded("image")


def test_what_walks_through_a_late_matcher_finds_all_of_it(made):
    whole = xr.load(made / "run")
    for walk in (
        lambda m: [name for name, _ in m.named_parameters()],
        lambda m: sorted(m.state_dict()),
        lambda m: [type(part) for part in m.to("cpu").modules()][1:],
        lambda m: m.fingerprint(),
        lambda m: len(list(copy.deepcopy(m).children())),
        lambda m: m.load_state_dict(whole.state_dict()),
        lambda m: str(m.train().image.training),
        lambda m: str(m.device),
    ):
        assert walk(Gallery.open(made / "g.xr").matcher) == walk(xr.load(made / "run"))


def test_all_is_loaded_where_that_is_asked_for(made):
    gallery = Gallery.open(made / "g.xr")
    gallery.prepare()
    assert gallery.matcher.loaded("image") and gallery.matcher.loaded("text")


@pytest.mark.parametrize("side", ["image", "text"])
def test_weights_that_are_missing_or_cut_short_are_said_at_once_whatever_is_asked(place, side):
    weights = place / "run/matcher" / side / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-8])
    with pytest.raises(XRetrieveError, match=rf"cannot be loaded: .*{side}/model.safetensors: not a safetensors file"):
        Gallery.open(place / "g.xr").search("a red dog")
    weights.unlink()
    with pytest.raises(XRetrieveError, match=rf"cannot be loaded: no weights file .*{side}/model.safetensors"):
        Gallery.open(place / "g.xr").search("a red dog")


def test_another_text_side_is_refused_when_it_is_needed(place):
    other_side(place, "text")
    with pytest.raises(XRetrieveError, match="text side is another one now .*cannot be compared"):
        Gallery.open(place / "g.xr").search("a red dog")


def test_another_image_side_is_refused_by_pictures_and_by_adding(place, made):
    other_side(place, "image")
    gallery = Gallery.open(place / "g.xr")
    assert gallery.search("a red dog").ids == Gallery.open(made / "g.xr").search("a red dog").ids, "vectors are the old"
    with pytest.raises(XRetrieveError, match="image side is another one now"):
        gallery.search(xr.Image(made / "photos/0.png"))
    noise_photos(place / "more", 5, seed=1)
    with pytest.raises(XRetrieveError, match="image side is another one now"):
        gallery.add(place / "more")


def test_another_head_is_refused_as_before(place):
    matcher = xr.load(place / "run")
    with torch.no_grad():
        next(matcher.head.parameters()).add_(1)
    matcher.save(place / "run/matcher")
    with pytest.raises(XRetrieveError, match="was made by matcher .*not by"):
        Gallery.open(place / "g.xr").search("a red dog")


def test_a_gallery_of_before_there_were_sides_is_searched_as_it_was(place, made):
    about = json.loads((place / "g.xr/gallery.json").read_text())
    del about["matcher"]["sides"], about["matcher"]["head"]
    about.pop("checksum", None)
    (place / "g.xr/gallery.json").write_text(json.dumps(about))
    old = Gallery.open(place / "g.xr")
    assert (
        old.search("a red dog").to_json()["hits"] == Gallery.open(made / "g.xr").search("a red dog").to_json()["hits"]
    )
    assert not isinstance(old.matcher, LateMatcher)


def test_weights_that_a_search_loads_tell_whether_they_change(place):
    gallery = Gallery.open(place / "g.xr")
    gallery.search("a red dog")
    weights = [*gallery.matcher.text.parameters(), *gallery.matcher.head.parameters()]
    assert weights and not any(weight.is_inference() for weight in weights), "what is made of them could not be kept"
