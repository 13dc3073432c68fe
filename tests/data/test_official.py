"""Official COCO caption files and lists of regions: what is wrong in them is named by file, image and line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from xretrieve.data.official import official_annotations, region_annotations
from xretrieve.data.picture_index import PictureIndex
from xretrieve.errors import XRetrieveError

IMAGES = [{"id": 7, "file_name": "000000000007.jpg"}, {"id": 3, "file_name": "000000000003.jpg"}]
SAID = [
    {"id": 12, "image_id": 3, "caption": "a cat "},
    {"id": 11, "image_id": 7, "caption": "second"},
    {"id": 10, "image_id": 7, "caption": "first"},
]


def read(folder: Path, content: Any) -> Any:
    path = folder / "captions_val2017.json"
    path.write_text(json.dumps(content), encoding="utf-8")
    return official_annotations("mscoco", "val2017", path, PictureIndex([folder]))


def test_images_keep_the_order_of_the_file_and_captions_that_of_their_ids(tmp_path: Path) -> None:
    (tmp_path / "000000000007.jpg").write_bytes(b"a picture")
    found = read(tmp_path, {"images": IMAGES, "annotations": SAID})
    assert [(r.id, r.captions, r.caption_ids) for r in found.images] == [
        ("7", ["first", "second"], ["10", "11"]),
        ("3", ["a cat"], ["12"]),
    ]
    assert [r.image is not None for r in found.images] == [True, False]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ([], "expected an object with the keys 'images' and 'annotations'"),
        ({"images": IMAGES, "annotations": [*SAID, {"id": 9, "image_id": 3, "caption": " "}]},
         r"annotation 3 \(id 9\) has no text under 'caption'"),
        ({"images": IMAGES, "annotations": SAID[1:]}, "image 3 has no caption; every image needs one"),
        ({"images": IMAGES[:1], "annotations": SAID}, "captions of image 3, which is not in its list of images"),
    ],
)  # fmt: skip
def test_a_broken_caption_file_is_one_sentence_that_names_it(tmp_path: Path, content: Any, said: str) -> None:
    with pytest.raises(XRetrieveError, match=f"captions_val2017.json: {said}"):
        read(tmp_path, content)


def regions(folder: Path, *lines: str) -> Path:
    path = folder / "regions.jsonl"
    path.write_text("\n".join(lines), encoding="utf-8")
    return path


def test_a_list_of_regions_needs_captions_and_names_the_line_that_is_none(tmp_path: Path) -> None:
    good = json.dumps({"image": "val2014/a.jpg", "coco_id": 5, "captions": [" a dog "]})
    found = region_annotations("mscoco", regions(tmp_path, good), PictureIndex([tmp_path]))
    assert [(r.id, r.captions) for r in found.images] == [("5", ["a dog"])]
    empty = json.dumps({"image": "b.jpg", "coco_id": 6, "captions": ["  "]})
    with pytest.raises(XRetrieveError, match="regions.jsonl: image 'b.jpg' has no captions"):
        region_annotations("mscoco", regions(tmp_path, good, empty), PictureIndex([tmp_path]))
    for line in ('{"image": "c.jpg"}', "{", "[]"):
        with pytest.raises(XRetrieveError, match="regions.jsonl: line 2 is no region entry with image and coco_id"):
            region_annotations("mscoco", regions(tmp_path, good, line), PictureIndex([tmp_path]))
