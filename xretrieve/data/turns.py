"""Query sets: several short sentences about one image, said one after the other.

Any captioned dataset gives them. An image's turns are its captions, or what is said of its regions where the dataset
says so (:attr:`RetrievalDataset.turns`), in their stored order.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from xretrieve.data.base import RetrievalDataset
from xretrieve.errors import XRetrieveError


def spoken(dataset: RetrievalDataset) -> RetrievalDataset:
    """The dataset with its turns as its captions, so that whatever reads captions reads turns.

    Where the turns are the captions this is the dataset itself. Turns of regions get the ids ``<image id>@<number>``.
    """
    if dataset.turns == "captions":
        return dataset
    if not any(dataset.regions):
        raise XRetrieveError(f"{dataset.name}/{dataset.split}: no image has region captions to take as query turns")
    sizes = [len(regions) for regions in dataset.regions]
    return replace(
        dataset,
        captions=[region.text for regions in dataset.regions for region in regions],
        caption_ids=[f"{i}@{k}" for i, size in zip(dataset.image_ids, sizes, strict=True) for k in range(size)],
        owner=np.repeat(np.arange(len(dataset)), sizes),
        turns="captions",
    )


@dataclass(frozen=True)
class QuerySets:
    """M query sets over the images of a dataset, one for each image that has a sentence.

    Args:
        texts: all sentences, set after set.
        sizes: (M,) int64, how many of them each set has.
        owner: (M,) int64, the image row that each set is about.
        ids: (M,) names of the sets: their images' ids.
        left_out: which images have no set and why, one sentence each.

    >>> sets = QuerySets(["a dog", "snow", "a cat"], np.array([2, 1]), np.array([0, 3]), ["x", "y"])
    >>> len(sets), sets.said(0), sets.reached(2)
    (2, ['a dog', 'snow'], 1)
    """

    texts: list[str]
    sizes: np.ndarray
    owner: np.ndarray
    ids: list[str]
    left_out: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not (len(self.sizes) == len(self.owner) == len(self.ids) and self.sizes.sum() == len(self.texts)):
            raise XRetrieveError(
                f"query sets: {len(self.sizes)} sizes (sum {self.sizes.sum()}), {len(self.owner)} owners, "
                f"{len(self.ids)} ids and {len(self.texts)} sentences do not fit together"
            )
        if len(self.sizes) and self.sizes.min() < 1:
            raise XRetrieveError(f"query set {self.ids[int(self.sizes.argmin())]!r} has no sentence; leave it out")

    def __len__(self) -> int:
        return len(self.sizes)

    @property
    def longest(self) -> int:
        """T, the sentences of the longest set; 0 where there is no set."""
        return int(self.sizes.max(initial=0))

    def said(self, row: int) -> list[str]:
        """The sentences of one set, in their order."""
        start = int(self.sizes[:row].sum())
        return self.texts[start : start + int(self.sizes[row])]

    def reached(self, turn: int) -> int:
        """How many sets have at least ``turn`` sentences."""
        return int((self.sizes >= turn).sum())


def query_sets(dataset: RetrievalDataset, turns: int | None = None) -> QuerySets:
    """The fixed query sets of a split: each image's first ``turns`` sentences (all for None) in their stored order.

    An image without a sentence has no set; it stays in the gallery.
    """
    if turns is not None and turns < 1:
        raise XRetrieveError(f"turns={turns}: a query set has 1 sentence or more")
    data = spoken(dataset)
    order = np.argsort(data.owner, kind="stable")  # captions may be stored in any order of their images
    counts = np.bincount(data.owner, minlength=len(data))
    if not counts.any():
        raise XRetrieveError(f"{data.name}/{data.split}: no image has a sentence, so there is nothing to ask")
    starts = np.cumsum(counts) - counts
    place = np.arange(len(order)) - np.repeat(starts, counts)  # the number of a sentence within its image
    kept = order if turns is None else order[place < turns]
    owner = np.flatnonzero(counts)
    silent = [data.image_ids[i] for i in np.flatnonzero(counts == 0)]
    left_out: tuple[str, ...] = ()
    if silent:
        images = "1 image has" if len(silent) == 1 else f"{len(silent)} images have"
        left_out = (
            f"{images} no sentence and no query set, but {'is' if len(silent) == 1 else 'are'} in the gallery "
            f"(first: {silent[0]})",
        )
    sizes = counts[owner] if turns is None else np.minimum(counts[owner], turns)
    return QuerySets([data.captions[c] for c in kept], sizes, owner, [data.image_ids[i] for i in owner], left_out)
