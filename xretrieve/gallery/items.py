"""From a folder, a list of files or a dataset to the items of a gallery: ids, duplicates, what changed."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from xretrieve.data.base import FeatureRow, RetrievalDataset
from xretrieve.errors import XRetrieveError, shown
from xretrieve.utils.files import content_hash


@dataclass
class Item:
    """One indexed picture.

    Args:
        id: unique in its gallery; for a folder the path relative to it, with ``/``.
        path: absolute path of the picture, '' for precomputed features.
        hash: SHA-256 of the file.
        size: bytes of the file, and ``mtime`` its time in ns: a file with both unchanged is not read again.
        metadata: what filters see; ``paths`` lists all copies when the same picture lies in several places.
        features: of precomputed features, the file and the row.
    """

    id: str
    path: str = ""
    hash: str = ""
    size: int = 0
    mtime: int = 0
    metadata: dict[str, Any] = field(default_factory=dict)
    features: list[Any] | None = None
    source: Any = field(default=None, repr=False, compare=False)  # what the backbone reads, None once it is encoded

    def to_dict(self) -> dict[str, Any]:
        """What one line of ``items.jsonl`` holds."""
        return {f.name: getattr(self, f.name) for f in fields(self) if f.name != "source"}


def places_of(item: Item) -> list[str]:
    """Every path at which an item's picture was found, its own first; none of precomputed features."""
    return list(item.metadata.get("paths") or [item.path]) if item.path else []


@dataclass
class Plan:
    """What adding a source to a gallery would do."""

    new: list[Item] = field(default_factory=list)
    removed: dict[str, Item | None] = field(default_factory=dict)  # ids whose file shows another picture now; the new
    # item that must be there before the old one goes, None where that picture is there already
    updated: dict[str, Item] = field(
        default_factory=dict
    )  # by the old id: items that were moved, or whose copies changed
    moved: list[str] = field(default_factory=list)  # their new ids
    duplicates: int = 0
    unchanged: int = 0
    failed: list[dict[str, str]] = field(default_factory=list)  # path and reason
    looked: set[str] = field(default_factory=set)  # every path that was looked at
    gone: list[str] = field(default_factory=list)  # ids of pictures of this source of which no file is left
    excluded: list[str] = field(default_factory=list)  # ids of its pictures that the patterns leave out now
    about: dict[str, Any] = field(default_factory=dict)  # keys of `gallery.json`: folders, and patterns
    left_out: list[dict[str, Any]] = field(default_factory=list)  # of this source
    idle: list[str] = field(default_factory=list)  # patterns that match nothing


@dataclass
class Changes:
    """What :meth:`xretrieve.Gallery.add` did.

    Args:
        added: ids of new pictures, ``replaced`` those whose file shows another picture now, ``moved`` the new ids of
            those that lie in another place.
        duplicates: copies that were noted, and ``unchanged`` files that were known.
        failed: pictures that could not be indexed, with ``path`` and ``reason``.
        left_out: what was not taken as a picture, counted by reason (:attr:`xretrieve.Gallery.left_out`).
        gone: ids of pictures of the source of which no file is left, and ``excluded`` of those that its patterns leave
            out now. Both are found as before, until they are removed.
        idle: patterns that match nothing.
        notes: news of the index.
    """

    added: list[str] = field(default_factory=list)
    replaced: list[str] = field(default_factory=list)
    duplicates: int = 0
    unchanged: int = 0
    failed: list[dict[str, str]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    moved: list[str] = field(default_factory=list)
    left_out: list[dict[str, Any]] = field(default_factory=list)
    gone: list[str] = field(default_factory=list)
    excluded: list[str] = field(default_factory=list)
    idle: list[str] = field(default_factory=list)


def give_metadata(plan: Plan, source: Any, metadata: Sequence[dict[str, Any]], known: Sequence[Item]) -> None:
    """Add what the caller knows of each file of a list to its item, those of the plan and those that are there."""
    if isinstance(source, (str, Path, RetrievalDataset)) or len(metadata) != len(source):
        count = f"{len(metadata)} entries" if not isinstance(source, (str, Path, RetrievalDataset)) else "no list"
        raise XRetrieveError(f"metadata needs a list of files and a dict for each; got {count} for {shown(source)}")
    there = {item.id: item for item in known}
    kept = {path: item.id for item in known for path in places_of(item)}
    kept |= {path: id_ for id_, item in plan.updated.items() for path in places_of(item)}
    new = {path: item for item in plan.new for path in places_of(item)}
    for place, (path, values) in enumerate(zip(source, metadata, strict=True)):
        try:
            json.dumps(values, allow_nan=False)
            fits = isinstance(values, dict) and all(isinstance(key, str) for key in values) and "paths" not in values
        except (TypeError, ValueError, RecursionError):
            fits = False
        if not fits:
            raise XRetrieveError(f"metadata of picture {place} ({path}): expected a dict of names and plain values "
                                 f"(not 'paths', that is ours), got {shown(values)}")  # fmt: skip
        file = os.path.abspath(path)
        if file in new:
            new[file].metadata = new[file].metadata | values
        elif file in kept:
            item = plan.updated.get(kept[file], there[kept[file]])
            if item.metadata | values != item.metadata:
                plan.updated[kept[file]] = replace(item, metadata=item.metadata | values)


def plan_dataset(dataset: RetrievalDataset, known: Sequence[Item]) -> Plan:
    """Every image of a dataset under its own id, copies too: a benchmark's gallery is what the benchmark says."""
    plan = Plan()
    taken = {item.id for item in known}
    for id_, source, metadata in zip(dataset.image_ids, dataset.images, dataset.metadata, strict=True):
        if id_ in taken:
            plan.unchanged += 1
            continue
        item = Item(id=id_, metadata={"dataset": dataset.name, "split": dataset.split} | metadata, source=source)
        if isinstance(source, FeatureRow):
            item.features = [os.path.abspath(source.path), source.row]
        else:
            path = Path(os.path.abspath(source))
            try:
                stat = path.stat()
                item.path, item.hash = str(path), content_hash(path)
                item.size, item.mtime = stat.st_size, stat.st_mtime_ns
            except OSError as error:
                plan.failed.append({"path": str(path), "reason": str(error.strerror)})
                continue
        plan.new.append(item)
    return plan
