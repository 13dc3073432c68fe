"""Named protocols: the exact rule behind a number."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from xretrieve.errors import XRetrieveError, unknown
from xretrieve.evaluation.ranks import TIE_RULES


@dataclass(frozen=True)
class Protocol:
    """How image-caption scores become metrics.

    Args:
        name: what tables print.
        gallery: the number of images that the split must have; None takes any.
        folds: metrics are averaged over this many galleries of consecutive images.
        captions: ``all`` (each caption is a query) or ``first`` (only the first caption of each image exists).
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
        if self.captions not in ("all", "first"):
            raise unknown("caption mode", self.captions, ("all", "first"))

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
        return None if self.captions == "all" else np.sort(np.unique(owner, return_index=True)[1])


_PROTOCOLS: dict[str, Protocol] = {}


def register_protocol(protocol: Protocol) -> Protocol:
    """Add a protocol to the table; a name that is taken is an error."""
    if protocol.name in _PROTOCOLS:
        raise XRetrieveError(f"protocol {protocol.name!r} exists already")
    _PROTOCOLS[protocol.name] = protocol
    return protocol


register_protocol(
    Protocol("flickr-1k", gallery=1000, about="Flickr8k / Flickr30K test: 1,000 images with their captions at once")
)
register_protocol(Protocol("coco-5k", gallery=5000, about="COCO 5K: 5,000 images with their captions at once"))
register_protocol(
    Protocol("coco-1k", gallery=5000, folds=5, about="COCO 1K: five folds of 1,000 consecutive images, averaged")
)
register_protocol(Protocol("full", about="the whole split at once, any dataset and any size"))


def get_protocol(protocol: str | Protocol | None, dataset: str = "", images: int = 0) -> Protocol:
    """The protocol of this name; None picks the usual one for a dataset and number of images, else ``full``.

    >>> get_protocol("coco-1k").folds, get_protocol(None, "flickr8k", 1000).name, get_protocol(None, "scenes", 300).name
    (5, 'flickr-1k', 'full')
    """
    if isinstance(protocol, Protocol):
        return protocol
    if protocol is None:
        usual = (
            (dataset.startswith("flickr") and images == 1000, "flickr-1k"),
            ("coco" in dataset and images == 5000, "coco-5k"),
        )
        protocol = next((name for fits, name in usual if fits), "full")
    if protocol not in _PROTOCOLS:
        raise unknown("protocol", protocol, _PROTOCOLS)
    return _PROTOCOLS[protocol]


def list_protocols(task: str = "") -> list[str]:
    """Names of the protocols, of one task or of all.

    >>> list_protocols("image_text")
    ['coco-1k', 'coco-5k', 'flickr-1k', 'full']
    """
    return sorted(name for name, protocol in _PROTOCOLS.items() if task in ("", protocol.task))
