"""A composed dataset as training reads it: descriptions and modification texts in one list of captions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np
import torch
from torch import Tensor

from xretrieve.data.base import RetrievalDataset
from xretrieve.data.modifications import TRAINING, query_texts, training_texts
from xretrieve.data.triplets import ComposedDataset, composed
from xretrieve.errors import XRetrieveError, unknown


@dataclass
class TripletTexts(ComposedDataset):
    """A composed dataset whose ``captions`` are its descriptions, then every text that its triplets are asked by.

    Args:
        described: how many captions are descriptions.
        asked: for each triplet the caption rows that training draws from.
        place: caption row of each modification text.
    """

    described: int = 0
    asked: list[list[int]] = field(default_factory=list)
    place: dict[str, int] = field(default_factory=dict)

    def descriptions(self) -> RetrievalDataset:
        """The images with their descriptions alone; caption rows are the same."""
        own = {f.name: getattr(self, f.name) for f in fields(RetrievalDataset)} | {"triplets": []}
        for key in ("captions", "caption_ids", "owner"):
            own[key] = own[key][: self.described]
        return RetrievalDataset(**own)


def with_texts(dataset: RetrievalDataset, mode: str, queries: str = "") -> TripletTexts:
    """The dataset with its modification texts among the captions; a text that occurs often is listed once.

    Args:
        dataset: a split with triplets.
        mode: caption mode that training draws from.
        queries: a further caption mode whose texts are listed (that of validation).
    """
    if mode not in TRAINING:
        raise unknown("recipe key 'composition.texts': caption mode", mode, TRAINING)
    given = composed(dataset)
    if given.hidden:
        raise XRetrieveError(f"{given.name}/{given.split}: its targets are not public, nothing can be trained on it")
    place: dict[str, int] = {}
    owner: list[int] = []

    def rows(texts: Sequence[str], reference: int) -> list[int]:
        for text in texts:
            if text not in place:
                place[text] = len(given.captions) + len(place)
                owner.append(reference)
        return [place[text] for text in texts]

    asked = [rows(training_texts(t.texts, mode), t.reference) for t in given.triplets]
    for t in given.triplets if queries else ():
        rows(query_texts(t.texts, queries), t.reference)
    own: dict[str, Any] = {f.name: getattr(given, f.name) for f in fields(ComposedDataset)}
    own["captions"] = [*given.captions, *place]
    own["caption_ids"] = [*given.caption_ids, *(f"modification {i}" for i in range(len(place)))]
    own["owner"] = np.concatenate([given.owner, np.array(owner, np.int64)])
    return TripletTexts(**own, described=len(given.captions), asked=asked, place=place)


def triplet_duplicates(data: ComposedDataset, rows: np.ndarray, same: Sequence[str] = ()) -> Tensor:
    """(B, B) bool over triplets ``rows``: the target of column j is another true answer of row i.

    So it is where both have one target, where j's target is among i's positives, and where the targets agree in all
    metadata keys of ``same``.
    """
    chosen = [data.triplets[row] for row in rows]
    targets = np.array([t.target for t in chosen], np.int64)
    found = targets[:, None] == targets
    at: dict[int, list[int]] = {}
    for column, target in enumerate(targets.tolist()):
        at.setdefault(target, []).append(column)
    for i, triplet in enumerate(chosen):
        found[i, [column for positive in triplet.positives for column in at.get(positive, ())]] = True
    if same:
        keys: dict[tuple[Any, ...], int] = {}
        what = [tuple(data.metadata[t].get(key) for key in same) for t in targets]
        number = np.array([keys.setdefault(values, len(keys)) for values in what])
        found |= number[:, None] == number
    np.fill_diagonal(found, False)
    return torch.from_numpy(found)


def items_of(data: RetrievalDataset) -> np.ndarray:
    """(N,) int64: images of one item (metadata key ``item``) share a number; without the key each is its own."""
    keys: dict[Any, int] = {}
    return np.array([keys.setdefault(about.get("item", ("row", row)), len(keys))
                     for row, about in enumerate(data.metadata)], np.int64)  # fmt: skip


@dataclass(frozen=True)
class Tags:
    """Which tags are known of which image.

    A tag ``key=value`` is known to be absent of an image with another value of that key. Tags without ``=`` are known,
    present or absent, of every image that has any of them.

    Args:
        names: (A,) tags, each of at least two images.
        value: (N, A) bool.
        known: (N, A) bool.
    """

    names: list[str]
    value: np.ndarray
    known: np.ndarray

    def values(self, attributes: Sequence[str]) -> dict[str, list[str]]:
        """The values of each attribute, in the order of its columns; one without two values is an error."""
        found: dict[str, list[str]] = {}
        for name in self.names:
            attribute, sign, value = name.partition("=")
            if sign:
                found.setdefault(attribute, []).append(value)
        able = [attribute for attribute, values in found.items() if len(values) > 1]
        for attribute in attributes:
            if attribute not in able:
                raise unknown("recipe key 'head.options.attributes': attribute", str(attribute), able)
        return {attribute: found[attribute] for attribute in attributes}

    @classmethod
    def of(cls, data: RetrievalDataset) -> Tags:
        """Those of the metadata key ``tags``; none at all is an error."""
        listed = [set(about.get("tags", ())) for about in data.metadata]
        counts: dict[str, int] = {}
        for tags in listed:
            for tag in tags:
                counts[tag] = counts.get(tag, 0) + 1
        names = sorted(tag for tag, count in counts.items() if count > 1)
        if not names:
            raise XRetrieveError(
                f"{data.name}/{data.split} has no tags that two images share; leave 'attributes' out of domain.tasks"
            )
        value = np.array([[name in tags for name in names] for tags in listed], bool)
        groups = np.array([name.partition("=")[0] if "=" in name else "" for name in names])
        said = [{tag.partition("=")[0] if "=" in tag else "" for tag in tags} for tags in listed]
        known = np.array([[group in keys for group in groups] for keys in said], bool)
        return cls(names, value, known)
