"""Protocols of composed queries. A name is dataset / gallery rule / reference kept or removed / caption mode."""

from __future__ import annotations

from dataclasses import dataclass, field

from xretrieve.data.modifications import MODES
from xretrieve.errors import XRetrieveError, unknown
from xretrieve.evaluation.protocol import Protocol

REFERENCES = ("kept", "removed")


@dataclass(frozen=True)
class ComposedProtocol(Protocol):
    """How the scores of composed queries become metrics.

    Args:
        dataset: the dataset that it is for, empty for any.
        rule: which images a query is ranked against.
        reference: ``kept`` (a query's own reference image competes) or ``removed`` (it is no candidate).
        mode: caption mode (:data:`~xretrieve.data.modifications.MODES`).
        sizes: ``category/split``, or ``split`` -> images on the official gallery list.
        metrics: which tables are printed: ``categories``, ``recalls``, ``subset``, ``relaxed``.
        headline: the metric that models are selected by.
        task: ``composed``.
    """

    dataset: str = ""
    rule: str = "split"
    reference: str = "removed"
    mode: str = "single"
    sizes: dict[str, int] = field(default_factory=dict, compare=False)
    metrics: str = "recalls"
    headline: str = "mean"
    task: str = "composed"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.reference not in REFERENCES:
            raise unknown("handling of the reference", self.reference, REFERENCES)
        if self.mode not in MODES:
            raise unknown("caption mode", self.mode, MODES)

    def check(self, images: int, coverage: float = 1.0) -> list[str]:
        """Galleries are checked category by category (:meth:`check_gallery`)."""
        return []

    def fits(self, dataset: str) -> None:
        """An error when the protocol is another dataset's."""
        if self.dataset and dataset != self.dataset:
            raise XRetrieveError(
                f"protocol {self.name!r} is for {self.dataset}, not for {dataset}; "
                f"for {dataset}: {', '.join(names_for(dataset)) or 'any/split/removed/single'}"
            )

    def check_gallery(self, category: str, split: str, listed: int) -> list[str]:
        """A warning where the gallery list has another length than the official one."""
        official = self.sizes.get(f"{category}/{split}".strip("/"))
        if official is None or official == listed:
            return []
        what = f" of {category}" if category else ""
        return [f"the gallery{what} lists {listed:,} images, officially {official:,}: not comparable with others"]


