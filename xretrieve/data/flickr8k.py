"""Flickr8k: 8,000 photos with five captions each (Hodosh, Young and Hockenmaier, JAIR 2013)."""

from __future__ import annotations

from pathlib import Path

from xretrieve.data.annotations import Annotations
from xretrieve.data.base import RetrievalDataset
from xretrieve.data.classic import Classic

CLASSIC = Classic(
    name="flickr8k",
    json_name="dataset_flickr8k.json",
    folders=("flickr8k",),
    pictures=("images", "Flicker8k_Dataset", "Flickr8k_Dataset"),  # the official archive spells it Flicker8k
    precomp=("f8k_precomp", "flickr8k_precomp"),
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

    Raises:
        XRetrieveError: no captions or no pictures, with what was looked for; broken files.
    """
    return annotations(
        root, split, layout, captions_per_image=captions_per_image, dev_limit=dev_limit, photos=photos
    ).dataset()
