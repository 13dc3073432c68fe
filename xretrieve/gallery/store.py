"""The folder of a gallery on disk: parts that are written once, and one `gallery.json` that says which of them count.

::

    photos.xr/
      gallery.json            format, matcher, index, parts, removed rows, failures; replaced last, in one step
      parts/0000-1f2e3d/      vectors.npy (N, D) float32; items.jsonl, one line per row, then changes to earlier rows;
                              local tokens where the head scores those (:mod:`xretrieve.gallery.token_files`)
      index-5a4b3c/           an approximate index over the first rows; it can always be made anew from the parts

Adding writes a part, removing writes row numbers; nothing that was there is touched. Whatever is killed before
`gallery.json` is replaced has not happened. One program writes at a time (:meth:`Store.writing`); others go on reading.
Parts, indexes and `gallery.json` carry checksums (:mod:`xretrieve.utils.checksums`).
"""

from __future__ import annotations

import contextlib
import os
import shutil
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields
from datetime import datetime, timezone
from pathlib import Path
from shlex import quote
from typing import Any

import numpy as np
import torch

from xretrieve.errors import XRetrieveError
from xretrieve.gallery.items import Item
from xretrieve.gallery.token_files import TokenPart, TokenSpool, join
from xretrieve.tokens import Prepared
from xretrieve.utils.arrays import load_npy
from xretrieve.utils.atomic import tidy_folder
from xretrieve.utils.checksums import BUDGET, SUMS, DamagedError, checksum, read_sealed, verify
from xretrieve.utils.files import atomic_folder, locked, recover_folder, write_json
from xretrieve.utils.paths import is_file, is_there
from xretrieve.utils.texts import encode, json_lines, to_json_lines

FORMAT = 1
MANIFEST = "gallery.json"
MAX_PARTS = 32  # more are merged into one
MERGED = 256  # pictures whose tokens are read at once when parts are merged
READINGS = 20  # of a gallery that changes while it is read
FIELDS = {f.name for f in fields(Item)} - {"source"}
_Part = tuple[np.ndarray, TokenPart | None, list[tuple[int | None, Item]]]  # vectors, tokens, (row of a change, item)


