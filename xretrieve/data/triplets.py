"""Composed queries: a reference image and a modification text ask for another image.

Any dataset with triplets gives them (:func:`composed`). The sets made for this task also say which images each query
is ranked against, and which queries are lost because a photo is not here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any

import numpy as np

from xretrieve.data.base import RetrievalDataset, Triplet
from xretrieve.errors import XRetrieveError, unknown


@dataclass(frozen=True)
class Listed:
    """A gallery by its annotations.

    Args:
        rows: (G,) int64, the listed images that are here, in the order of the list (a union: sorted by id).
        listed: images on the list, those without a photo included.
    """

    rows: np.ndarray
    listed: int


@dataclass(frozen=True)
class Lost:
    """A query whose reference or target photo is not here: a miss wherever all queries are counted.

    Args:
        id, texts, kind, category, extra: as in :class:`~xretrieve.data.base.Triplet`.
        missing: ids of the photos that are not here.
    """

    id: str
    texts: tuple[str, ...]
    missing: tuple[str, ...]
    kind: str = ""
    category: str = ""
    extra: dict[str, Any] = field(default_factory=dict, compare=False)


@dataclass
class ComposedDataset(RetrievalDataset):
    """One split with its composed queries. ``images`` and ``triplets`` are those whose photos are here.

    ``captions`` are descriptions of single images (titles), for the stages that train without triplets; there may be
    none. ``metadata`` may have ``item`` (images of one item share it), ``tags`` (known attributes by name).

    Args:
        galleries: rule, or ``rule/category`` -> :class:`Listed`. Without any, the rule ``split`` is all images.
        lost: queries that cannot be asked, since a photo is missing.
        hidden: the targets are not public: queries can be answered, not scored.
        allow_missing: evaluate although photos of a gallery or queries are lost; both values are then printed.

    Raises:
        XRetrieveError: rows outside the images, empty texts, doubled ids, a target that is not among the positives or
            members; the message names the query.
    """

    galleries: dict[str, Listed] = field(default_factory=dict)
    lost: list[Lost] = field(default_factory=list)
    hidden: bool = False
    allow_missing: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        numbered = [t if t.id else replace(t, id=str(i)) for i, t in enumerate(self.triplets)]
        self.triplets = numbered
        seen: set[str] = set()
        for triplet in numbered:
            self._check(triplet)
            if triplet.id in seen:
                raise XRetrieveError(f"{self._where(triplet.id)}: this id occurs twice; make the ids unique")
            seen.add(triplet.id)
        if not self.galleries:
            self.galleries = {"split": Listed(np.arange(len(self)), self.expected_images)}
        for name, gallery in self.galleries.items():
            rows = gallery.rows
            if len(rows) and (rows.min() < 0 or rows.max() >= len(self) or len(np.unique(rows)) != len(rows)):
                raise XRetrieveError(f"{self.name}/{self.split}: gallery {name!r} has rows twice or outside the images")

    @property
    def categories(self) -> list[str]:
        """Categories of the queries in their first order; ``[""]`` where there are none."""
        return list(dict.fromkeys([q.category for q in self.triplets] + [q.category for q in self.lost])) or [""]

    @property
    def kinds(self) -> list[str]:
        """Kinds of edit in their first order."""
        return [kind for kind in dict.fromkeys([q.kind for q in self.triplets] + [q.kind for q in self.lost]) if kind]

    def gallery(self, rule: str, category: str = "") -> Listed:
        """The images that a query of ``category`` is ranked against under a gallery rule."""
        for name in (f"{rule}/{category}", rule):
            if name in self.galleries:
                return self.galleries[name]
        raise unknown(f"gallery rule of {self.name}/{self.split}:", rule, {n.partition("/")[0] for n in self.galleries})

    def _where(self, query: str) -> str:
        return f"{self.name}/{self.split}, query {query!r}"

    def _check(self, t: Triplet) -> None:
        n, where = len(self), self._where(t.id)
        if not t.texts or not all(isinstance(text, str) for text in t.texts) or not any(x.strip() for x in t.texts):
            raise XRetrieveError(f"{where} has no modification text; leave it out, or write one")
        if t.target is None and not self.hidden:
            raise XRetrieveError(f"{where} has no target; only a split with hidden targets may have such queries")
        rows = {
            "reference": (t.reference,),
            "target": () if t.target is None else (t.target,),
            "positive": t.positives,
            "member": t.members,
        }
        for what, given in rows.items():
            wrong = next((row for row in given if not 0 <= row < n), None)
            if wrong is not None:
                raise XRetrieveError(f"{where}: its {what} is row {wrong}, but there are {n} images (0 to {n - 1})")
        for what, given in (("positives", t.positives), ("members", t.members)):
            if given and len(set(given)) != len(given):
                raise XRetrieveError(f"{where} has an image twice among its {what}")
            if given and t.target is not None and t.target not in given:
                raise XRetrieveError(f"{where}: its target is not among its {what}")


def composed(dataset: RetrievalDataset) -> ComposedDataset:
    """The dataset with what evaluation and training of composed queries need; one without triplets is an error.

    A :class:`ComposedDataset` is returned as it is.
    """
    if not (dataset.triplets or getattr(dataset, "lost", None)):
        raise XRetrieveError(
            f"{dataset.name}/{dataset.split} has no composed queries (triplets); "
            "fashion_iq, shoes, cirr, products and scenes have"
        )
    if isinstance(dataset, ComposedDataset):
        return dataset
    return ComposedDataset(**{f.name: getattr(dataset, f.name) for f in fields(RetrievalDataset)})


def rows_of(triplets: Sequence[Triplet]) -> tuple[np.ndarray, np.ndarray]:
    """Reference and target rows of queries, each (Q,) int64; a hidden target is an error."""
    hidden = next((t for t in triplets if t.target is None), None)
    if hidden is not None:
        raise XRetrieveError(f"query {hidden.id!r} has no public target: this split cannot be scored or trained on")
    return (np.array([t.reference for t in triplets], np.int64), np.array([t.target for t in triplets], np.int64))
