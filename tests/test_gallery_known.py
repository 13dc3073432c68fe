"""What is known of pictures: names however they are coded, metadata, and what a search says of itself."""

from __future__ import annotations

import pytest

import xretrieve as xr
from tests.gallery_fakes import COLOURS, FakeMatcher, paint
from tests.test_gallery import dataset_of
from xretrieve.errors import XRetrieveError
from xretrieve.gallery import Gallery


def test_filters_and_ids_take_a_name_however_it_is_coded(tmp_path):
    apart, together = "cafe\u0301", "caf\u00e9"
    for folder, other in ((apart, together), (together, apart)):
        paint(tmp_path / folder / folder / "a.png", COLOURS["red"])
        gallery = Gallery.build(FakeMatcher(), tmp_path / folder, tmp_path / f"{folder}.xr")
        gallery.add([tmp_path / folder / folder / "a.png"], metadata=[{f"jahr {apart}": [other, "x"]}])
        for where in ({"folder": other}, {"folder": [other, "y"]}, {f"jahr {together}": folder}):
            assert len(gallery.search("red", where=where)) == 1, where
        assert gallery.picture(f"{other}/a.png").is_file() and gallery.explain("red", f"{other}/a.png")


def test_what_is_known_of_each_picture_is_kept_and_searched_by(tmp_path):
    paths = [paint(tmp_path / "p" / f"{name}.png", colour) for name, colour in COLOURS.items()]
    gallery = Gallery.build(FakeMatcher(), paths[:1], tmp_path / "g.xr")
    years = [{"year": "2021", "number": n} for n in range(len(paths))]
    gallery.add(paths, metadata=years)  # the first is there already
    for opened in (gallery, Gallery.open(gallery.path, FakeMatcher())):
        assert len(opened) == len(opened.search("red", k=99, where={"year": "2021"})) == len(paths)
        for n, path in enumerate(paths):
            assert opened.search("red", where={"number": n}).ids == [path.name]
    for wrong in ([{"year": 1}], [{"paths": []}] * len(paths), ["x"] * len(paths), [{"x": {1}}] * len(paths),
                  [{"x": float("nan")}] * len(paths)):  # fmt: skip
        with pytest.raises(XRetrieveError, match="metadata"):
            gallery.add(paths, metadata=wrong)
    with pytest.raises(XRetrieveError, match="metadata needs a list of files"):
        gallery.add(tmp_path / "p", metadata=years)


def test_a_text_that_the_model_cuts_is_told(tmp_path):
    class Short(FakeMatcher):
        class text:  # noqa: N801
            @staticmethod
            def cut(items):
                return [(min(5, len(item.split())), len(item.split())) for item in items]

    paint(tmp_path / "p" / "a.png", COLOURS["red"])
    gallery = Gallery.build(Short(), tmp_path / "p", tmp_path / "g.xr")
    said = "the text has 9 tokens and the model reads 5: the rest was cut; say it shorter, or as several texts"
    assert gallery.search("red " * 9, 1).note == said
    assert gallery.search("red", 1).note == ""
    assert "one has 7 tokens" in gallery.search(xr.MultiText(["red", "red " * 7]), 1).note


def test_an_approximate_index_that_finds_too_few_is_not_believed(tmp_path):
    pytest.importorskip("faiss")
    data = dataset_of(tmp_path / "d", 300)
    exact = Gallery.build(FakeMatcher(), data, tmp_path / "exact.xr")
    gallery = Gallery.build(FakeMatcher(), data, tmp_path / "g.xr", index="ivfpq", pq=1, nlist=30, nprobe=1)
    some = {"split": "test"}
    for where, k in ((None, 300), (None, 1000), (some, 300)):
        found, best = gallery.search("blue", k=k, where=where), exact.search("blue", k=k, where=where)
        assert sorted(found.ids) == sorted(best.ids) and found.note == best.note
    gallery.remove(data.image_ids[:7])
    assert sorted(gallery.search("blue", k=300).ids) == sorted(data.image_ids[7:])
