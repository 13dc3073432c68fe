"""The pictures of a folder, as people keep them: nested, mixed formats, names in any script."""

from __future__ import annotations

import os
import stat
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from xretrieve.data.patterns import Patterns
from xretrieve.errors import XRetrieveError
from xretrieve.utils.paths import is_folder, is_there

UNREAD = {".heic": "heic", ".heif": "heic", ".avif": "avif"}  # where the installed Pillow cannot
RAW = frozenset(
    ".3fr .arw .cr2 .cr3 .crw .dcr .dng .erf .iiq .kdc .mef .mos .mrw .nef .nrw .orf .pef .raf .raw .rw2 .rwl .sr2 "
    ".srf .srw .x3f".split()
)
OTHER_PICTURES = frozenset(
    ".ai .eps .exr .hdr .ico .j2k .jfif .jp2 .jpe .jpf .jpx .jxl .jxr .pcx .pgm .ppm .psb .psd .svg .svgz .tga .wdp "
    ".xcf".split()
)
EXAMPLES = 3  # paths that stand for all that was left out for one reason
# Reason: what one is, what many are, what to do about it.
SAID = {
    "heic": ("HEIC picture", "HEIC pictures", "`pip install 'xretrieve[heic]'` to read them"),
    "avif": ("AVIF picture", "AVIF pictures", "`pip install -U pillow` to read them"),
    "raw": ("camera RAW picture", "camera RAW pictures", "save them as JPEG to index them"),
    "format": ("picture in a format", "pictures in formats", "that cannot be read"),
    "unreadable": ("folder that cannot be read", "folders that cannot be read", "check their rights"),
    "excluded": ("file or folder excluded", "files and folders excluded", "by --exclude"),
    "not included": ("picture not included", "pictures not included", "by --include"),
    "system": ("system folder", "system folders", "thumbnails, waste baskets and the like"),
    "hidden": ("hidden picture or folder", "hidden pictures and folders", ""),
    "link": ("link to a folder", "links to folders", "links are not followed"),
    "other": ("other file", "other files", "no pictures by their names"),
}


@dataclass
class Found:
    """What a folder holds.

    Args:
        pictures: sorted by their path relative to the folder.
        left_out: what was left out, by reason: ``reason`` (a key of ``SAID``), ``count``, ``examples`` (paths relative
            to the folder) and ``message``, a sentence.
        unreadable: folders that could not be looked into.
        empty: nothing at all lies in the folder.
        idle: patterns that match nothing there.
    """

    pictures: list[Path] = field(default_factory=list)
    left_out: list[dict[str, Any]] = field(default_factory=list)
    unreadable: list[Path] = field(default_factory=list)
    empty: bool = False
    idle: list[str] = field(default_factory=list)


def picture_suffixes() -> frozenset[str]:
    """As :func:`xretrieve.data.decoding.picture_suffixes`."""
    from xretrieve.data import decoding  # with Pillow, which a search does not need

    return decoding.picture_suffixes()


def no_pictures(folder: str | Path, found: Found) -> XRetrieveError:
    """The error for a folder in which there is nothing to index."""
    left = "".join(f"; left out: {entry['message']}" for entry in found.left_out if entry["reason"] != "other")
    looked = ", ".join(sorted(picture_suffixes()))
    return XRetrieveError(f"{folder} holds no pictures (looked for {looked} in it and below){left}")


