"""From a folder, a list of files or a dataset to the items of a gallery: ids, duplicates, what changed."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from xretrieve.data.base import FeatureRow, RetrievalDataset
from xretrieve.data.folder import find_pictures
from xretrieve.errors import XRetrieveError, shown
from xretrieve.utils.files import content_hash
from xretrieve.utils.paths import expand, is_file, is_folder, is_there


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


@dataclass
class Plan:
    """What adding a source to a gallery would do."""

    new: list[Item] = field(default_factory=list)
    removed: list[str] = field(default_factory=list)  # ids whose file changed: the old row goes, a new one comes
    updated: dict[str, Item] = field(default_factory=dict)  # kept items that were moved, or of which a copy was found
    duplicates: int = 0
    unchanged: int = 0
    failed: list[dict[str, str]] = field(default_factory=list)  # path and reason
    looked: set[str] = field(default_factory=set)  # every path that was looked at


def make_plan(source: Any, known: Sequence[Item]) -> Plan:
    """Compare a source (folder, dataset, or list of paths) with the items that are already there."""
    if isinstance(source, RetrievalDataset):
        return _plan_dataset(source, known)
    return _plan_files(_named_files(source, known), known)


def _named_files(source: Any, known: Sequence[Item]) -> list[tuple[str, Path]]:
    """(id, absolute path) of every picture file of a folder or a list.

    Inside a folder that was indexed before, ids stay relative to that one.
    """
    if isinstance(source, (str, Path)) and is_file(Path(source)):
        source = [source]
    if isinstance(source, (str, Path)):
        root = Path(os.path.abspath(expand(source)))
        paths = find_pictures(root)
    else:
        if not source:
            raise XRetrieveError("nothing to index: the list of pictures is empty")
        paths = [Path(os.path.abspath(path)) for path in source]
        for path in paths:
            if not is_file(path):
                raise XRetrieveError(
                    f"no picture at {path}" + ("; give one folder, or a list of files" if is_folder(path) else "")
                )
        root = Path(os.path.commonpath([path.parent for path in paths]))
    roots = {item.path.removesuffix("/" + item.id) for item in known if item.path.endswith("/" + item.id)}
    named = []
    for path in dict.fromkeys(paths):
        base = next((parent for parent in path.parents if str(parent) in roots), root)
        named.append((path.relative_to(base).as_posix(), path))
    return named


def give_metadata(plan: Plan, source: Any, metadata: Sequence[dict[str, Any]], known: Sequence[Item]) -> None:
    """Add what the caller knows of each file of a list to its item, those of the plan and those that are there."""
    if isinstance(source, (str, Path, RetrievalDataset)) or len(metadata) != len(source):
        count = f"{len(metadata)} entries" if not isinstance(source, (str, Path, RetrievalDataset)) else "no list"
        raise XRetrieveError(f"metadata needs a list of files and a dict for each; got {count} for {shown(source)}")
    items = {path: item for item in known for path in item.metadata.get("paths") or [item.path]}
    items |= {path: item for item in plan.updated.values() for path in item.metadata.get("paths") or [item.path]}
    items |= {path: item for item in plan.new for path in item.metadata.get("paths") or [item.path]}
    new = {item.id for item in plan.new}
    for place, (path, values) in enumerate(zip(source, metadata, strict=True)):
        try:
            json.dumps(values, allow_nan=False)
            fits = isinstance(values, dict) and all(isinstance(key, str) for key in values) and "paths" not in values
        except (TypeError, ValueError, RecursionError):
            fits = False
        if not fits:
            raise XRetrieveError(f"metadata of picture {place} ({path}): expected a dict of names and plain values "
                                 f"(not 'paths', that is ours), got {shown(values)}")  # fmt: skip
        item = items.get(os.path.abspath(path))
        if item is not None and item.id in new:
            item.metadata = item.metadata | values
        elif item is not None and item.metadata | values != item.metadata:
            item = plan.updated.get(item.id, item)
            plan.updated[item.id] = replace(item, metadata=item.metadata | values)


def _plan_files(files: list[tuple[str, Path]], known: Sequence[Item]) -> Plan:
    plan = Plan()
    by_path = {item.path: item for item in known if item.path}
    by_hash = {item.hash: item for item in known if item.hash}
    taken = {item.id for item in known}
    # known paths first: a changed file must free its old content before a copy of that content is looked at
    for name, path in sorted(files, key=lambda entry: str(entry[1]) not in by_path):
        plan.looked.add(str(path))
        try:
            str(path).encode()
            stat = path.stat()
            old = by_path.get(str(path))
            if old is not None and (old.size, old.mtime) == (stat.st_size, stat.st_mtime_ns):
                plan.unchanged += 1
                continue
            if not stat.st_size:
                raise XRetrieveError("zero bytes")
            digest = content_hash(path)
        except (OSError, XRetrieveError) as error:
            plan.failed.append(
                {"path": str(path), "reason": str(error.strerror if isinstance(error, OSError) else error)}
            )
            continue
        except UnicodeEncodeError:
            shown = str(path).encode(errors="replace").decode()
            plan.failed.append({"path": shown, "reason": "the file name is not valid text; rename it"})
            continue
        if old is not None and old.hash == digest:
            plan.unchanged += 1
            continue
        if old is not None:
            plan.removed.append(old.id)
            taken.discard(old.id)
            by_hash.pop(old.hash, None)
            name = old.id
        elif (twin := by_hash.get(digest)) is not None:
            _add_copy(plan, twin, path, stat)
            continue
        item = Item(
            id=str(path.as_posix()) if name in taken else name,
            path=str(path),
            hash=digest,
            size=stat.st_size,
            mtime=stat.st_mtime_ns,
            metadata={"folder": Path(name).parent.as_posix()},
            source=path,
        )
        taken.add(item.id)
        by_hash[digest] = item
        plan.new.append(item)
    return plan


def _add_copy(plan: Plan, item: Item, path: Path, stat: os.stat_result) -> None:
    """The content of ``item`` also lies at ``path``: a copy, or the place it was moved to."""
    item = plan.updated.get(item.id, item)
    paths = item.metadata.get("paths") or [item.path]
    if str(path) in paths:
        plan.unchanged += 1
    elif item.source is None and not is_there(Path(item.path)):
        plan.unchanged += 1
        plan.updated[item.id] = replace(item, path=str(path), size=stat.st_size, mtime=stat.st_mtime_ns)
    else:
        plan.duplicates += 1
        metadata = item.metadata | {"paths": [*paths, str(path)]}  # absolute paths, the item's own first
        if item.source is None:
            plan.updated[item.id] = replace(item, metadata=metadata)
        else:
            item.metadata = metadata


def _plan_dataset(dataset: RetrievalDataset, known: Sequence[Item]) -> Plan:
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
