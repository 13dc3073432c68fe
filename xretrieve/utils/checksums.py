"""Checksums of files, so that bytes that changed on the disk are noticed: CRC-32, 1 to 4 GB a second.

A sealed folder holds ``checksums.json``: of every file its size and checksum. A sealed JSON file has a key
``checksum`` over its other keys. What was written before there were checksums is read as it is.
"""

from __future__ import annotations

import json
import os
import zlib
from pathlib import Path
from typing import Any

from xretrieve.errors import XRetrieveError
from xretrieve.utils.disk import sync
from xretrieve.utils.texts import parse_json, read_text

SUMS = "checksums.json"
KEY = "checksum"
BUDGET = 64 * 2**20  # bytes of a folder that are read to be checked when it is opened
BLOCK = 2**22


def checksum(path: str | Path) -> str:
    """CRC-32 of a file's bytes, in hex."""
    value = 0
    with open(path, "rb") as handle:
        while block := handle.read(BLOCK):
            value = zlib.crc32(block, value)
    return f"{value:08x}"


def measure(path: Path) -> dict[str, Any]:
    """Size and checksum of a file."""
    return {"bytes": path.stat().st_size, "crc32": checksum(path)}


def seal(folder: Path) -> str:
    """Write ``checksums.json`` into a folder that is complete; returns the checksum of that file itself."""
    names = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    files = {name: measure(folder / name) for name in names if name != SUMS}
    path = folder / SUMS
    path.write_text(json.dumps(stamped({"files": files}), indent=1) + "\n", encoding="utf-8")
    sync(path)
    return checksum(path)


def is_sealed(folder: Path) -> bool:
    """Whether a folder has checksums; those of former versions have none."""
    return (folder / SUMS).is_file()


def verify(folder: Path, budget: int | None = BUDGET, sealed: str | None = None, only: str = "") -> int | None:
    """Raise where a sealed folder is not as it was written: a file is missing, too short, or of other bytes.

    Args:
        folder: that may be sealed.
        budget: bytes to read at most, the smallest files first; sizes are always looked at. None: everything.
        sealed: what :func:`seal` returned; then the folder must be sealed so.
        only: look at files whose name begins so.

    Returns:
        what is left of the budget.
    """
    path = folder / SUMS
    if not is_sealed(folder):
        if sealed:
            raise damaged(path, "it is missing")
        return budget
    try:
        changed = sealed and checksum(path) != sealed
    except OSError as error:
        raise damaged(path, f"it cannot be read ({error.strerror})") from error
    if changed:
        raise damaged(path, "its bytes changed")
    files = sorted((one for one in listed(path).items() if one[0].startswith(only)), key=lambda one: one[1]["bytes"])
    for name, about in files:  # what is missing or cut is said first
        compare(folder / name, about, 0)
    for name, about in files:
        budget = compare(folder / name, about, budget)
    return budget


def listed(path: Path) -> dict[str, dict[str, Any]]:
    """Size and checksum of each file that a ``checksums.json`` names."""
    try:
        value = json.loads(path.read_bytes())
        if stamped(value)[KEY] != value[KEY]:
            raise ValueError
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise damaged(path, "its bytes changed, or it cannot be read") from error
    files: dict[str, dict[str, Any]] = value["files"]
    return files


def compare(path: Path, about: dict[str, Any], left: int | None = None) -> int | None:
    """Raise where a file is not what :func:`measure` found; of its bytes ``left`` may be read (None: all).

    Returns:
        what is left of them.
    """
    try:
        size = path.stat().st_size
    except OSError as error:
        raise damaged(path, f"it is missing ({error.strerror})") from error
    if size != about["bytes"]:
        raise damaged(path, f"it has {size} bytes instead of {about['bytes']}")
    if left is not None and size > left:
        return 0
    try:
        found = checksum(path)
    except OSError as error:
        raise damaged(path, f"it cannot be read ({error.strerror})") from error
    if found != about["crc32"]:
        raise damaged(path, "its bytes changed since they were written")
    return None if left is None else left - size


class DamagedError(XRetrieveError):
    """Bytes on the disk are not those that were written."""


def damaged(path: Path, how: str) -> DamagedError:
    """The error of a file that is not as it was written."""
    return DamagedError(f"{path} is damaged: {how}; make it again, or take it from a backup")


def stamped(value: dict[str, Any]) -> dict[str, Any]:
    """JSON values with their checksum, under the key ``checksum``."""
    rest = {key: one for key, one in value.items() if key != KEY}
    # where a model lies may be changed by hand, for it moves; that it is the right one is seen by its fingerprint
    free = {
        key: {**one, "source": ""} for key, one in rest.items() if isinstance(one, dict) and "source_options" in one
    }
    plain = json.dumps(json.loads(json.dumps(rest | free)), sort_keys=True, separators=(",", ":"))
    return {**rest, KEY: f"{zlib.crc32(plain.encode()):08x}"}


def unstamped(value: Any, path: str | os.PathLike[str]) -> Any:
    """The values without their checksum, which must be right where there is one."""
    if not isinstance(value, dict) or KEY not in value:
        return value
    if stamped(value)[KEY] != value[KEY]:
        raise damaged(
            Path(path), f'its bytes changed since they were written (changed by hand? then delete its key "{KEY}")'
        )
    return {key: one for key, one in value.items() if key != KEY}


def read_sealed(path: Path) -> Any:
    """A sealed JSON file, or one of before."""
    return unstamped(parse_json(read_text(path), os.fspath(path)), path)
