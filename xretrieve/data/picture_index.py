"""Finding picture files by name in the folders where public downloads put them, and saying which are broken."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path

from xretrieve.errors import XRetrieveError
from xretrieve.utils.paths import is_folder


class PictureIndex:
    """File names of a few folders, listed once (30,000 look-ups then cost no system call).

    Args:
        folders: candidates in order of preference; those that do not exist are remembered for messages only.
    """

    def __init__(self, folders: Iterable[Path]) -> None:
        self.folders = list(dict.fromkeys(folders))
        self._paths: dict[str, Path] = {}
        for folder in self.folders:
            if is_folder(folder):
                with os.scandir(folder) as entries:
                    for entry in entries:
                        self._paths.setdefault(entry.name, folder / entry.name)

    @property
    def sought(self) -> list[str]:
        """The folders that exist; where none does, the first few that would have been taken."""
        return [str(f) for f in self.folders if is_folder(f)] or [str(f) for f in self.folders[:3]]

    def find(self, names: Sequence[str]) -> Path | None:
        """The first of ``names`` that is there, or None."""
        for name in names:
            if name in self._paths:
                return self._paths[name]
        return None


def coco_names(filename: str) -> list[str]:
    """The names one COCO photo has in the 2014 and in the 2017 release (same photo, same number).

    >>> coco_names("COCO_val2014_000000391895.jpg")
    ['COCO_val2014_000000391895.jpg', '000000391895.jpg']
    """
    short = filename.rsplit("_", 1)[-1]
    return [filename] if short == filename else [filename, short]


def picture_problem(path: Path, read: bool = False) -> str:
    """Why ``path`` cannot be used as a picture, or '' when nothing is wrong.

    Args:
        read: also decode every pixel, which finds truncated files; without it only existence and size are looked at.
    """
    try:
        if path.stat().st_size == 0:
            return "0 bytes"
    except OSError:
        return "not there"
    if read:
        from xretrieve.data.pictures import read_picture

        try:
            read_picture(path)
        except XRetrieveError as error:
            return str(error).replace(f"{path}: ", "")
    return ""
