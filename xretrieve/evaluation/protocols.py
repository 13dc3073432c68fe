"""Named protocols: the exact rule behind a number."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

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


@dataclass(frozen=True)
class RoundsProtocol(Protocol):
    """How the scores of query sets after each round become metrics; every set is ranked against the whole gallery.

    Args:
        turns: T, sentences that a set is cut to and rounds that are measured; None takes the longest set's, at most 10.
        order: which sentences those are, in words.
        also: further sizes of the gallery that are taken (a validation split).
    """

    turns: int | None = None
    order: str = "in stored order"
    also: tuple[int, ...] = ()
    task: str = "multi_query"

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "also", tuple(self.also))
        if self.folds != 1 or self.captions != "all":
            raise XRetrieveError(f"protocol {self.name!r}: query sets are ranked in one gallery, without folds")
        if self.turns is not None and self.turns < 1:
            raise XRetrieveError(f"protocol {self.name!r}: turns={self.turns}; write 1 or more")

    def check(self, images: int, coverage: float = 1.0) -> list[str]:
        """As :meth:`Protocol.check`."""
        if images in self.also:
            return []
        try:
            return super().check(images, coverage)
        except XRetrieveError as error:
            raise XRetrieveError(str(error).replace("'full', which takes", "'rounds', which takes")) from None

    def rounds(self, longest: int) -> int:
        """T for query sets of at most ``longest`` sentences; fewer than the protocol asks for is an error."""
        if self.turns is None:
            return min(longest, LONGEST)
        if longest < self.turns:
            raise XRetrieveError(
                f"protocol {self.name!r} has {self.turns} rounds, but no query set has more than {longest} sentences; "
                "use the protocol 'rounds', which takes as many as there are"
            )
        return self.turns


LONGEST = 10  # rounds where neither the protocol nor the data give a number
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
register_protocol(
    Protocol("coco-5k-25000", gallery=5000, captions="five", about="COCO 5K with the first five captions of each image")
)
register_protocol(
    Protocol("coco-1k-25000", gallery=5000, folds=5, captions="five",
             about="COCO 1K with the first five captions of each image")
)  # fmt: skip
register_protocol(Protocol("full", about="the whole split at once, any dataset and any size"))


for _name, _gallery, _turns, _also, _order, _about in (
    ("vg-10", 9896, 10, (5000,), "by ascending region id", "Visual Genome: 9,896 test images, ten region phrases each"),
    ("flickr8k-5", 1000, 5, (), "in stored order", "Flickr8k test: 1,000 images, their five captions as query turns"),
    ("flickr30k-5", 1000, 5, (), "in stored order", "Flickr30K test: 1,000 images, their five captions as query turns"),
    ("coco-5", 5000, 5, (), "in stored order", "COCO Karpathy test: 5,000 images, their first five captions"),
    ("coco-val2017-5", 5000, 5, (), "in stored order", "COCO val2017: 5,000 images, their first five captions"),
    ("scenes-10", None, 10, (), "in stored order", "the built-in scenes: ten region captions an image"),
    ("phrases", None, None, (), "in the order of the file", "a file of region phrases: as many rounds as it gives"),
    ("rounds", None, None, (), "in stored order", "query turns of any dataset and any size, up to ten rounds"),
):
    register_protocol(RoundsProtocol(_name, gallery=_gallery, turns=_turns, also=_also, order=_order, about=_about))


def protocol_from_dict(values: dict[str, Any]) -> Protocol:
    """The inverse of ``dataclasses.asdict``, for the protocol that a report was stored with."""
    if values.get("task") == "composed":
        from xretrieve.evaluation.composed_protocols import ComposedProtocol

        return ComposedProtocol(**values)
    return (RoundsProtocol if values.get("task") == "multi_query" else Protocol)(**values)


def get_protocol(protocol: str | Protocol | None, dataset: str = "", images: int = 0) -> Protocol:
    """The protocol of this name; None picks the usual one for a dataset and number of images, else ``full``.

    >>> get_protocol("coco-1k").folds, get_protocol(None, "flickr8k", 1000).name, get_protocol(None, "scenes", 300).name
    (5, 'flickr-1k', 'full')
    """
    if isinstance(protocol, Protocol):
        return protocol
    from xretrieve.evaluation import composed_protocols  # it needs this module

    if protocol is None and dataset in ("fashion_iq", "shoes", "cirr", "products"):  # made for composed queries only
        return composed_protocols.usual(dataset)
    if protocol is None:
        usual = (
            (dataset.startswith("flickr") and images == 1000, "flickr-1k"),
            ("coco" in dataset and images == 5000, "coco-5k"),
            (dataset == "visual_genome", "vg-10" if images in (9896, 5000) else "rounds"),
            (dataset == "phrases", "phrases"),
        )
        protocol = next((name for fits, name in usual if fits), "full")
    if protocol not in _PROTOCOLS:
        if (found := composed_protocols.find(protocol)) is not None:
            return found
        raise unknown("protocol", protocol, [*_PROTOCOLS, *composed_protocols.ALIASES])
    return _PROTOCOLS[protocol]


def list_protocols(task: str = "") -> list[str]:
    """Names of the protocols, of one task or of all.

    >>> list_protocols("image_text")
    ['coco-1k', 'coco-1k-25000', 'coco-5k', 'coco-5k-25000', 'flickr-1k', 'full']
    """
    from xretrieve.evaluation import composed_protocols

    own = sorted(name for name, protocol in _PROTOCOLS.items() if task in ("", protocol.task))
    return own + (composed_protocols.names() if task in ("", "composed") else [])
