"""The index of a gallery: `auto` and its threshold, a recall that is asked for, codes that are damaged."""

import json
import warnings

import numpy as np
import pytest

from tests.gallery_fakes import FakeMatcher, paint
from tests.test_gallery import dataset_of
from xretrieve.errors import XRetrieveError
from xretrieve.gallery import Gallery

SMALL = {"threshold": 60, "rescored": 4, "codes": "binary"}


def colours(root, count, seed):
    chance = np.random.default_rng(seed)
    for place in range(count):
        paint(root / f"{seed}-{place}.png", tuple(int(x) for x in chance.integers(0, 256, 3)))
    return root


def same_as_flat(gallery):
    """Its ranking, beside that of its own vectors."""
    vectors = gallery._store.vectors(gallery._store.live())
    query = FakeMatcher().encode_texts(["yellow"]).pooled.numpy()
    best = gallery._store.live()[np.argsort(-(query @ vectors.T)[0], kind="stable")[:3]]
    wanted = [gallery._store.items[row].id for row in best]
    return gallery.search("yellow", 3).ids == wanted


def test_a_few_pictures_are_searched_as_by_the_flat_index(tmp_path):
    gallery = Gallery.build(FakeMatcher(), colours(tmp_path / "p", 50, 0), tmp_path / "g.xr", **SMALL)
    assert gallery.info["index"] == {"name": "auto", "options": SMALL}
    assert not list(gallery.path.glob("index-*")) and same_as_flat(gallery)
    plain = Gallery.build(FakeMatcher(), tmp_path / "p", tmp_path / "plain.xr")
    assert plain.info["index"] == {"name": "auto", "options": {}}


def test_it_grows_over_the_threshold_and_shrinks_below_it_and_says_so(tmp_path):
    gallery = Gallery.build(FakeMatcher(), colours(tmp_path / "p", 50, 0), tmp_path / "g.xr", **SMALL)
    gallery.search("red", 1)  # the index is loaded, so it must follow
    assert gallery.add(colours(tmp_path / "few", 5, 1)).notes == []
    (note,) = gallery.add(colours(tmp_path / "q", 70, 2)).notes
    assert "125 pictures are more than 60" in note and gallery.info["index"]["note"] == note
    about = gallery.info["index"]
    assert about["codes"] == "binary" and about["recall"]["value"] >= 0.999 and "rescored" in about["chosen"]
    folder = gallery.path / about["folder"]
    assert not (folder / "vectors.npy").exists(), "the vectors are on disk once"
    for one in (gallery, Gallery.open(gallery.path, FakeMatcher())):
        assert same_as_flat(one)
    assert gallery.add(colours(tmp_path / "r", 4, 3)).notes == [], "said once"
    assert gallery.info["index"]["folder"] == about["folder"], "a few more do not write it anew"
    again = Gallery.open(gallery.path, FakeMatcher())
    assert again.remove(again.ids[:20]) == [] and same_as_flat(again)
    assert same_as_flat(Gallery.open(gallery.path, FakeMatcher()))
    assert again.save() == [] and again.info["index"]["codes"] == "binary" and same_as_flat(again)
    notes = again.remove(again.ids[10:])  # most of it: merged too
    assert len(notes) == 1 and "10 pictures are no more than 60" in notes[0]
    assert again.info["index"] == {"name": "auto", "options": SMALL} and not list(again.path.glob("index-*"))
    assert same_as_flat(again) and same_as_flat(Gallery.open(gallery.path, FakeMatcher()))


@pytest.mark.parametrize("damage", ["codes", "ids", "json", "all"])
def test_damaged_codes_are_named_and_made_anew(tmp_path, damage):
    gallery = Gallery.build(FakeMatcher(), colours(tmp_path / "p", 100, 0), tmp_path / "g.xr", **SMALL)
    folder = gallery.path / gallery.info["index"]["folder"]
    if damage == "all":
        for file in folder.iterdir():
            file.unlink()
        folder.rmdir()
    else:
        next(folder.glob(f"{damage}.*" if damage != "json" else "index.json")).write_bytes(b"{")
    again = Gallery.open(gallery.path, FakeMatcher())
    with pytest.warns(UserWarning, match=folder.name):
        assert same_as_flat(again)
    assert again.save() == []
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert same_as_flat(Gallery.open(gallery.path, FakeMatcher()))


