"""MS-COCO captions: 123,287 photos (Lin et al., ECCV 2014; Chen et al., arXiv 1504.00325)."""

from __future__ import annotations

from pathlib import Path

from xretrieve.data.annotations import Annotations
from xretrieve.data.base import RetrievalDataset
from xretrieve.data.classic import COCO_STEMS, Classic

CLASSIC = Classic(
    name="mscoco",
    json_name="dataset_coco.json",
    folders=("coco", "mscoco"),
    pictures=(
        "train2014", "val2014", "images/train2014", "images/val2014",
        "train2017", "val2017", "images/train2017", "images/val2017", "images",
    ),
    precomp=("coco_precomp",),
    stems=COCO_STEMS,
    coco=True,
)


def annotations(
    root: str | Path | None,
    split: str,
    layout: str | None = None,
    *,
    captions_per_image: int | None = None,
    dev_limit: int | None = None,
    photos: str | None = None,
) -> Annotations:
    """All captions of a split, whether or not its pictures are on disk; arguments as in :meth:`Classic.annotations`."""
    return CLASSIC.annotations(
        root, split, layout, captions_per_image=captions_per_image, dev_limit=dev_limit, photos=photos
    )


def load(
    root: str | Path | None,
    split: str,
    layout: str | None = None,
    *,
    captions_per_image: int | None = None,
    dev_limit: int | None = None,
    photos: str | None = None,
) -> RetrievalDataset:
    """The images of a split that are on disk, with their captions. Arguments as in :meth:`Classic.annotations`.

    Besides train, val and test (Karpathy; 5,000 images in test, whose 1K figures are five folds) it reads the official
    files as splits ``train2017``, ``val2017``, ``train2014``, ``val2014``, with boxes from ``regions.jsonl`` when it
    lies beside them, and ``regions``: the photos of that file alone. ``captions_per_image=5`` gives the precomp counts.

    Raises:
        XRetrieveError: no captions or no pictures, with what was looked for; broken files.
    """
    return annotations(
        root, split, layout, captions_per_image=captions_per_image, dev_limit=dev_limit, photos=photos
    ).dataset()
