"""What a folder of pictures leaves out: hidden things, waste baskets and thumbnails of systems, and patterns."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

from xretrieve.errors import XRetrieveError, shown

# Folders that systems make beside people's pictures, in lower case: NAS (Synology, QNAP), Windows, macOS, Linux,
# Lightroom.
SYSTEM = frozenset({
    "@eadir", "#recycle", "#snapshot", "@recycle", "@recently-snapshot", "@tmp", "@sharebin", "@snapshot",
    "$recycle.bin", "recycler", "recycled", "system volume information", "found.000", "lost+found", "__macosx",
})  # fmt: skip
SYSTEM_ENDS = (".lrdata",)


@dataclass(frozen=True)
class Patterns:
    """Which pictures of a folder are taken, by their path below it.

    A pattern without ``/`` is the name of a file or of a folder anywhere; one with ``/`` is a path from the top. ``*``
    and ``?`` stand for characters of one name, ``**`` for any folders, ``[ab]`` for one of some characters; case does
    not count. What matches a folder matches all below it.

    Args:
        include: take only what matches one of these; all, where there are none. One that names a hidden or a system
            folder has it walked.
        exclude: leave out what matches one of these.

    >>> Patterns(exclude=("*.png", "2019/private")).reason("2019/private/a.jpg")
    'excluded'
    """

    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()

    @classmethod
    def of(cls, include: Sequence[str] | None, exclude: Sequence[str] | None, kept: Patterns | None = None) -> Patterns:
        """Patterns as they are given; of what is not given (None), those that were kept. An empty pattern is none."""
        kept = kept or cls()
        made = cls(_checked(include, kept.include, "include"), _checked(exclude, kept.exclude, "exclude"))
        _ = made._included, made._excluded  # a pattern that is none: said now
        return made

    @cached_property
    def _included(self) -> list[re.Pattern[str]]:
        return [_compiled(pattern) for pattern in self.include]

    @cached_property
    def _excluded(self) -> list[re.Pattern[str]]:
        return [_compiled(pattern) for pattern in self.exclude]

    @cached_property
    def _named(self) -> list[re.Pattern[str]]:
        """Parts of ``include`` that are more than wildcards."""
        parts = [part for pattern in self.include for part in pattern.split("/")]
        return [_compiled(part) for part in parts if part.strip("*?.")]

    def reason_of_part(self, path: str, folder: bool) -> str:
        """Why a file or a folder at a path is left out, its folders being none of it: ``hidden``, ``system``,
        ``excluded``; '' for no reason."""
        path = unicodedata.normalize("NFC", path)
        name = path.rpartition("/")[2]
        if any(pattern.fullmatch(path) for pattern in self._excluded):
            return "excluded"
        kind = "hidden" if name.startswith(".") else ""
        if folder and not kind and (name.lower() in SYSTEM or name.lower().endswith(SYSTEM_ENDS)):
            kind = "system"
        return "" if not kind or any(pattern.fullmatch(name) for pattern in self._named) else kind

    def includes(self, path: str) -> bool:
        """Whether a path, or a folder above it, is among those to take."""
        return not self.include or any(
            pattern.fullmatch(part) for part in _above(path) for pattern in self._included
        )  # fmt: skip

    def reason(self, path: str) -> str:
        """Why the picture at a path is left out, by itself or with a folder above; '' for no reason."""
        parts = _above(path)
        reasons = [self.reason_of_part(part, folder=part != parts[-1]) for part in parts]
        return next(filter(None, reasons), "" if self.includes(path) else "not included")

    def idle(self, paths: Iterable[str]) -> list[str]:
        """Patterns that match none of some paths, nor a folder above one."""
        left = dict(zip(self.include + self.exclude, self._included + self._excluded, strict=True))
        for path in paths:
            if not left:
                break
            for part in _above(path):
                left = {name: pattern for name, pattern in left.items() if not pattern.fullmatch(part)}
        return list(left)


def _checked(given: Sequence[str] | None, kept: tuple[str, ...], what: str) -> tuple[str, ...]:
    if given is None:
        return kept
    given = [given] if isinstance(given, str) else list(given)
    if any(not isinstance(pattern, str) for pattern in given):
        raise XRetrieveError(f"{what}: expected patterns such as '*.png' or 'private', got {shown(given)}")
    return tuple(dict.fromkeys(pattern for pattern in given if pattern.strip("/ ")))


def _above(path: str) -> list[str]:
    """A path and the folders above it, the topmost first."""
    parts = unicodedata.normalize("NFC", path).split("/")
    return ["/".join(parts[: count + 1]) for count in range(len(parts))]


def _compiled(pattern: str) -> re.Pattern[str]:
    text = unicodedata.normalize("NFC", pattern).removeprefix("./").rstrip("/")
    anywhere = "/" not in text
    text, made = text.lstrip("/"), ""
    pieces = re.findall(r"\*\*/|\*\*|\*|\?|\[[!^]?\]?[^\]/]*\]|.", text, re.DOTALL)
    for piece in pieces:
        if piece in ("**/", "**", "*", "?"):
            made += {"**/": "(?:.*/)?", "**": ".*", "*": "[^/]*", "?": "[^/]"}[piece]
        elif len(piece) > 2 and piece[0] == "[":
            inside = piece[1:-1].replace("\\", "\\\\").replace("[", "\\[")
            made += "[" + ("^" + inside[1:] if inside[0] in "!^" else inside) + "]"
        else:
            made += re.escape(piece)
    try:
        return re.compile(("(?:.*/)?" if anywhere else "") + made, re.IGNORECASE | re.DOTALL)
    except re.error as error:
        raise XRetrieveError(f"the pattern {pattern!r} cannot be read ({error})") from error