class Store:
    """Rows of a gallery: an item and a vector each.

    Row numbers grow as pictures are added, and change only when parts are merged.

    Args:
        folder: the gallery's folder.
        info: the content of ``gallery.json``.
    """

    def __init__(self, folder: str | Path, info: dict[str, Any]) -> None:
        self.folder, self.info = Path(folder), info
        self.items: list[Item | None] = []  # by row; None where removed
        self.parts: list[np.ndarray] = []  # memory-mapped vectors
        self.token_parts: list[TokenPart | None] = []  # one per part, None where it holds changes only
        self.rows: dict[str, int] = {}  # id to row
        self.stamp = _stamp(self.folder)  # of the `gallery.json` that was read
        self._budget: int | None = BUDGET  # bytes of parts whose checksums are still looked at when they are read

    @classmethod
    def create(cls, folder: str | Path, dim: int, matcher: dict[str, Any], index: dict[str, Any], **more: Any) -> Store:
        """A new, empty gallery in an empty folder; nothing is committed yet.

        Args:
            folder: where.
            dim: width of the coarse vectors.
            matcher: what made them: name, fingerprint, and what loads it again.
            index: name and options.
            more: further keys of ``gallery.json``: ``tokens`` (``dim``, ``dtype``) where pictures keep their tokens,
                and ``coarse``, whose the vectors then are (:mod:`xretrieve.gallery.matchers`).
        """
        now = _now()
        info = {
            "format": FORMAT,
            "created": now,
            "updated": now,
            "revision": 0,
            "count": 0,
            "dim": dim,
            "matcher": matcher,
            "index": index,
            "parts": [],
            "removed": [],
            "failed": [],
        }
        return cls(folder, info | more)

    @classmethod
    def open(cls, folder: str | Path) -> Store:
        """Read a gallery; a folder that is not one, a newer format or a damaged part is an error that says so.

        What another program changes meanwhile is read again. What a killed one left is deleted.
        """
        folder = Path(folder)
        for left in reversed(range(READINGS)):
            recover_folder(folder)
            before = _stamp(folder)
            try:
                store = cls._read(folder)
            except XRetrieveError:
                if not left or _stamp(folder) == before:
                    raise
            else:
                store._clean_up()
                return store
        raise AssertionError("unreachable")

    @classmethod
    def _read(cls, folder: Path) -> Store:
        if not is_file(folder / MANIFEST):
            raise XRetrieveError(f"{folder} is not a gallery {_instead(folder)}")
        store = cls(folder, {})
        info = store.info = read_sealed(folder / MANIFEST)
        if not isinstance(info, dict) or info.get("format") != FORMAT:
            raise XRetrieveError(
                f"{folder / MANIFEST}: this version reads gallery format {FORMAT}; build the gallery again"
            )
        for part in info["parts"]:
            store._take(store._read_part(part))
        for row in info["removed"]:
            store.items[row] = None
        store.rows = {item.id: row for row, item in enumerate(store.items) if item is not None}
        if len(store.rows) != info["count"]:
            raise XRetrieveError(
                f"{folder} is damaged: {len(store.rows)} items instead of {info['count']}; build it again"
            )
        return store

    def seen(self) -> tuple[int, int, int] | None:
        """What is on the disk now; other than :attr:`stamp` once it is another state."""
        return _stamp(self.folder)

    @property
    def stale(self) -> bool:
        """Whether another program changed, replaced or deleted the gallery since it was read."""
        return self.seen() != self.stamp

    @contextlib.contextmanager
    def writing(self) -> Iterator[None]:
        """Be the only program that changes the gallery; another one is waited for."""
        with locked(self.folder):
            yield

    def check(self) -> None:
        """Raise where any byte of a part or an index is not as it was written."""
        for part in self.info["parts"]:
            verify(self.folder / "parts" / part["name"], None, part.get("sum"))
        index = self.info["index"]
        if index.get("folder"):
            verify(self.folder / index["folder"], None, index.get("sum"))

    def _read_part(self, part: dict[str, Any]) -> _Part:
        """A part that `gallery.json` names, or is about to name: its vectors, its tokens and its lines."""
        path, rows = self.folder / "parts" / part["name"], part["rows"]
        try:
            self._budget = verify(path, self._budget, part.get("sum"))
            vectors = load_npy(path / "vectors.npy", mmap_mode="r")
            lines = [(line.get("row"), _item(line)) for _, line in json_lines(path / "items.jsonl")]
        except DamagedError:
            raise
        except Exception as error:  # numpy passes on what the reader of its headers meets
            raise XRetrieveError(f"{path} is damaged or missing ({error}); build the gallery again") from error
        if vectors.shape != (rows, self.info["dim"]) or len(lines) < rows:
            raise XRetrieveError(
                f"{path} is damaged: {len(lines)} items and vectors {vectors.shape} instead of {rows} rows"
            )
        return vectors, _token_part(path, rows, self.info["tokens"]) if self.has_tokens and rows else None, lines

    def _take(self, part: _Part) -> None:
        """Its rows follow those that are there."""
        vectors, tokens, lines = part
        if self.has_tokens:
            self.token_parts.append(tokens)
        self.parts.append(vectors)
        self.items += [item for _, item in lines[: len(vectors)]]
        for row, item in lines[len(vectors) :]:  # changes to earlier rows
            self.items[row] = item  # type: ignore[index]

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def total(self) -> int:
        """Row numbers given so far, removed ones included."""
        return len(self.items)

    def live(self) -> np.ndarray:
        """(N,) row numbers of the items that are there, ascending."""
        return np.fromiter((row for row, item in enumerate(self.items) if item is not None), np.int64)

    @property
    def has_tokens(self) -> bool:
        """Whether pictures keep their local tokens beside their vectors."""
        return bool(self.info.get("tokens"))

    @property
    def longest(self) -> int:
        """Tokens of the picture that has most."""
        return max((int(part.lengths.max()) for part in self.token_parts if part is not None), default=1)

    def spool(self) -> TokenSpool | None:
        """Takes the tokens of pictures on their way to :meth:`change`; None where the gallery keeps none."""
        about = self.info.get("tokens")
        return TokenSpool(self.folder, about["pooled"], about["dtype"]) if about else None

    def tokens(self, rows: Sequence[int] | np.ndarray, local: bool = True) -> Prepared:
        """Local tokens, mask and the head's own vectors of some rows (at least one); float32 on the CPU, no extras.

        local: False leaves the tokens on the disk; theirs are then (N,L,0).
        """
        rows = np.asarray(rows, dtype=np.int64)
        own = self.info["tokens"]["pooled"]
        pooled = None if own else torch.from_numpy(self.vectors(rows))
        found, start = [], 0
        for part, tokens in zip(self.parts, self.token_parts, strict=True):
            here = np.flatnonzero((rows >= start) & (rows < start + len(part)))
            if tokens is not None and len(here):
                found.append((here, *tokens.read(rows[here] - start, local)))
                if own and tokens.pooled is not None:
                    values = torch.from_numpy(tokens.pooled[rows[here] - start])
                    pooled = values.new_empty(len(rows), values.shape[1]) if pooled is None else pooled
                    pooled[torch.from_numpy(here)] = values
            start += len(part)
        assert pooled is not None, "no rows asked for"
        return join(found, pooled)

    def vectors(self, rows: Sequence[int] | np.ndarray) -> np.ndarray:
        """(N, D) float32 vectors of some rows."""
        rows = np.asarray(rows, dtype=np.int64)
        out = np.empty((len(rows), self.info["dim"]), np.float32)
        start = 0
        for part in self.parts:
            here = (rows >= start) & (rows < start + len(part))
            out[here] = part[rows[here] - start]
            start += len(part)
        return out

    def change(
        self,
        removed: Sequence[str] = (),
        items: Sequence[Item] = (),
        vectors: np.ndarray | None = None,
        updated: Mapping[str, Item] | None = None,
        tokens: TokenSpool | None = None,
        **info: Any,
    ) -> None:
        """One step, all or nothing.

        Args:
            removed: ids that go.
            items: new items, with their ``vectors`` (N, D), and ``tokens`` where the gallery keeps them.
            updated: by its id now, an item that takes the place of another, under the same id or a new one; its vector
                stays.
            info: keys of ``gallery.json`` to set.
        """
        changed = [(self.rows[id_], item) for id_, item in (updated or {}).items()]
        new = self.info | {"removed": self.info["removed"] + [self.rows[id_] for id_ in removed]} | info
        read: _Part | None = None
        if items or changed:
            part = {"name": f"{len(new['parts']):04d}-{uuid.uuid4().hex[:6]}", "rows": len(items)}
            array = np.asarray(vectors, np.float32) if items else np.zeros((0, new["dim"]), np.float32)
            read = self._write_part(part, items, array, changed, tokens)
            new["parts"] = [*new["parts"], part]
        new["count"] = len(self.rows) - len(removed) + len(items)
        self._commit(new)
        for id_ in removed:
            self.items[self.rows.pop(id_)] = None
        for id_ in updated or {}:
            del self.rows[id_]
        self.rows |= {item.id: row for row, item in changed}
        self.rows |= {item.id: self.total + i for i, item in enumerate(items)}
        if read is not None:
            self._take(read)

    def compact(self, **info: Any) -> None:
        """Merge all parts into one without the removed rows (row numbers change), and delete what no longer counts.

        What was damaged on the disk is an error: it must not get a new checksum.
        """
        for old in self.info["parts"]:
            verify(self.folder / "parts" / old["name"], None, old.get("sum"))
        live = self.live()
        part: dict[str, Any] = {"name": f"0000-{uuid.uuid4().hex[:6]}", "rows": len(live)}
        items = [self.items[row] for row in live]
        tokens = self.spool()
        if tokens is not None:
            for start in range(0, len(live), MERGED):
                tokens.append(self.tokens(live[start : start + MERGED]))
        read = self._write_part(part, items, self.vectors(live), [], tokens)  # type: ignore[arg-type]
        self._commit(self.info | {"parts": [part] if len(live) else [], "removed": []} | info)
        self.items, self.parts, self.token_parts = [], [], []
        if len(live):
            self._take(read)
        self.rows = {item.id: row for row, item in enumerate(self.items) if item is not None}
        self.clean()

    @property
    def fragmented(self) -> bool:
        """True when merging is worth its cost."""
        return len(self.info["parts"]) > MAX_PARTS or 3 * len(self.info["removed"]) > self.total

    def clean(self) -> None:
        """Delete parts and indexes that `gallery.json` does not name, and what killed programs left."""
        for place in (self.folder, self.folder / "parts"):
            tidy_folder(place)
        for path in self._unnamed():
            shutil.rmtree(path, ignore_errors=True)

    def _unnamed(self) -> list[Path]:
        kept = {part["name"] for part in self.info["parts"]} | {self.info["index"].get("folder")}
        found = [*self.folder.glob("parts/*"), *self.folder.glob("index-*")]
        return [path for path in found if path.name not in kept]

    def _clean_up(self) -> None:
        """:meth:`clean` where there is something to delete and nobody is writing."""
        for place in (self.folder, self.folder / "parts"):
            tidy_folder(place)
        if self._unnamed():
            with contextlib.suppress(XRetrieveError), locked(self.folder, wait=False):
                if not self.stale:
                    self.clean()

    def _write_part(
        self,
        about: dict[str, Any],
        items: Sequence[Item],
        vectors: np.ndarray,
        changes: list[tuple[int, Item]],
        tokens: TokenSpool | None,
    ) -> _Part:
        """Write a part and read it back; nothing counts before `gallery.json` names it."""
        lines = [item.to_dict() for item in items] + [item.to_dict() | {"row": row} for row, item in changes]
        with atomic_folder(self.folder / "parts" / about["name"], sealed=True) as part:
            np.save(part / "vectors.npy", vectors)
            if tokens is not None and items:
                tokens.write(part)
            (part / "items.jsonl").write_bytes(encode(to_json_lines(lines)))
        about["sum"] = checksum(self.folder / "parts" / about["name"] / SUMS)
        read = self._read_part(about)
        if [item.id for _, item in read[2]] != [line["id"] for line in lines]:
            raise XRetrieveError(f"{self.folder}: the names of its pictures are not read back as they were written; "
                                 "nothing was changed")  # fmt: skip
        return read

    def _commit(self, info: dict[str, Any]) -> None:
        if self.stale:
            raise XRetrieveError(
                f"{self.folder} was changed by another program meanwhile; open it again and repeat this step"
            )
        info = info | {"revision": self.info["revision"] + 1, "updated": _now()}
        write_json(self.folder / MANIFEST, info, sealed=True)
        self.info, self.stamp = info, _stamp(self.folder)


def _stamp(folder: Path) -> tuple[int, int, int] | None:
    """Changes whenever `gallery.json` does; None where there is none."""
    try:
        stat = os.stat(folder / MANIFEST)
    except OSError:
        return None
    return stat.st_ino, stat.st_mtime_ns, stat.st_size


def _instead(folder: Path) -> str:
    """Why ``folder`` is no gallery, and what to type: never a command that writes one over somebody's pictures."""
    if not is_there(folder):
        return f"(there is no such folder); make one with `xretrieve index PHOTOS --out {quote(str(folder))}`"
    named = Path(f"{folder.resolve().name}.xr")
    if is_file(named / MANIFEST):
        return f"(no {MANIFEST}); did you mean {named}?"
    return f"(no {MANIFEST}); if it holds pictures, `xretrieve index {quote(str(folder))}` makes {named} of them"


def _token_part(path: Path, rows: int, about: dict[str, Any]) -> TokenPart:
    return TokenPart(path, rows, about["dim"], about["pooled"], about["dtype"])


def _item(line: dict[str, Any]) -> Item:
    return Item(**{k: v for k, v in line.items() if k in FIELDS})


def _now() -> str:
    return datetime.now(timezone.utc).isoformat(timespec="seconds")
