"""The one exception that users see, and the helper that names the nearest valid word."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches
from reprlib import Repr
from typing import Any

LONGEST = 1000  # characters of a message; what came in may have millions


class XRetrieveError(Exception):
    """Bad input, said in one sentence: what was wrong, where (file, line, key, id), and what to type instead.

    The command line prints it as one line and exits with status 2; anything else that is raised is a bug.
    """

    def __init__(self, message: object = "") -> None:
        super().__init__(cut(str(message)))


class UnknownNameError(XRetrieveError):
    """A name that nothing has: always the caller's slip, never the state of some file."""


class DiskError(XRetrieveError):
    """A place that cannot be written (full, read-only, gone): never the fault of what was to be written there."""


class QueryKindError(XRetrieveError):
    """A kind of query that a head cannot score; other heads, or its coarse vectors, may answer it."""


def cut(text: str, longest: int = LONGEST) -> str:
    """The text, of a long one the beginning and the end.

    >>> cut("one two three four five six seven eight nine ten eleven twelve", 60)
    'one two three f ... (32 more) ... n eleven twelve'
    """
    if len(text) <= longest:
        return text
    last = longest // 4
    first = longest - last - 30
    return f"{text[:first]} ... ({len(text) - first - last:,} more) ... {text[-last:]}"


def first_line(error: object, longest: int = 200) -> str:
    """The first line of what another library said, '' where it said nothing."""
    return str(error).strip().partition("\n")[0][:longest]


_SHORT = Repr()
_SHORT.maxlevel, _SHORT.maxdict, _SHORT.maxlist, _SHORT.maxtuple, _SHORT.maxset = 4, 8, 8, 8, 8
_SHORT.maxstring = _SHORT.maxother = 120


def shown(value: Any) -> str:
    """``repr`` for messages: short whatever the value holds, and made without going through all of it."""
    return cut(_SHORT.repr(value), 400)


def unknown(kind: str, name: str, options: Iterable[str], listed_by: str = "") -> UnknownNameError:
    """The error for a name that is not one of ``options``; it names the nearest one, and of many what lists them.

    >>> str(unknown("head", "dula", ["dual", "sgr"]))
    "unknown head 'dula'; did you mean 'dual'? (known: dual, sgr)"
    """
    known = sorted(options)
    name = cut(name, 120)
    near = get_close_matches(name, known, n=1, cutoff=0.5)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    shown = ", ".join(known) if len(known) <= 30 else f"{', '.join(known[:8])}, ... {len(known)} in all"
    shown += f": {listed_by}" if listed_by and len(known) > 30 else ""
    return UnknownNameError(f"unknown {kind} {name!r}{hint} (known: {shown})")
