"""Protocols by name."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from xretrieve.errors import XRetrieveError, unknown
from xretrieve.evaluation import composed_protocols
from xretrieve.evaluation.protocol import Protocol


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
        return composed_protocols.ComposedProtocol(**values)
    return (RoundsProtocol if values.get("task") == "multi_query" else Protocol)(**values)


def get_protocol(protocol: str | Protocol | None, dataset: str = "", images: int = 0) -> Protocol:
    """The protocol of this name; None picks the usual one for a dataset and number of images, else ``full``.

    >>> get_protocol("coco-1k").folds, get_protocol(None, "flickr8k", 1000).name, get_protocol(None, "scenes", 300).name
    (5, 'flickr-1k', 'full')
    """
    if isinstance(protocol, Protocol):
        return protocol
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
    own = sorted(name for name, protocol in _PROTOCOLS.items() if task in ("", protocol.task))
    return own + (composed_protocols.names() if task in ("", "composed") else [])
