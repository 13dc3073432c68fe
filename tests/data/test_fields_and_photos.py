"""Annotation files and photos as people have them: odd fields and encodings, other folders, other suffixes."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.data.composed_files import dump, photo, write_cirr, write_fashion_iq, write_shoes
from xretrieve.data import cirr, datasets, fashion_iq, shoes
from xretrieve.data.check import check
from xretrieve.errors import XRetrieveError


def change(path: Path, edit: Any) -> None:
    value = json.loads(path.read_text())
    edit(value)
    dump(path, value)


CAPTIONS = {
    "fashion_iq": ("captions/cap.dress.val.json", "captions", lambda root: fashion_iq.annotations(root, "val")),
    "cirr": ("captions/cap.rc2.val.json", "caption", lambda root: cirr.annotations(root, "val")),
    "shoes": ("relative_captions_shoes.json", "RelativeCaption", lambda root: shoes.annotations(root, "test")),
}
WRITE = {"fashion_iq": write_fashion_iq, "cirr": write_cirr, "shoes": write_shoes}


@pytest.mark.parametrize("name", CAPTIONS)
def test_a_caption_field_is_read_as_what_it_is_or_named(name: str, tmp_path: Path) -> None:
    file, key, read = CAPTIONS[name]
    folder = WRITE[name](tmp_path)
    entry = len(json.loads((folder / file).read_text())) - 1
    for value, texts in (("is red", ("is red",)), (["is red"], ("is red",)), (["is", "it's"], ("is", "it's"))):
        change(folder / file, lambda rows, value=value: rows[entry].update({key: value}))
        assert texts in [query.texts for query in read(tmp_path).queries]
    for value in (None, 7, {"a": 1}, [], [None], [["is"]], True):
        change(folder / file, lambda rows, value=value: rows[entry].update({key: value}))
        with pytest.raises(XRetrieveError, match=rf"{Path(file).name}, entry {entry}: '{key}'") as caught:
            read(tmp_path)
        assert "None' " not in str(caught.value) and len(str(caught.value)) < 400


@pytest.mark.parametrize("name", CAPTIONS)
@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_annotation_files_of_windows_are_read(name: str, encoding: str, tmp_path: Path) -> None:
    read = CAPTIONS[name][2]
    folder = WRITE[name](tmp_path)
    before = read(tmp_path)
    for path in [*folder.rglob("*.json"), *folder.rglob("*.txt")]:
        path.write_bytes(path.read_text(encoding="utf-8").replace("\n", "\r\n").encode(encoding))
    after = read(tmp_path)
    assert [r.id for r in after.images] == [r.id for r in before.images] and after.queries == before.queries
    for path in [*folder.rglob("*.json"), *folder.rglob("*.txt")]:
        path.write_bytes(b'["caf\xe9"]')
    with pytest.raises(XRetrieveError, match=r"is not UTF-8 text \(byte 0xe9\)"):
        read(tmp_path)


def karpathy(root: Path, **entry: Any) -> Path:
    base = {"filename": "a.jpg", "split": "test", "sentences": [{"raw": "a dog", "sentid": 1}]}
    dump(root / "flickr8k" / "dataset_flickr8k.json", {"images": [base | entry]})
    return root / "flickr8k"


def test_karpathy_sentences_may_be_texts_and_other_fields_are_named(tmp_path: Path) -> None:
    for said in ("a dog", ["a dog"], [{"raw": "a dog"}]):
        photo(karpathy(tmp_path, sentences=said) / "images" / "a.jpg")
        assert datasets.load("flickr8k", tmp_path).captions == ["a dog"]
    photo(karpathy(tmp_path, filename=7) / "images" / "7.png")
    assert datasets.load("flickr8k", tmp_path).image_ids == ["7"], "a number is a name too"
    for entry in ({"filename": None}, {"filename": 1.5}, {"sentences": None}, {"sentences": [None]},
                  {"sentences": [{"raw": 3}]}, {"split": ["test"]}, {"split": None}):  # fmt: skip
        karpathy(tmp_path, **entry)
        with pytest.raises(XRetrieveError, match="dataset_flickr8k.json: image"):
            datasets.load("flickr8k", tmp_path)


@pytest.mark.parametrize("there", ["a.JPG", "a.webp", "a.png", "sub/a.jpg"])
def test_karpathy_photos_with_another_suffix_or_a_path_in_their_name_are_found(there: str, tmp_path: Path) -> None:
    names = ["a.jpg", "x/y/a.jpg"] if "/" not in there else [there]
    for name in names:
        folder = karpathy(tmp_path, filename=name)
        photo(folder / "images" / Path(there).with_suffix(".png"))
        (folder / "images" / Path(there).with_suffix(".png")).rename(folder / "images" / there)
        (found,) = datasets.load("flickr8k", tmp_path).images
        assert found == folder / "images" / there


def test_photos_of_fashion_iq_may_be_sorted_by_category(tmp_path: Path) -> None:
    folder = write_fashion_iq(tmp_path)
    whole = len(fashion_iq.load(tmp_path, "val"))
    for path in list((folder / "images").iterdir()):
        target = folder / "images" / path.name.split("-")[0] / path.with_suffix(".JPG").name
        target.parent.mkdir(exist_ok=True)
        path.rename(target)
    assert len(fashion_iq.load(tmp_path, "val")) == whole > 10


def test_photos_of_cirr_may_be_flat_or_nested(tmp_path: Path) -> None:
    folder = write_cirr(tmp_path)
    listed = json.loads((folder / "image_splits" / "split.rc2.val.json").read_text())
    whole = len(cirr.load(tmp_path, "val"))
    for name, place in listed.items():
        path = folder / place
        if path.is_file():
            (folder / "img_raw" / "flat").mkdir(parents=True, exist_ok=True)
            path.rename(folder / "img_raw" / "flat" / path.name)
            assert name
    assert len(cirr.load(tmp_path, "val")) == whole > 1
    shutil.move(folder / "img_raw" / "flat", tmp_path / "photos")
    assert len(cirr.load(tmp_path, "val", photos=str(tmp_path / "photos"))) == whole


def test_where_a_missing_photo_was_expected_is_shown(tmp_path: Path) -> None:
    folder = karpathy(tmp_path)
    with pytest.raises(XRetrieveError, match=f"for example for {folder}/.*a.jpg"):
        datasets.load("flickr8k", tmp_path)
    assert "a.jpg" in check("flickr8k", tmp_path, "test").splits[0].effect
    write_cirr(tmp_path, photos=False)
    with pytest.raises(XRetrieveError, match=r"for example for .*dev"):
        cirr.load(tmp_path, "val")
