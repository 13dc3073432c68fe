"""Data that are missing are said before anything is trained: the split, what it does, and no folder of this machine."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.data.composed_files import write_shoes
from xretrieve.bench.ready import missing
from xretrieve.training.recipe import DatasetConfig


def test_the_built_in_pictures_are_always_there(tmp_path: Path) -> None:
    assert missing("scenes") == "" and missing(DatasetConfig("scenes", root=str(tmp_path))) == ""


def test_whole_data_lack_nothing(tmp_path: Path) -> None:
    write_shoes(tmp_path)
    assert missing(DatasetConfig("shoes", root=str(tmp_path))) == ""


def test_annotations_without_photos_name_the_split_and_what_that_does(tmp_path: Path) -> None:
    write_shoes(tmp_path, photos=False)
    assert missing(DatasetConfig("shoes", root=str(tmp_path))) == (
        "train: cannot be evaluated: the annotations of 5 images are here but no picture or feature file; "
        "looked in shoes, for example for shoes/img_a_0.jpg"
    )


def test_a_broken_file_is_named_from_the_data_root_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XRETRIEVE_DATA", str(tmp_path))
    folder = write_shoes(tmp_path)
    (folder / "relative_captions_shoes.json").write_text("[{", encoding="utf-8")
    assert "cannot be evaluated: shoes/relative_captions_shoes.json: not valid JSON, line 1" in missing("shoes")
    (folder / "relative_captions_shoes.json").unlink()
    assert missing("shoes").endswith("`xretrieve data check shoes` says what belongs there")


def test_real_photos_can_be_measured(data_root: Path) -> None:
    assert missing(DatasetConfig("flickr8k", root=str(data_root))) == ""
