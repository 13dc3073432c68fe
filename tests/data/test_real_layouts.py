"""Every adapter over the real files of the data root: what loads is whole, what does not says why."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from xretrieve.data import datasets
from xretrieve.data.base import RetrievalDataset
from xretrieve.data.check import check
from xretrieve.errors import XRetrieveError


def consistent(data: RetrievalDataset) -> None:
    assert len(set(data.image_ids)) == len(data) and len(set(data.caption_ids)) == len(data.captions)
    assert set(data.owner.tolist()) == set(range(len(data)))  # every image has a caption, every caption an owner
    assert (np.diff(data.owner) >= 0).all()
    assert all(text == text.strip() and text and not text.startswith("b'") for text in data.captions)
    assert all(Path(str(image)).stat().st_size for image in data.images)


@pytest.mark.parametrize("split", ["train", "val", "test"])
def test_flickr8k_loads_whole(data_root: Path, split: str) -> None:
    data = datasets.load("flickr8k", data_root, split)
    consistent(data)
    assert data.coverage == 1 and data.metadata[0] == {"split": split, "filename": data.image_ids[0]}


def test_coco_val2017_loads_its_photos_with_boxes(data_root: Path) -> None:
    data = datasets.load("mscoco", data_root, "val2017")
    consistent(data)
    assert (len(data), data.expected_images, data.layout) == (208, 5000, "official")
    assert len(data.regions) == 208 and any(data.regions)
    same = datasets.load("mscoco", data_root, "val", layout="official")
    assert same.image_ids == data.image_ids and same.split == "val2017"


def test_coco_images_keep_six_or_seven_captions_unless_trimmed(data_root: Path) -> None:
    whole = datasets.annotations("mscoco", data_root, "val2017")
    five = datasets.annotations("mscoco", data_root, "val2017", captions_per_image=5)
    assert whole is not None and five is not None
    assert (len(whole.images), len(whole.captions), len(five.captions)) == (5000, 25014, 25000)


def test_coco_regions_are_all_there_and_inside_their_pictures(data_root: Path) -> None:
    from PIL import Image

    data = datasets.load("mscoco", data_root, "regions")
    consistent(data)
    assert (len(data), sum(map(len, data.regions)), sum(map(bool, data.regions))) == (338, 2173, 255)
    for image, regions in list(zip(data.images, data.regions, strict=True))[:20]:
        with Image.open(image) as picture:  # type: ignore[arg-type]
            width, height = picture.size
        assert all(x + w <= width + 1 and y + h <= height + 1 for x, y, w, h in (r.box for r in regions))


@pytest.mark.parametrize(
    ("name", "split", "layout", "images", "captions"),
    [
        ("flickr30k", "val", "precomp", 1014, 5070),
        ("flickr30k", "test", "precomp", 1000, 5000),
        ("mscoco", "val", "precomp", 1000, 5000),
        ("mscoco", "testall", "precomp", 5000, 25000),
        ("flickr30k", "train", "karpathy", 29000, 145000),
    ],
)
def test_captions_alone_are_read_and_the_missing_pictures_named(
    data_root: Path, name: str, split: str, layout: str, images: int, captions: int
) -> None:
    read = datasets.annotations(name, data_root, split, layout)
    assert read is not None and (len(read.images), len(read.captions)) == (images, captions)
    with pytest.raises(XRetrieveError, match="none of its .* images has a picture or features; looked in"):
        datasets.load(name, data_root, split, layout)


def test_words_per_caption_are_those_of_the_literature(data_root: Path) -> None:
    """White-space words: Flickr30K test mean 13.5 and max 75, COCO 5K test mean 11.3 and max 50 (precomp files)."""
    for name, split, mean, most in (("flickr30k", "test", 13.5, 75), ("mscoco", "test", 11.3, 50)):
        found = check(name, data_root, split, layout="precomp").splits[0]
        assert round(found.words_mean, 1) == mean and found.words_max == most


def test_both_layouts_of_flickr30k_hold_the_same_test_images(data_root: Path) -> None:
    karpathy = datasets.annotations("flickr30k", data_root, "test", "karpathy")
    precomp = datasets.annotations("flickr30k", data_root, "test", "precomp")
    assert karpathy is not None and precomp is not None
    assert {r.id for r in karpathy.images} == {r.metadata["filename"] for r in precomp.images}


def test_the_check_without_a_split_finds_the_extra_splits_that_are_there(data_root: Path) -> None:
    report = check("mscoco", data_root)
    assert [s.split for s in report.splits] == ["train", "val", "test", "val2017", "regions"]
    assert [s.usable for s in report.splits] == [False, False, False, True, True] and not report.ok
