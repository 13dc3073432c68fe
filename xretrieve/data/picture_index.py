"""Finding picture files by name in the folders where public downloads put them, and saying which are broken."""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Iterable, Sequence
from pathlib import Path

from xretrieve.errors import XRetrieveError
from xretrieve.utils.paths import is_file, is_folder

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff")


class PictureIndex:
    """File names of a few folders, listed once (30,000 look-ups then cost no system call).

    Args:
        folders: candidates in order of preference; those that do not exist are remembered for messages only.
        deep: list the folders below them too: some copies sort the photos by category, others do not.
    """

    def __init__(self, folders: Iterable[Path], deep: bool = False) -> None:
        self.folders = list(dict.fromkeys(folders))
        self._paths: dict[str, Path] = {}
        self._stems: dict[str, Path] = {}  # without suffix: .JPG, .webp, ... in place of .jpg
        for folder in self.folders:
            for where, below, files in os.walk(folder) if is_folder(folder) else ():
                for name in files:
                    self._paths.setdefault(name, Path(where, name))
                if not deep:
                    break
                below.sort()
        for name, path in self._paths.items():
            stem, suffix = os.path.splitext(name)
            if suffix.lower() in SUFFIXES:
                self._stems.setdefault(unicodedata.normalize("NFC", stem), path)

    @property
    def sought(self) -> list[str]:
        """The folders that exist; where none does, the first few that would have been taken."""
        return [str(f) for f in self.folders if is_folder(f)] or [str(f) for f in self.folders[:3]]

    def find(self, names: Sequence[str]) -> Path | None:
        """The first of ``names`` that is there, or None. A name may be a path below a folder; where no file is called
        so, one without the folders before it or with another suffix of pictures is taken."""
        for name in names:
            if name in self._paths:
                return self._paths[name]
        for name in names:
            below = [folder / name for folder in self.folders] if "/" in name else []
            for path in below:
                if is_file(path):
                    return path
            short = name.replace("\\", "/").rsplit("/", 1)[-1]
            stem, suffix = os.path.splitext(short)
            stem = stem if suffix.lower() in SUFFIXES else short
            found = self._paths.get(short) or self._stems.get(unicodedata.normalize("NFC", stem))
            if found is not None:
                return found
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
    except (OSError, ValueError):  # not there, or no name of a file
        return "not there"
    if read:
        from xretrieve.data.pictures import read_picture

        try:
            read_picture(path)
        except XRetrieveError as error:
            return str(error).replace(f"{path}: ", "")
    return ""