_IQ = {"dataset": "fashion_iq", "ks": (10, 50), "metrics": "categories"}
_ORIGINAL = {"dress/val": 3817, "shirt/val": 6346, "toptee/val": 5373}
_UNION = {"dress/val": 2628, "shirt/val": 3089, "toptee/val": 2902}
_TABLE = {  # everything but the caption mode -> settings, default mode, about
    "fashion-iq/original/kept": (_IQ | {"rule": "original", "sizes": _ORIGINAL}, "and",
                                 "Fashion-IQ, all val images of the category, the reference competes"),
    "fashion-iq/original/removed": (_IQ | {"rule": "original", "sizes": _ORIGINAL}, "and",
                                    "Fashion-IQ, all val images of the category but the query's reference"),
    "fashion-iq/val-union/kept": (_IQ | {"rule": "val-union", "sizes": _UNION}, "and",
                                  "Fashion-IQ, references and targets of the category's val pairs"),
    "fashion-iq/val-union/removed": (_IQ | {"rule": "val-union", "sizes": _UNION}, "and",
                                     "Fashion-IQ, the VAL split: references and targets but the query's reference"),
    "shoes/all/removed": ({"dataset": "shoes", "ks": (1, 10, 50), "rule": "all", "sizes": {"test": 4658, "val": 4658}},
                          "single", "Shoes, all eval images"),
    "shoes/val-list/removed": ({"dataset": "shoes", "ks": (1, 10, 50), "rule": "val-list",
                                "sizes": {"test": 4642, "val": 4642}}, "single",
                               "Shoes, VAL's list united with references and targets"),
    "cirr/val/removed": ({"dataset": "cirr", "ks": (1, 5, 10, 50), "rule": "val", "metrics": "subset",
                          "sizes": {"val": 2297}}, "single", "CIRR val, with the recall in each query's subset"),
    "products/split/removed": ({"dataset": "products", "ks": (1, 10, 50), "metrics": "relaxed",
                                "headline": "mean_relaxed_r10"}, "single",
                               "a product catalogue, every photo of the split; strict and relaxed"),
    "scenes/split/removed": ({"dataset": "scenes", "ks": (1, 5, 10), "metrics": "relaxed",
                              "headline": "mean_relaxed_r1"}, "each",
                             "the built-in scenes, every picture of the split; strict and relaxed (R@10 is near 100)"),
    "any/split/removed": ({"ks": (1, 5, 10, 50)}, "single", "triplets of any dataset, all images of the split"),
    "any/split/kept": ({"ks": (1, 5, 10, 50)}, "single", "the same, the reference competes"),
}  # fmt: skip
ALIASES = {
    "fashion-iq": "fashion-iq/original/kept/and",
    "fashion-iq-original": "fashion-iq/original/kept/and",
    "fashion-iq-removed": "fashion-iq/original/removed/and",
    "fashion-iq-val": "fashion-iq/val-union/removed/and",
    "shoes": "shoes/all/removed/single",
    "shoes-val": "shoes/val-list/removed/single",
    "cirr": "cirr/val/removed/single",
    "products": "products/split/removed/single",
    "scenes-composed": "scenes/split/removed/each",
    "composed": "any/split/removed/single",
}
USUAL = {  # the protocols that are shown side by side, the usual one first
    "fashion_iq": ("fashion-iq/original/kept/and", "fashion-iq/original/removed/and",
                   "fashion-iq/val-union/removed/and"),
    "shoes": ("shoes/all/removed/single", "shoes/val-list/removed/single"),
    "cirr": ("cirr/val/removed/single",),
    "products": ("products/split/removed/single",),
    "scenes": ("scenes/split/removed/each",),
}  # fmt: skip


def find(name: str) -> ComposedProtocol | None:
    """The protocol of a full name, in any caption mode, or of a short one; None where it is no such name.

    >>> find("fashion-iq/val-union/removed/each").mode, find("shoes").name, find("coco-5k")
    ('each', 'shoes/all/removed/single', None)
    """
    name = ALIASES.get(name, name).replace("fashion_iq", "fashion-iq")
    if "/" not in name:
        return None
    stem, _, mode = name.rpartition("/")
    if name in _TABLE:
        stem, mode = name, _TABLE[name][1]
    if stem not in _TABLE:
        raise unknown("protocol", name, names())
    if mode not in MODES:
        raise unknown(f"caption mode of protocol {name!r}:", mode, MODES)
    settings, _, about = _TABLE[stem]
    return ComposedProtocol(
        f"{stem}/{mode}",
        about=about,
        mode=mode,
        reference=stem.rpartition("/")[2],
        **settings,  # type: ignore[arg-type]
    )


def usual(dataset: str) -> ComposedProtocol:
    """The protocol that a dataset's models are selected and shown by."""
    found = find(USUAL[dataset][0] if dataset in USUAL else ALIASES["composed"])
    assert found is not None
    return found


def names() -> list[str]:
    """Full names, each in its default caption mode.

    >>> names()[-1]
    'any/split/kept/single'
    """
    return [f"{stem}/{mode}" for stem, (_, mode, _) in _TABLE.items()]


def names_for(dataset: str) -> list[str]:
    """Full names of one dataset's protocols, the usual ones first."""
    own = [name for name in names() if (p := find(name)) is not None and p.dataset == dataset]
    return list(dict.fromkeys([*USUAL.get(dataset, ()), *own]))
