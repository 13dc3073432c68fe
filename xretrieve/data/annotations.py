"""One split as its annotation files describe it, before anything is left out: every layout is read into this."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from xretrieve.data.base import FeatureRow, Region, RetrievalDataset
from xretrieve.errors import XRetrieveError, unknown

# What public copies call their splits -> our word. COCO's restval joins train, as in every paper since 2014.
SPLITS = {
    "train": "train",
    "restval": "train",
    "val": "val",
    "dev": "val",
    "devall": "val",
    "valid": "val",
    "validation": "val",
    "test": "test",
    "test2016": "test",
    "testall": "test",
}


class NothingFoundError(XRetrieveError):
    """No annotation file at all, which is different from a broken one."""


def canonical_split(split: str) -> str:
    """``train``, ``val`` or ``test`` for any public name of a split.

    >>> canonical_split("test2016"), canonical_split("dev"), canonical_split("restval")
    ('test', 'val', 'train')
    """
    if split not in SPLITS:
        raise unknown("split", str(split), SPLITS)
    return SPLITS[split]


@dataclass
class ImageRecord:
    """One image of the annotations. ``image`` is None where its picture is not on disk, ``sought`` its file's name."""

    id: str
    image: Path | FeatureRow | None
    captions: list[str]
    caption_ids: list[str]
    metadata: dict[str, Any] = field(default_factory=dict)
    regions: list[Region] = field(default_factory=list)
    sought: str = ""


@dataclass
class Annotations:
    """All images of a split with their captions, those without a picture included.

    Args:
        name, split, layout: as in :class:`~xretrieve.data.base.RetrievalDataset`.
        source: the file that the captions were read from, for messages (``archive.zip!member.json`` inside a zip).
        images: in the order of the file, which fixes the galleries and the COCO folds.
        looked_for: places where pictures or features were looked for.
        hint: what else could be done when pictures are missing, one sentence.
        notes: what was left out of the files and why, one sentence each.
    """

    name: str
    split: str
    layout: str
    source: str
    images: list[ImageRecord]
    looked_for: list[str] = field(default_factory=list)
    hint: str = ""
    notes: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        _unique((r.id for r in self.images), "image id", self)
        _unique((c for r in self.images for c in r.caption_ids), "caption id", self)

    @property
    def captions(self) -> list[str]:
        """All captions of the split, also those of images whose picture is absent."""
        return [text for record in self.images for text in record.captions]

    @property
    def missing(self) -> list[str]:
        """Ids of the images whose picture is not on disk."""
        return [record.id for record in self.images if record.image is None]

    @property
    def expected(self) -> str:
        """Where the first missing picture was expected, a half sentence; '' where its name says no file."""
        first = next((record.sought for record in self.images if record.image is None), "")
        return f", for example for {Path(self.looked_for[0]) / first}" if first and self.looked_for else ""

    def trim(self, captions_per_image: int | None) -> Annotations:
        """Keep exactly the first ``captions_per_image`` captions of every image; None keeps all of them."""
        if captions_per_image is None:
            return self
        k = captions_per_image
        if k < 1:
            raise XRetrieveError(f"captions_per_image={k}: give 1 or more, or None for all captions")
        for record in self.images:
            if len(record.captions) < k:
                raise XRetrieveError(
                    f"{self.source}: image {record.id!r} has {len(record.captions)} captions, fewer than "
                    f"captions_per_image={k}; use captions_per_image=None"
                )
        cut = [replace(r, captions=r.captions[:k], caption_ids=r.caption_ids[:k]) for r in self.images]
        return replace(self, images=cut)

    def limit(self, dev_limit: int | None) -> Annotations:
        """Cut the validation split after ``dev_limit`` captions (5,000 in published loaders); others stay whole."""
        if dev_limit is None or self.split != "val":
            return self
        kept, total = [], 0
        for record in self.images:
            total += len(record.captions)
            if total > dev_limit:
                break
            kept.append(record)
        if not kept:
            raise XRetrieveError(f"dev_limit={dev_limit} leaves no image of {self.name}/{self.split}")
        return replace(self, images=kept)

    def first(self, images: int | None) -> Annotations:
        """Only the first so many images of the split, for quick tries; None keeps all."""
        if images is None or images >= len(self.images):
            return self
        if images < 1:
            raise XRetrieveError(f"{self.name}: {self.split}={images}; give the number of images to keep, 1 or more")
        note = f"only the first {images:,} of {len(self.images):,} images, as asked"
        return replace(self, images=self.images[:images], notes=[*self.notes, note])

    def dataset(self) -> RetrievalDataset:
        """The images that are on disk, with their captions; having none is an error that says what was sought."""
        kept = [record for record in self.images if record.image is not None]
        if not kept:
            raise XRetrieveError(
                f"{self.name}/{self.split}: the captions are in {self.source}, but none of its {len(self.images):,} "
                f"images has a picture or features; looked in {'; '.join(self.looked_for)}{self.expected}. "
                f"{self.hint + ' ' if self.hint else ''}`xretrieve data check {self.name}` says where to get them"
            )
        return RetrievalDataset(
            name=self.name,
            split=self.split,
            image_ids=[r.id for r in kept],
            images=[r.image for r in kept if r.image is not None],
            captions=[text for r in kept for text in r.captions],
            caption_ids=[cid for r in kept for cid in r.caption_ids],
            owner=np.repeat(np.arange(len(kept)), [len(r.captions) for r in kept]),
            expected_images=len(self.images),
            layout=self.layout,
            metadata=[r.metadata for r in kept],
            regions=[r.regions for r in kept] if any(r.regions for r in kept) else [],
            notes=list(self.notes),
        )


def _unique(ids: Iterator[str], what: str, where: Annotations) -> None:
    seen: set[str] = set()
    for one in ids:
        if one in seen:
            raise XRetrieveError(f"{where.source}: {what} {one!r} occurs twice in split {where.split}; make ids unique")
        seen.add(one)
