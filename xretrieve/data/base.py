"""What every dataset gives: images, captions, and which caption belongs to which image."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np

from xretrieve.errors import XRetrieveError


@dataclass(frozen=True)
class FeatureRow:
    """One image given as a row of a precomputed ``*_ims.npy`` file (R x F region features)."""

    path: Path
    row: int


@dataclass(frozen=True)
class Region:
    """A labelled box: x, y, w, h in pixels of the stored picture, and what is said of it."""

    box: tuple[float, float, float, float]
    text: str


@dataclass(frozen=True)
class Triplet:
    """A composed query: row of the reference image, the modification texts, row of the target image.

    Args:
        reference: row of the reference image.
        texts: at least one modification text; what several of them mean is the caption mode's business.
        target: row of the target image; None where the annotations hide it.
        kind: kind of edit (``colour``, ``add`` ...), empty where none is known.
        id: of the query, unique in its split; empty ones are numbered.
        category: the queries of a category share galleries (Fashion-IQ: ``dress``).
        positives: rows of all images that fit the edit, the target among them; empty where only the target is known.
        members: rows of the query's own small gallery (CIRR), reference and target among them.
        extra: what else is known of it, by name (``old``, ``new``, ``same_model`` ...).
    """

    reference: int
    texts: tuple[str, ...]
    target: int | None
    kind: str = ""
    id: str = ""
    category: str = ""
    positives: tuple[int, ...] = ()
    members: tuple[int, ...] = ()
    extra: dict[str, Any] = field(default_factory=dict, compare=False)


@dataclass
class RetrievalDataset:
    """One split of one dataset, images stored once.

    Args:
        name: dataset name, for example ``flickr8k``.
        split: ``train``, ``val`` or ``test``.
        image_ids: (N,) stable ids (file name or number as text), unique.
        images: (N,) paths or :class:`FeatureRow`; what an image backbone's ``prepare`` takes.
        captions: (C,) caption texts as written.
        caption_ids: (C,) stable ids, unique.
        owner: (C,) int64, the row in ``images`` that each caption belongs to (any owner map, not only c // 5).
        expected_images: images of the full split by its annotations; images absent on disk are left out of
            ``images``, with their captions, so coverage = N / expected_images.
        layout: ``karpathy``, ``precomp`` or ``scenes``.
        metadata: (N,) one dict per image, used by gallery filters; may be empty dicts.
        regions: (N,) labelled boxes per image, for multi-query and explanations; empty when there are none.
        triplets: composed queries over the rows of ``images``; empty when there are none.
        turns: which sentences are an image's query turns (:mod:`xretrieve.data.turns`): its ``captions``, or what is
            said of its ``regions``.
        notes: what the loader left out and why, one sentence each, for checks and reports.
    """

    name: str
    split: str
    image_ids: list[str]
    images: Sequence[Path | FeatureRow]
    captions: list[str]
    caption_ids: list[str]
    owner: np.ndarray
    expected_images: int
    layout: str
    metadata: list[dict[str, Any]] = field(default_factory=list)
    regions: list[list[Region]] = field(default_factory=list)
    triplets: list[Triplet] = field(default_factory=list)
    turns: Literal["captions", "regions"] = "captions"
    notes: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.owner = np.asarray(self.owner, dtype=np.int64)
        n, c = len(self.image_ids), len(self.captions)
        if not (len(self.images) == n and len(self.caption_ids) == c == len(self.owner)):
            raise XRetrieveError(
                f"{self.name}/{self.split}: {n} ids, {len(self.images)} images, {c} captions, "
                f"{len(self.caption_ids)} caption ids and {len(self.owner)} owners do not fit together"
            )
        if c and (self.owner.min() < 0 or self.owner.max() >= n):
            raise XRetrieveError(f"{self.name}/{self.split}: a caption's owner is outside the {n} images")
        if not self.metadata:
            self.metadata = [{} for _ in range(n)]

    def __len__(self) -> int:
        """Number of images."""
        return len(self.image_ids)

    @property
    def coverage(self) -> float:
        """Share of the split's images that are here, 0 to 1."""
        return len(self) / self.expected_images if self.expected_images else 0.0

    def captions_of(self, row: int) -> list[str]:
        """The captions of one image."""
        return [self.captions[c] for c in np.flatnonzero(self.owner == row)]
