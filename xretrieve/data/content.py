"""Content keys of items: the same bytes have the same key, wherever the file lies and whatever it is called."""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from xretrieve.data.pictures import shrinking
from xretrieve.errors import XRetrieveError
from xretrieve.utils.files import content_hash

_Row = tuple[str, int, int, bytes]  # path, size, time of change in ns, key


def text_key(text: str) -> bytes:
    """Key of a text."""
    return hashlib.sha256(b"text\0" + text.encode()).digest()


def picture_key(picture: Any) -> bytes:
    """Key of a PIL image: mode, size, pixels, palette and what changes how it is read (rotation, transparency)."""
    info = (
        picture.mode,
        picture.size,
        picture.getexif().get(0x0112),
        repr(picture.info.get("transparency")),
        picture.getpalette(),
    )
    return hashlib.sha256(repr(info).encode() + picture.tobytes()).digest()


class ContentKeys:
    """Keys of files, remembered in a small SQLite file by path, size and time of change.

    Several processes may use the same file; when it cannot be used, files are simply hashed again.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def of(self, items: Sequence[Any]) -> list[bytes | XRetrieveError]:
        """One key per item (a path or a PIL image), or the error that says why it has none."""
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with closing(sqlite3.connect(self.path, timeout=30)) as memory, memory:
                memory.execute("create table if not exists files (path text primary key, size int, time int, key blob)")
                found, new = _keys(items, memory)
                # Written at the end: the lock is not held while files are hashed.
                memory.executemany("insert or replace into files values (?, ?, ?, ?)", new)
                return found
        except (sqlite3.Error, OSError):
            return _keys(items, None)[0]


def _key_of_file(path: Path) -> bytes:
    """SHA-256 of the file; another one where it is read smaller than it is, for its features then are others."""
    key, times = bytes.fromhex(content_hash(path)), shrinking(path)
    return key if times == 1 else hashlib.sha256(key + f"read at 1/{times}".encode()).digest()


def _keys(items: Sequence[Any], memory: sqlite3.Connection | None) -> tuple[list[bytes | XRetrieveError], list[_Row]]:
    found: list[bytes | XRetrieveError] = []
    new: list[_Row] = []
    for item in items:
        if hasattr(item, "getpalette"):
            found.append(picture_key(item))
            continue
        if not isinstance(item, (str, Path)):
            found.append(XRetrieveError(f"expected a path or a PIL image, got {type(item).__name__}"))
            continue
        path = Path(item)
        try:
            stat, place = path.stat(), str(path.resolve())
            asked = "select size, time, key from files where path = ?"
            row = memory.execute(asked, (place,)).fetchone() if memory is not None else None
            if row is None or row[:2] != (stat.st_size, stat.st_mtime_ns):
                row = (stat.st_size, stat.st_mtime_ns, _key_of_file(path))
                new.append((place, *row))
            found.append(row[2])
        except OSError as error:
            found.append(XRetrieveError(f"{path}: {error.strerror}" if path.exists() else f"no picture at {path}"))
    return found, new
