"""Files that are either whole or not there: written to a temporary name and renamed."""

from __future__ import annotations

import contextlib
import glob
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from xretrieve.errors import XRetrieveError
from xretrieve.utils.texts import encode, parse_json, read_text


@contextlib.contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path in the same folder; rename it to ``path`` on success, delete it on failure."""
    path = Path(path)
    with _writable(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".part" + path.suffix, dir=path.parent)
    os.close(handle)
    part = Path(name)
    try:
        yield part
        umask = os.umask(0)
        os.umask(umask)
        part.chmod(0o666 & ~umask)
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


@contextlib.contextmanager
def atomic_folder(path: str | Path) -> Iterator[Path]:
    """Yield a temporary folder beside ``path``; on success it takes the place of ``path``, on failure it is deleted."""
    path = Path(path)
    with _writable(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        recover_folder(path)
        part = Path(tempfile.mkdtemp(prefix=f".{path.name}.", suffix=".part", dir=path.parent))
    try:
        yield part
        part.chmod(0o755)
        if path.exists():
            old = Path(tempfile.mkdtemp(prefix=f".{path.name}.", suffix=".old", dir=path.parent))
            path.replace(old / "folder")
            part.replace(path)
            shutil.rmtree(old)
        else:
            part.replace(path)
    finally:
        shutil.rmtree(part, ignore_errors=True)


def recover_folder(path: str | Path) -> None:
    """Put a folder back that was moved aside by an :func:`atomic_folder` that was killed before the new one took its
    place."""
    path = Path(path)
    if not path.exists():
        for old in path.parent.glob(f".{glob.escape(path.name)}.*.old/folder"):
            old.replace(path)
            old.parent.rmdir()
            return


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Let one process at a time in; the lock goes with its process, so a killed one blocks nobody."""
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        import fcntl
    except ImportError:  # no such lock on Windows; two at once then do the work twice, with the same result
        yield
        return
    handle = os.open(path, os.O_CREAT | os.O_RDWR, 0o666)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


@contextlib.contextmanager
def _writable(path: Path) -> Iterator[None]:
    """A place that cannot be written is bad input, not a bug."""
    try:
        yield
    except OSError as error:
        raise XRetrieveError(f"cannot write {path}: {error.strerror}; choose another place") from error


def write_text(path: str | Path, text: str) -> None:
    """Write UTF-8 text atomically."""
    with atomic_path(path) as part:
        part.write_bytes(encode(text))


def write_json(path: str | Path, value: Any) -> None:
    """Write JSON (UTF-8, indented) atomically."""
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
    return Path(root or os.environ.get("XRETRIEVE_DATA") or "data").expanduser()


def cache_root() -> Path:
    """Where caches live: ``XRETRIEVE_CACHE``, else ``~/.cache/xretrieve``."""
    return Path(os.environ.get("XRETRIEVE_CACHE") or "~/.cache/xretrieve").expanduser()