def scan_folder(folder: str | Path, patterns: Patterns | None = None, base: str | Path | None = None) -> Found:
    """All picture files under a folder, and a count of everything that was left out.

    Suffixes are compared without case. Hidden files and folders (a leading dot) and folders of systems are left out
    unless a pattern includes them; links to folders are not followed. A folder that is not there, or may not be read,
    is an error; one below it that may not be read is left out.

    Args:
        folder: where to look.
        patterns: what to include and exclude.
        base: a folder above, which the patterns' paths are relative to.
    """
    folder, patterns = Path(folder), patterns or Patterns()
    if not is_folder(folder):
        raise XRetrieveError(
            f"no folder {folder}" + (" (it is a file; give a list of paths)" if is_there(folder) else "")
        )
    above = folder.relative_to(base).as_posix() if base is not None and Path(base) != folder else ""
    found, suffixes, left = Found(), picture_suffixes(), _LeftOut()

    def closed(error: OSError) -> None:
        place = Path(error.filename or folder)
        if place == folder:
            raise XRetrieveError(f"{folder} cannot be read ({error.strerror}); check its rights, its disk") from error
        found.unreadable.append(place)
        left.add("unreadable", place.relative_to(folder).as_posix(), error.strerror or "")

    seen = 0
    for here, folders, files in os.walk(folder, onerror=closed):
        inside = Path(here).relative_to(folder).as_posix()
        prefix = "" if inside == "." else inside + "/"
        seen += len(folders) + len(files)
        walked = []
        for name in folders:
            path = prefix + name
            why = patterns.reason_of_part(_joined(above, path), folder=True)
            why = why or ("link" if os.path.islink(os.path.join(here, name)) else "")
            if why:
                left.add(why, path + "/")
            else:
                walked.append(name)
        folders[:] = walked
        for name in files:
            path, suffix = prefix + name, Path(name).suffix.lower()
            if suffix not in suffixes:
                if not name.startswith("."):
                    left.add(_kind(suffix), path, suffix)
                continue
            why = patterns.reason_of_part(_joined(above, path), folder=False)
            if not why and not patterns.includes(_joined(above, path)):
                why = "not included"
            if why:
                left.add(why, path)
            else:
                found.pictures.append(Path(here, name))
    found.pictures.sort(key=lambda path: path.relative_to(folder).as_posix())
    found.left_out, found.empty = left.told(), not seen
    if patterns.include or patterns.exclude:
        taken = [path.relative_to(folder).as_posix() for path in found.pictures]
        found.idle = patterns.idle(_joined(above, path) for path in [*taken, *left.matched])
    return found


def _joined(above: str, path: str) -> str:
    return f"{above}/{path}".rstrip("/") if above else path.rstrip("/")


def _kind(suffix: str) -> str:
    if suffix in UNREAD:
        return UNREAD[suffix]
    return "raw" if suffix in RAW else "format" if suffix in OTHER_PICTURES else "other"


class _LeftOut:
    def __init__(self) -> None:
        self._paths: dict[str, list[str]] = {}
        self._counts: Counter[str] = Counter()
        self._more: dict[str, Counter[str]] = {}  # suffixes, or the system's words
        self.matched: list[str] = []  # what a pattern left out

    def add(self, reason: str, path: str, more: str = "") -> None:
        self._counts[reason] += 1
        if len(self._paths.setdefault(reason, [])) < EXAMPLES:
            self._paths[reason].append(path.encode(errors="replace").decode())
        self._more.setdefault(reason, Counter())[more] += 1
        if reason == "excluded":
            self.matched.append(path)

    def told(self) -> list[dict[str, Any]]:
        return [self._told(reason) for reason in SAID if reason in self._counts]

    def _told(self, reason: str) -> dict[str, Any]:
        count, paths = self._counts[reason], self._paths[reason]
        one, many, do = SAID[reason]
        names = ", ".join(paths) + (", ..." if count > len(paths) else "")
        kinds = ", ".join(f"{kind or 'no suffix'} {n}" for kind, n in self._more[reason].most_common(4))
        if reason in ("format", "other"):
            names = kinds
        elif reason == "unreadable":
            names += f": {next(iter(self._more[reason]))}"
        message = f"{count} {one if count == 1 else many} ({names})" + (f": {do}" if do else "")
        return {"reason": reason, "count": count, "examples": paths, "message": message}


def lies(path: str | Path) -> str:
    """Whether a file is ``there``, or ``gone``, or cannot be looked at now (``away``)."""
    try:
        return "there" if stat.S_ISREG(os.stat(path).st_mode) else "gone"
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return "gone"
    except OSError:
        return "away"
