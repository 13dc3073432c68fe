"""Flickr30K: 31,014 photos with five captions each (Young et al., TACL 2014)."""

from __future__ import annotations

from pathlib import Path

from xretrieve.data.annotations import Annotations
from xretrieve.data.base import RetrievalDataset
from xretrieve.data.classic import Classic

CLASSIC = Classic(
    name="flickr30k",
    json_name="dataset_flickr30k.json",
    folders=("flickr30k",),
    pictures=("images", "flickr30k-images", "flickr30k_images"),
    precomp=("f30k_precomp", "flickr30k_precomp"),
    borrow={"flickr8k": ("flickr8k", "flickr8k_filename")},
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

    ``photos="flickr8k"`` takes the Flickr8k photos where the annotation file names them (``flickr8k_filename``, 243 of
    the 1,000 test images): a smaller and easier gallery, as the coverage says, and some of its photos are in Flickr8k's
    training split, so it is no test for a model trained there.

    Raises:
        XRetrieveError: no captions or no pictures, with what was looked for; broken files.
    """
    return annotations(
        root, split, layout, captions_per_image=captions_per_image, dev_limit=dev_limit, photos=photos
    ).dataset()
