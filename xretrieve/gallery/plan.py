"""What adding a source does to a gallery: by its content a picture is known, by its paths it is named anew."""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from xretrieve.data.base import RetrievalDataset
from xretrieve.data.folder import picture_suffixes
from xretrieve.errors import XRetrieveError
from xretrieve.gallery.items import Item, Plan, places_of, plan_dataset
from xretrieve.gallery.sources import Named, Sources
from xretrieve.utils.files import content_hash


def make_plan(source: Any, known: Sequence[Item], sources: Sources | None = None) -> Plan:
    """Compare a source (folder, dataset, or list of paths) with the items that are already there."""
    if isinstance(source, RetrievalDataset):
        return plan_dataset(source, known)
    sources = sources or Sources(known, {})
    return _Planning(sources.read(source, known), known, sources).plan()


class _Planning:
    """One comparison. ``content`` maps each path that was read to its hash, ``places`` each hash to its paths."""

    def __init__(self, named: Named, known: Sequence[Item], sources: Sources) -> None:
        self.named, self.known, self.sources = named, known, sources
        self.done = Plan(left_out=named.found.left_out, idle=named.found.idle)
        self.names = {str(path): name for name, path in named.files}
        self.stats: dict[str, os.stat_result] = {}
        self.content: dict[str, str] = {}
        self.places: dict[str, list[str]] = {}
        self.wanted: list[tuple[Item, Item]] = []  # kept items that change: as they were, as they will be

    def plan(self) -> Plan:
        """The plan."""
        own = {item.path: item for item in self.known if item.path}
        for _, path in self.named.files:
            self._read(path, own.get(str(path)))
        owners: dict[str, Item] = {}
        for item in self.known:
            if item.hash:
                owners.setdefault(item.hash, item)
        overwritten = [item for item in self.known if item.hash and not self._keep(item, owners)]
        new = {digest: self._new(digest, paths) for digest, paths in self.places.items() if digest not in owners}
        for item in overwritten:
            self.done.removed[item.id] = new.get(self.content[item.path])
        self._give_ids(overwritten, list(new.values()))
        self.done.about = self.sources.about(self.named, [*own.values(), *new.values()])
        return self.done

    def _read(self, path: Path, old: Item | None) -> None:
        """Look at one file, and hash it unless its size and time are those that are known."""
        self.done.looked.add(str(path))
        try:
            str(path).encode()
            found = path.stat()
            if not stat.S_ISREG(found.st_mode):
                raise XRetrieveError("it is not a file")  # a pipe would be waited for
            if old is not None and (old.size, old.mtime) == (found.st_size, found.st_mtime_ns):
                digest = old.hash
            elif not found.st_size:
                raise XRetrieveError("zero bytes")
            else:
                digest = content_hash(path)
        except (OSError, XRetrieveError) as error:
            reason = str(error.strerror if isinstance(error, OSError) else error)
            self.done.failed.append({"path": str(path), "reason": reason})
            return
        except UnicodeEncodeError:
            shown = str(path).encode(errors="replace").decode()
            self.done.failed.append({"path": shown, "reason": "the file name is not valid text; rename it"})
            return
        self.content[str(path)], self.stats[str(path)] = digest, found
        self.places.setdefault(digest, []).append(str(path))

    def _keep(self, item: Item, owners: dict[str, Item]) -> bool:
        """Find where an item's picture lies now; False where its file shows another one and no copy is left."""
        was = places_of(item)
        fresh = self.places.get(item.hash, []) if owners[item.hash] is item else []
        fresh = [path for path in fresh if path not in was]
        state = {path: self._lies(path, item.hash) for path in was}
        there = [path for path in was if state[path] == "there"]
        self.done.unchanged += sum(path in self.content for path in there)
        there += fresh
        if not there:
            if state[item.path] == "other":
                return False
            self._missing(item, state)
            there = [item.path, *(path for path in was if path != item.path and state[path] not in ("gone", "other"))]
            first = item.path
        else:
            first = item.path if item.path in there else self._first(item, there)
            away = [path for path in was if state[path] == "away"]
            there = list(dict.fromkeys([first, *there, *away]))
            self.done.duplicates += len(fresh) - (first in fresh)
            self._left_out(item, there)
        becomes = self._at(item, first, there)
        if becomes != item:
            self.wanted.append((item, becomes))
        return True

    def _lies(self, path: str, digest: str) -> str:
        if path in self.content:
            return "there" if self.content[path] == digest else "other"
        return self.sources.lies(path)

    def _first(self, item: Item, there: list[str]) -> str:
        """The copy that becomes the picture: one that was just read, else one whose content is still the same."""
        for path in there:
            try:
                if path in self.content or content_hash(path) == item.hash:
                    return path
            except OSError:
                continue
        return there[0]

    def _at(self, item: Item, path: str, paths: list[str]) -> Item:
        """An item as its paths say: everything that is derived from them, anew."""
        metadata = {key: value for key, value in item.metadata.items() if key != "paths"}
        metadata |= {"paths": paths} if len(paths) > 1 else {}
        found = self.stats.get(path)
        if found is None and path != item.path:
            found = os.stat(path)
        size, mtime = (found.st_size, found.st_mtime_ns) if found is not None else (item.size, item.mtime)
        name, id_ = self.names.get(path), item.id
        stale = name is not None and item.id not in (name, path) and not item.path.endswith("/" + item.id)
        if "dataset" not in item.metadata and (path != item.path or stale):
            id_ = name or self.sources.name(path)
            old = {Path(item.id).parent.as_posix(), Path(self.sources.name(item.path)).parent.as_posix()}
            if metadata.get("folder") in old:
                metadata["folder"] = Path(id_).parent.as_posix()
        return replace(item, id=id_, path=path, size=size, mtime=mtime, metadata=metadata)

    def _missing(self, item: Item, state: dict[str, str]) -> None:
        folder = self.named.folder
        if folder is not None and all(where in ("gone", "other") for where in state.values()) and any(
            path.startswith(f"{folder}/") for path in state
        ):  # fmt: skip
            self.done.gone.append(item.id)

    def _left_out(self, item: Item, there: list[str]) -> None:
        """Note a picture of this folder that is there, but that its patterns leave out."""
        folder = self.named.folder
        if folder is None or any(path in self.content or not path.startswith(f"{folder}/") for path in there):
            return
        if all(self.sources.patterns.reason(self.sources.name(path)) for path in there) and all(
            Path(path).suffix.lower() in picture_suffixes() for path in there
        ):
            self.done.excluded.append(item.id)

    def _new(self, digest: str, paths: list[str]) -> Item:
        path = paths[0]
        self.done.duplicates += len(paths) - 1
        name = self.names[path]
        metadata: dict[str, Any] = {"folder": Path(name).parent.as_posix()}
        metadata |= {"paths": paths} if len(paths) > 1 else {}
        found = self.stats[path]
        return Item(name, path, digest, found.st_size, found.st_mtime_ns, metadata, source=Path(path))

    def _give_ids(self, overwritten: list[Item], new: list[Item]) -> None:
        """Ids are paths below their folders; where two folders have the same one, the later gets its whole path."""
        changing = {old.id for old, becomes in self.wanted if old.id != becomes.id}
        taken = {item.id for item in self.known} - changing - {item.id for item in overwritten}
        for old, becomes in self.wanted:
            if becomes.id != old.id:
                becomes.id = becomes.path if becomes.id in taken else becomes.id
                taken.add(becomes.id)
            if becomes.path != old.path:
                self.done.moved.append(becomes.id)
            self.done.updated[old.id] = becomes
        for item in new:
            item.id = item.path if item.id in taken else item.id
            taken.add(item.id)
        self.done.new = new
