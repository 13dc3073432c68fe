"""Composed queries as their annotation files describe them, by image ids, before absent photos are left out."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from xretrieve.data.annotations import Annotations, NothingFoundError
from xretrieve.data.base import Triplet
from xretrieve.data.triplets import ComposedDataset, Listed, Lost
from xretrieve.errors import XRetrieveError
from xretrieve.utils.files import data_root, read_json
from xretrieve.utils.paths import is_file


@dataclass(frozen=True)
class TripletRecord:
    """A composed query by image ids; fields as in :class:`~xretrieve.data.base.Triplet`."""

    id: str
    reference: str
    target: str | None
    texts: tuple[str, ...]
    kind: str = ""
    category: str = ""
    positives: tuple[str, ...] = ()
    members: tuple[str, ...] = ()
    extra: dict[str, Any] = field(default_factory=dict, compare=False)


@dataclass
class TripletAnnotations(Annotations):
    """All images of a split, those without a photo included, its queries and its galleries.

    Args:
        queries: in the order of the files.
        galleries: rule, or ``rule/category`` -> image ids.
        hidden: the targets are not public.
        allow_missing: see :class:`~xretrieve.data.triplets.ComposedDataset`.
    """

    queries: list[TripletRecord] = field(default_factory=list)
    galleries: dict[str, list[str]] = field(default_factory=dict)
    hidden: bool = False
    allow_missing: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        listed = {record.id for record in self.images}
        for query in self.queries:
            named = {
                "reference": [query.reference],
                "target": [query.target] if query.target is not None else [],
                "positive": query.positives,
                "member": query.members,
            }
            for what, ids in named.items():
                wrong = next((i for i in ids if i not in listed), None)
                if wrong is not None:
                    raise XRetrieveError(
                        f"{self.source}: query {query.id!r} has the {what} {wrong!r}, which is not in the image list "
                        f"of {self.name}/{self.split}; the files belong to different versions"
                    )

    def lost(self, query: TripletRecord, here: set[str] | dict[str, int]) -> tuple[str, ...]:
        """Ids of the photos without which the query cannot be asked."""
        needed = dict.fromkeys([query.reference, query.target] if query.target is not None else [query.reference])
        return tuple(i for i in needed if i not in here)

    def dataset(self) -> ComposedDataset:
        """What is here: images with a photo, queries whose reference and target have one."""
        kept = [record for record in self.images if record.image is not None]
        if not kept:
            raise XRetrieveError(
                f"{self.name}/{self.split}: the annotations are in {self.source}, but none of the "
                f"{len(self.images):,} images has a photo; looked in {'; '.join(self.looked_for)}{self.expected}. "
                f"`xretrieve data check {self.name}` says where to get them"
            )
        row = {record.id: i for i, record in enumerate(kept)}
        triplets, lost = [], []
        for q in self.queries:
            missing = self.lost(q, row)
            if missing:
                lost.append(Lost(q.id, q.texts, missing, q.kind, q.category, q.extra))
                continue
            triplets.append(Triplet(
                row[q.reference], q.texts, None if q.target is None else row[q.target], q.kind, q.id, q.category,
                tuple(row[i] for i in q.positives if i in row), tuple(row[i] for i in q.members if i in row), q.extra,
            ))  # fmt: skip
        galleries = {
            name: Listed(np.array([row[i] for i in ids if i in row], np.int64), len(ids))
            for name, ids in self.galleries.items()
        }
        return ComposedDataset(
            name=self.name,
            split=self.split,
            image_ids=list(row),
            images=[r.image for r in kept if r.image is not None],
            captions=[text for r in kept for text in r.captions],
            caption_ids=[cid for r in kept for cid in r.caption_ids],
            owner=np.repeat(np.arange(len(kept)), [len(r.captions) for r in kept]),
            expected_images=len(self.images),
            layout=self.layout,
            metadata=[r.metadata for r in kept],
            notes=list(self.notes),
            triplets=triplets,
            galleries=galleries,
            lost=lost,
            hidden=self.hidden,
            allow_missing=self.allow_missing,
        )


def folder_of(root: str | Path | None, names: Sequence[str], marker: str, dataset: str) -> Path:
    """The dataset's folder: the data root itself or one of ``names`` below it, whichever has ``marker``.

    Raises:
        NothingFoundError: none has it; the message lists where it was looked for.
    """
    base = data_root(root)
    places = [base / name for name in names] + [base]
    for place in places:
        if any(place.glob(marker)):
            return place
    raise NothingFoundError(
        f"{dataset}: no {marker} in {'; '.join(str(p) for p in places)}. "
        f"`xretrieve data check {dataset}` says where to get it"
    )


def need(paths: Iterable[Path], dataset: str) -> None:
    """An error that names the first missing files of a layout."""
    missing = [str(path) for path in paths if not is_file(path)]
    if missing:
        more = f" and {len(missing) - 3} more" if len(missing) > 3 else ""
        raise XRetrieveError(f"{dataset}: missing {', '.join(missing[:3])}{more}; get the whole annotation archive")


def read_list(path: Path, keys: Sequence[str] = ()) -> list[Any]:
    """A JSON list; with ``keys``, of objects that all have them. The error names the entry and the key."""
    rows = read_json(path)
    if not isinstance(rows, list):
        raise XRetrieveError(f"{path}: expected a list, got {type(rows).__name__}")
    for number, row in enumerate(rows):
        if keys and not isinstance(row, dict):
            raise XRetrieveError(f"{path}, entry {number}: expected an object with {', '.join(keys)}")
        for key in keys:
            if key not in row:
                raise XRetrieveError(f"{path}, entry {number}: no key {key!r}; is this the annotation file it says?")
    return rows


def official_note(what: str, found: tuple[int, int], official: tuple[int, int]) -> list[str]:
    """One sentence where (queries, images) differ from the official annotations; empty where they agree."""
    if found == official:
        return []
    return [f"{what}: {found[0]:,} queries and {found[1]:,} images, officially {official[0]:,} and {official[1]:,}"]