def test_galleries_of_before_stay_as_they_are(tmp_path):
    gallery = Gallery.build(FakeMatcher(), colours(tmp_path / "p", 30, 0), tmp_path / "g.xr", index="flat")
    assert gallery.info["index"] == {"name": "flat", "options": {}}
    again = Gallery.open(gallery.path, FakeMatcher())
    assert again.add(colours(tmp_path / "q", 5, 1)).notes == [] and again.remove(again.ids[:3]) == []
    assert again.info["index"] == {"name": "flat", "options": {}} and same_as_flat(again)


def test_codes_begin_earlier_than_when_a_gallery_was_built_and_a_search_makes_none(tmp_path, monkeypatch):
    gallery = Gallery.build(FakeMatcher(), colours(tmp_path / "p", 100, 0), tmp_path / "g.xr", codes="binary")
    assert "codes" not in gallery.info["index"]
    monkeypatch.setattr("xretrieve.index.auto.THRESHOLDS", {"pq4": 60, "binary": 60})
    again = Gallery.open(gallery.path, FakeMatcher())
    with monkeypatch.context() as context:
        context.setattr("xretrieve.index.auto.make_codes", None)  # seconds for each process that searches
        assert same_as_flat(again) and same_as_flat(gallery)
    again.add(colours(tmp_path / "q", 1, 1))
    about = again.info["index"]
    assert about["codes"] == "binary" and (again.path / about["folder"]).is_dir()
    for one in (again, Gallery.open(gallery.path, FakeMatcher())):
        assert same_as_flat(one) and one._index._ready().codes == "binary"


def test_a_recall_that_is_asked_for_is_measured_and_kept(tmp_path):
    pytest.importorskip("faiss")
    photos = colours(tmp_path / "p", 120, 0)
    gallery = Gallery.build(FakeMatcher(), photos, tmp_path / "g.xr", index="hnsw", recall=0.99)
    about = gallery.info["index"]
    assert about["target"] == 0.99 <= about["recall"]["value"] and about["chosen"] == {"ef_search": 32}
    assert about["recall"]["kind"] == "moved vectors of the gallery" and about["options"] == {}
    gallery.add(colours(tmp_path / "q", 40, 1))
    assert gallery.info["index"]["rows"] == 160 and gallery.info["index"]["target"] == 0.99, (
        "measured anew, to the same"
    )


def test_a_recall_that_is_missed_is_told_and_the_index_is_exact(tmp_path):
    pytest.importorskip("faiss")
    data = dataset_of(tmp_path / "d", 300)
    with pytest.warns(UserWarning, match=r"index ivfpq finds 0\..* even with nprobe=4, less than 1: the exact"):
        gallery = Gallery.build(FakeMatcher(), data, tmp_path / "g.xr", index="ivfpq", recall=1, pq=1, nlist=4)
    about = json.loads((gallery.path / "gallery.json").read_text())["index"]
    assert about["name"] == "flat" and about["instead_of"]["name"] == "ivfpq" and "nprobe=4" in about["note"]
    assert same_as_flat(gallery) and not list(gallery.path.glob("index-*"))


def test_little_recall_is_told_of_when_none_was_asked_for(tmp_path):
    pytest.importorskip("faiss")
    with pytest.warns(UserWarning, match=r"index ivfpq finds only .*--recall 0.99"):
        Gallery.build(FakeMatcher(), dataset_of(tmp_path / "d", 300), tmp_path / "g.xr", index="ivfpq", pq=1,
                      nlist=40, nprobe=1)  # fmt: skip


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"recall": 99}, "recall is 99; give the share"),
        ({"recall": True}, "recall is True"),
        ({"recall": 0.9, "index": "hnsw", "ef_search": 64}, "recall=0.9 chooses ef_search"),
        ({"recall": 0.9, "rescored": 64}, "recall=0.9 chooses rescored"),
        ({"treshold": 64}, "did you mean 'threshold'"),
    ],
)
def test_what_cannot_be_asked_for_is_said_before_anything_is_encoded(tmp_path, options, message):
    if options.get("index"):
        pytest.importorskip("faiss")
    matcher = FakeMatcher()
    with pytest.raises(XRetrieveError, match=message):
        Gallery.build(matcher, colours(tmp_path / "p", 1, 0), tmp_path / "g.xr", **options)
    assert not matcher.encoded
