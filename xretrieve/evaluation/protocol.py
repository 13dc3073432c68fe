"""A protocol: the exact rule behind a number."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from xretrieve.errors import XRetrieveError, unknown
from xretrieve.evaluation.ranks import TIE_RULES

CAPTIONS = {"all": None, "first": 1, "five": 5}  # caption modes: how many of an image's captions take part
COCO = ("coco-5k", "coco-1k")


@dataclass(frozen=True)
class Protocol:
    """How image-caption scores become metrics.

    Args:
        name: what tables print.
        gallery: the number of images that the split must have; None takes any.
        folds: metrics are averaged over this many galleries of consecutive images.
        captions: ``all`` (each caption is a query), ``first`` or ``five`` (only the first caption, or the first five,
            of each image exist).
        ties: ``expected``, ``optimistic`` or ``pessimistic``.
        ks: the K of R@K; rsum adds them in both directions.
        about: one line for lists.
        task: which evaluation reads it; later tasks register their own subclasses.
    """

    name: str
    gallery: int | None = None
    folds: int = 1
    captions: str = "all"
    ties: str = "expected"
    ks: tuple[int, ...] = (1, 5, 10)
    about: str = ""
    task: str = "image_text"

    def __post_init__(self) -> None:
        object.__setattr__(self, "ks", tuple(self.ks))
        if self.ties not in TIE_RULES:
            raise unknown("tie rule", self.ties, TIE_RULES)
        if self.captions not in CAPTIONS:
            raise unknown("caption mode", self.captions, CAPTIONS)

    def check(self, images: int, coverage: float = 1.0) -> list[str]:
        """Warnings to print beside the numbers; an error when the split does not fit the protocol.

        A split of another size is refused, unless it says itself that images are missing (coverage < 1).
        """
        warnings = []
        if coverage < 1:
            warnings.append(
                f"only {100 * coverage:.4g} % of the split's images are here; a smaller gallery makes recalls higher"
            )
        if self.gallery is not None and images != self.gallery and coverage >= 1:
            raise XRetrieveError(
                f"protocol {self.name!r} ranks {self.gallery} images, this split has {images}; "
                "use the protocol 'full', which takes the whole split at once"
            )
        if images % self.folds:
            raise XRetrieveError(
                f"protocol {self.name!r} needs {self.folds} folds of equal size, {images} images cannot be cut so; "
                "use the protocol 'full'"
            )
        return warnings

    def columns(self, owner: np.ndarray) -> np.ndarray | None:
        """The caption columns that take part (C',), or None for all of them."""
        most = CAPTIONS[self.captions]
        if most is None:
            return None
        order = np.argsort(owner, kind="stable")
        first = np.searchsorted(owner[order], owner[order])  # where each image's captions begin
        return np.sort(order[np.arange(len(owner)) - first < most])

    def told(self, dataset: str, images: int, captions: int) -> list[str]:
        """What else must be said of the captions: COCO's test is printed with all of them and with five an image."""
        if self.name not in COCO or images != 5000 or "coco" not in dataset or captions == 5 * images:
            return []
        return [f"{captions:,} captions, all of the file; many papers print 25,000, the first five of each image: "
                f"protocol {self.name}-25000"]  # fmt: skip
