"""Where the files of Visual Genome lie, and the split lists.

The layout is that of uvavision/DrillDown: ``caches/`` and ``vg/`` below one folder; or everything flat in one folder.
"""

from __future__ import annotations

from pathlib import Path

from xretrieve.data.annotations import NothingFoundError, canonical_split
from xretrieve.errors import XRetrieveError
from xretrieve.utils.files import data_root
from xretrieve.utils.paths import is_file, is_folder, is_there
from xretrieve.utils.texts import read_text

SPLITS = ("train", "val", "test")


def base(root: str | Path | None) -> Path:
    """The dataset's folder: ``visual_genome`` or ``vg`` below the data root, or the root itself."""
    folder = data_root(root)
    if not is_folder(folder):
        raise XRetrieveError(f"no data root {str(folder)!r} (no such folder); give --root, root= or XRETRIEVE_DATA")
    own = folder / "visual_genome"
    if is_folder(own):
        return own
    flat = any(is_file(folder / sub / f"vg_{split}.txt") for sub in (".", "caches") for split in SPLITS)
    return folder if flat else own


def places(folder: Path) -> list[Path]:
    """Folders below :func:`base` that may hold a file."""
    return [folder, folder / "caches", folder / "vg"]


def find(folder: Path, name: str) -> Path | None:
    """The first file or folder of this name, or None."""
    return next((place / name for place in places(folder) if is_there(place / name)), None)


def split_ids(folder: Path, split: str) -> list[int]:
    """The image ids of a split in the order of its list, which is the order of the gallery.

    Raises:
        XRetrieveError: no list, a line that is no id, an id that is there twice or in another split's list too.
    """
    name = f"vg_{canonical_split(split)}.txt"
    path = find(folder, name)
    if path is None:
        raise NothingFoundError(
            f"visual_genome/{split}: no split list {name} in {', '.join(map(str, places(folder)))}. "
            "`xretrieve data check visual_genome` says where to get it"
        )
    ids = read_ids(path)
    own = set(ids)
    for other in SPLITS:
        beside = path.with_name(f"vg_{other}.txt")
        if beside != path and is_file(beside):
            shared = own & set(read_ids(beside))
            if shared:
                raise XRetrieveError(
                    f"{path}: image {min(shared)} is in {beside.name} too ({len(shared)} such images); "
                    "take the published lists, whose splits are disjoint"
                )
    return ids


def read_ids(path: Path) -> list[int]:
    """One whole number a line."""
    ids: list[int] = []
    seen: set[int] = set()
    for number, line in enumerate(read_text(path).split(), start=1):
        if not line.isdigit():
            raise XRetrieveError(f"{path}: entry {number} is {line[:40]!r}, not an image id (a whole number)")
        if int(line) in seen:
            raise XRetrieveError(f"{path}: entry {number}, image {line}, is there twice")
        ids.append(int(line))
        seen.add(int(line))
    if not ids:
        raise XRetrieveError(f"{path}: the list is empty")
    return ids
