"""Reading and writing small files, and where data and caches lie. How files are written whole: `utils/atomic.py`."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

from xretrieve.utils.atomic import atomic_folder, atomic_path, recover_folder
from xretrieve.utils.checksums import stamped
from xretrieve.utils.locks import locked
from xretrieve.utils.paths import expand
from xretrieve.utils.texts import encode, parse_json, read_text

__all__ = ["atomic_folder", "atomic_path", "cache_root", "content_hash", "data_root", "locked", "read_json",
           "recover_folder", "write_json", "write_text"]  # fmt: skip


def write_text(path: str | Path, text: str) -> None:
    """Write UTF-8 text atomically."""
    with atomic_path(path) as part:
        part.write_bytes(encode(text))


def write_json(path: str | Path, value: Any, sealed: bool = False) -> None:
    """Write JSON (UTF-8, indented) atomically; ``sealed`` with a checksum (:mod:`xretrieve.utils.checksums`)."""
    value = stamped(value) if sealed else value
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def read_json(path: str | Path) -> Any:
    """Read a JSON file; a broken one is an error that names the file, line and column."""
    return parse_json(read_text(path), os.fspath(path))


def content_hash(path: str | Path) -> str:
    """SHA-256 of a file's bytes, in hex."""
    with open(path, "rb") as handle:
        return (
            hashlib.file_digest(handle, "sha256").hexdigest()
            if hasattr(hashlib, "file_digest")
            else hashlib.sha256(handle.read()).hexdigest()
        )


def data_root(root: str | Path | None = None) -> Path:
    """The data root: the argument, else ``XRETRIEVE_DATA``, else ``./data``."""
    return expand(root or os.environ.get("XRETRIEVE_DATA") or "data")


def cache_root() -> Path:
    """Where caches live: ``XRETRIEVE_CACHE``, else ``~/.cache/xretrieve``."""
    return expand(os.environ.get("XRETRIEVE_CACHE") or "~/.cache/xretrieve")
