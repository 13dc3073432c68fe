"""`xretrieve check`: whether every byte of an index, a run or the feature cache is as it was written."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from xretrieve.errors import XRetrieveError
from xretrieve.gallery.store import MANIFEST, Store
from xretrieve.utils.atomic import LEFT, finish_files
from xretrieve.utils.checksums import KEY, SUMS, compare, listed, read_sealed, verify
from xretrieve.utils.files import read_json
from xretrieve.utils.paths import is_folder


@dataclass
class Checkup:
    """What was found in a folder.

    Args:
        folder: that was looked at, with everything below it.
        files: with a checksum, and ``bytes`` that were read of them.
        unknown: files without one: of former versions, or not ours.
        problems: what is damaged, a sentence each.
    """

    folder: Path
    files: int = 0
    bytes: int = 0
    unknown: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)


def check_up(folder: str | Path) -> Checkup:
    """Read everything below a folder that has a checksum: indexes, runs, members of ensembles, shards of features."""
    folder = Path(folder)
    if not is_folder(folder):
        raise XRetrieveError(f"{folder} is no folder; give an index, a run, or the feature cache")
    found, seen = Checkup(folder), set[Path]()
    for place, below, names in os.walk(folder):
        below[:] = sorted(name for name in below if not LEFT.fullmatch(name))
        here = Path(place)
        finish_files(here)
        if SUMS in names:
            _folder(found, seen, here)
        if MANIFEST in names:
            _gallery(found, seen, here)
        if "report.json" in names:
            _report(found, seen, here)
        found.unknown += [str((here / name).relative_to(folder)) for name in sorted(names) if here / name not in seen]
    found.unknown = [name for name in found.unknown if folder / name not in seen]
    return found


def _try(found: Checkup, look: Any, *arguments: Any) -> Any:
    try:
        return look(*arguments)
    except XRetrieveError as error:
        if str(error) not in found.problems:
            found.problems.append(str(error))
        return None


def _file(found: Checkup, seen: set[Path], path: Path, about: dict[str, Any]) -> None:
    if path not in seen:
        seen.add(path)
        found.files += 1
        found.bytes += about["bytes"]
        _try(found, compare, path, about)


def _folder(found: Checkup, seen: set[Path], folder: Path) -> None:
    seen.add(folder / SUMS)
    for name, about in sorted((_try(found, listed, folder / SUMS) or {}).items()):
        _file(found, seen, folder / name, about)


def _gallery(found: Checkup, seen: set[Path], folder: Path) -> None:
    """The seals of its parts, and that they go together."""
    info = _sealed(found, seen, folder / MANIFEST)
    if not isinstance(info, dict) or not isinstance(info.get("parts"), list):
        return
    for part in info["parts"]:
        _try(found, verify, folder / "parts" / part["name"], 0, part.get("sum"))
    if info["index"].get("folder"):
        _try(found, verify, folder / info["index"]["folder"], 0, info["index"].get("sum"))
    _try(found, Store.open, folder)


def _report(found: Checkup, seen: set[Path], folder: Path) -> None:
    values = _sealed(found, seen, folder / "report.json")
    if isinstance(values, dict) and isinstance(values.get("files"), dict) and KEY in read_json(folder / "report.json"):
        for name, about in values["files"].items():
            _file(found, seen, folder / name, about)


def _sealed(found: Checkup, seen: set[Path], path: Path) -> Any:
    value = _try(found, read_json, path)
    if isinstance(value, dict) and KEY not in value:  # of a former version
        return value
    seen.add(path)
    found.files += 1
    found.bytes += path.stat().st_size
    return _try(found, read_sealed, path)
