"""The folders that a gallery's pictures come from: which they are, what is taken of them, which are there now."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from xretrieve.data.folder import Found, lies, no_pictures, scan_folder
from xretrieve.data.patterns import Patterns
from xretrieve.errors import XRetrieveError
from xretrieve.gallery.items import Item, places_of
from xretrieve.utils.paths import expand, is_file, is_folder


@dataclass
class Named:
    """The files of a source.

    Args:
        files: (id, absolute path) of each.
        folder: where the source is a folder, its absolute path.
        found: and what lies in it.
    """

    files: list[tuple[str, Path]] = field(default_factory=list)
    folder: Path | None = None
    found: Found = field(default_factory=Found)


class Sources:
    """Folders and patterns of a gallery.

    Args:
        known: its items.
        info: the content of ``gallery.json``, whose keys ``folders`` and ``patterns`` are read; older ones have none.
        patterns: those that hold now.
    """

    def __init__(self, known: Iterable[Item], info: dict[str, Any], patterns: Patterns | None = None) -> None:
        self.patterns = patterns or kept_patterns(info)
        self.kept: dict[str, Any] = dict(info.get("folders", {}))
        self.roots = set(self.kept)
        self.roots |= {item.path.removesuffix("/" + item.id) for item in known if item.path.endswith("/" + item.id)}
        self._reached: dict[str, str] = {}

    def root(self, path: Path) -> Path | None:
        """The innermost of the gallery's folders that a path lies below."""
        return next((parent for parent in path.parents if str(parent) in self.roots), None)

    def name(self, path: str) -> str:
        """The id of a picture: its path below the folder it comes from."""
        place = Path(path)
        return place.relative_to(self.root(place) or place.parent).as_posix()

    def read(self, source: Any, known: Sequence[Item]) -> Named:
        """Every picture file of a folder or a list. Inside a folder that was indexed before, ids stay relative to that
        one, and so do patterns; files that are named one by one are taken whatever the patterns say."""
        named = Named()
        if isinstance(source, (str, Path)) and is_file(Path(source)):
            source = [source]
        if isinstance(source, (str, Path)):
            root = Path(os.path.abspath(expand(source)))
            named.folder, base = root, root if str(root) in self.roots else self.root(root) or root
            named.found = scan_folder(root, self.patterns, base)
            paths = named.found.pictures
            inside = [item for item in known if item.path.startswith(f"{root}/")]
            if not paths and inside and named.found.empty:
                raise XRetrieveError(
                    f"{root} is empty, but {len(inside)} pictures of it are in the gallery: is its disk there? "
                    "Nothing was removed"
                )
            if not paths and not inside:
                raise no_pictures(source, named.found)
        else:
            if not source:
                raise XRetrieveError("nothing to index: the list of pictures is empty")
            paths = [Path(os.path.abspath(path)) for path in source]
            for path in paths:
                if not is_file(path):
                    raise XRetrieveError(
                        f"no picture at {path}" + ("; give one folder, or a list of files" if is_folder(path) else "")
                    )
            root = Path(os.path.commonpath([path.parent for path in paths]))
        if named.folder is not None and self.root(root) is None:
            self.roots.add(str(root))
        for path in dict.fromkeys(paths):
            named.files.append((path.relative_to(self.root(path) or root).as_posix(), path))
        return named

    def about(self, named: Named, items: Iterable[Item]) -> dict[str, Any]:
        """The keys of ``gallery.json`` after a source was read; folders that are gone and empty are forgotten."""
        if named.folder is None:
            return {}
        paths = [item.path for item in items if item.path]
        kept = {
            folder: about for folder, about in self.kept.items()
            if reached(Path(folder)) != "lost" or any(path.startswith(f"{folder}/") for path in paths)
        }  # fmt: skip
        kept[str(named.folder)] = {"left_out": named.found.left_out, "idle": named.found.idle}
        patterns = {"include": list(self.patterns.include), "exclude": list(self.patterns.exclude)}
        return {"folders": kept, "patterns": patterns}

    def lies(self, path: str) -> str:
        """``there``, ``gone``, ``away`` (it cannot be looked at now: an empty mount point, a closed folder), or
        ``lost`` (the folder that it comes from is not there)."""
        state = lies(path)
        if state != "gone":
            return state
        root = self.root(Path(path)) or Path(path).parent
        if str(root) not in self._reached:
            self._reached[str(root)] = reached(root)
        return self._reached[str(root)]


def reached(folder: Path) -> str:
    """What a picture is that is not in its folder: ``gone``, or ``away`` or ``lost`` as the whole folder is."""
    try:
        with os.scandir(folder) as entries:
            return "gone" if any(True for _ in entries) else "away"
    except (FileNotFoundError, NotADirectoryError):
        return "lost"
    except OSError:
        return "away"


def lying(items: Sequence[Item], info: dict[str, Any], where: str) -> list[str]:
    """Ids of pictures of which no file is there: those that are ``gone``, or ``away``."""
    sources, found = Sources(items, info), []
    for item in items:
        states = {sources.lies(path) for path in places_of(item)}
        if states and "there" not in states and (states == {"gone"}) == (where == "gone"):
            found.append(item.id)
    return found


def kept_patterns(info: dict[str, Any]) -> Patterns:
    """The patterns in ``gallery.json``."""
    kept = info.get("patterns", {})
    return Patterns(tuple(kept.get("include", ())), tuple(kept.get("exclude", ())))
