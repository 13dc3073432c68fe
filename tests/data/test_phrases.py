"""Phrases of one's own: grouping, order, splits, photos, and lines that are wrong."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

import xretrieve as xr
from xretrieve.data import datasets
from xretrieve.data.check import check
from xretrieve.errors import XRetrieveError

LINES: list[dict[str, Any]] = [
    {"image": "b.png", "phrase": "A red bus", "bbox": [1, 2, 30, 20]},
    {"image": "a/c", "phrase": "a boat"},
    {"image": "b.png", "phrase": "tall tree", "bbox": [0, 0, 5, 5.5]},
    {"image_id": 7, "phrase": "a dog"},
    {"image": "b.png", "phrase": "a RED bus", "bbox": [9, 9, 9, 9]},
    {"vg_image_id": 7, "phrase": "snow"},
]


def write(root: Path, lines: list[Any], photos: tuple[str, ...] = ("b.png", "7.jpg", "a/c")) -> Path:
    folder = root / "phrases"
    (folder / "images/a").mkdir(parents=True, exist_ok=True)
    (folder / "phrases.jsonl").write_text("\n".join(x if isinstance(x, str) else json.dumps(x) for x in lines) + "\n")
    for name in photos:
        Image.new("RGB", (40, 30)).save(folder / "images" / name, format="PNG")
    return folder


def test_phrases_are_grouped_by_image_in_file_order_without_repeats(tmp_path: Path) -> None:
    write(tmp_path, LINES)
    data = xr.datasets.load("phrases", tmp_path)
    assert data.image_ids == ["b.png", "a/c", "7"]
    assert data.captions == ["a red bus", "tall tree", "a boat", "a dog", "snow"]
    assert [r.box for r in data.regions[0]] == [(1, 2, 30, 20), (0, 0, 5, 5.5)] and data.regions[1:] == [[], []]
    assert [Path(str(p)).name for p in data.images] == ["b.png", "c", "7.jpg"]


def test_images_with_too_few_phrases_are_left_out_and_counted(tmp_path: Path) -> None:
    write(tmp_path, LINES)
    data = xr.datasets.load("phrases", tmp_path, min_turns=2)
    assert data.image_ids == ["b.png", "7"] and data.coverage == 1
    assert data.notes == ["1 of 3 images are left out: fewer than min_turns=2 distinct phrases"]
    with pytest.raises(XRetrieveError, match="no image has min_turns=3 distinct phrases; the most is 2"):
        xr.datasets.load("phrases", tmp_path, min_turns=3)


def test_missing_photos_lower_the_coverage(tmp_path: Path) -> None:
    write(tmp_path, LINES, ("7.jpg",))
    data = xr.datasets.load("phrases", tmp_path)
    assert data.image_ids == ["7"] and data.coverage == pytest.approx(1 / 3)


def test_splits_come_from_a_key_of_the_lines_or_all_is_test(tmp_path: Path) -> None:
    write(tmp_path, [{**line, "part": split} for line, split in zip(LINES, ["val", "train"] * 3, strict=True)])
    assert xr.datasets.load("phrases", tmp_path, "val", split_key="part").captions == ["a red bus", "tall tree"]
    with pytest.raises(XRetrieveError, match=r"no phrase of this split \(its lines name other splits\)"):
        xr.datasets.load("phrases", tmp_path, "test", split_key="part")
    with pytest.raises(XRetrieveError, match="no line has the key 'split', so all of them are test"):
        xr.datasets.load("phrases", tmp_path, "train")
    assert len(xr.datasets.load("phrases", tmp_path)) == 3


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("{", "line 7 is not valid JSON"),
        ("[1]", "line 7 is no JSON object"),
        ({"phrase": "x"}, "line 7 names no image"),
        ({"image": "b.png", "phrase": " "}, "line 7 has no text under 'phrase'"),
        ({"image": "b.png", "phrase": "x", "bbox": [1, 2, 3]}, r"line 7: bbox \[1, 2, 3\] must be"),
        ({"image": "b.png", "phrase": "x", "split": "tets"}, "line 7: .*did you mean 'test'"),
    ],
)
def test_a_wrong_line_is_named(tmp_path: Path, line: Any, said: str) -> None:
    write(tmp_path, [*LINES, line])
    with pytest.raises(XRetrieveError, match=said) as error:
        xr.datasets.load("phrases", tmp_path)
    assert "phrases.jsonl" in str(error.value)


def test_a_file_and_photos_can_be_given(tmp_path: Path) -> None:
    folder = write(tmp_path / "elsewhere", LINES)
    options = {"file": str(folder / "phrases.jsonl"), "photos": str(folder / "images")}
    assert len(xr.datasets.load("phrases", tmp_path, **options)) == 3
    with pytest.raises(XRetrieveError, match="phrases: no file; looked for nope.jsonl"):
        xr.datasets.load("phrases", tmp_path, file="nope.jsonl")
    with pytest.raises(XRetrieveError, match="photos='nope': no such folder"):
        xr.datasets.load("phrases", tmp_path, **{**options, "photos": "nope"})


def test_check_says_what_is_there(tmp_path: Path) -> None:
    write(tmp_path, LINES)
    report = check("phrases", tmp_path, min_turns=2)
    assert [s.split for s in report.splits] == ["test"] and report.ok
    assert report.splits[0].regions == 2 and "1 of 3 images are left out" in report.splits[0].notes[0]


def test_the_real_phrases_are_read(data_root: Path) -> None:
    if not (data_root / "visual_genome/region_phrases.jsonl").is_file():
        pytest.skip("no region_phrases.jsonl there")
    splits = ("train", "val", "test")
    read = [datasets.annotations("phrases", data_root, s, split_key="drilldown_split") for s in splits]
    captions = [len(found.captions) for found in read if found is not None]
    assert captions == [28058, 1544, 3307]
    assert all(text == text.lower() for text in read[2].captions)  # type: ignore[union-attr]
