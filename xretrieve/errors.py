"""The one exception that users see, and the helper that names the nearest valid word."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches


class XRetrieveError(Exception):
    """Bad input, said in one sentence: what was wrong, where (file, line, key, id), and what to type instead.

    The command line prints it as one line and exits with status 2; anything else that is raised is a bug.
    """


class UnknownNameError(XRetrieveError):
    """A name that nothing has: always the caller's slip, never the state of some file."""


class DiskError(XRetrieveError):
    """A place that cannot be written (full, read-only, gone): never the fault of what was to be written there."""


class QueryKindError(XRetrieveError):
    """A kind of query that a head cannot score; other heads, or its coarse vectors, may answer it."""


def unknown(kind: str, name: str, options: Iterable[str], listed_by: str = "") -> UnknownNameError:
    """The error for a name that is not one of ``options``; it names the nearest one, and of many what lists them.

    >>> str(unknown("head", "dula", ["dual", "sgr"]))
    "unknown head 'dula'; did you mean 'dual'? (known: dual, sgr)"
    """
    known = sorted(options)
    near = get_close_matches(name, known, n=1, cutoff=0.5)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    shown = ", ".join(known) if len(known) <= 30 else f"{', '.join(known[:8])}, ... {len(known)} in all"
    shown += f": {listed_by}" if listed_by and len(known) > 30 else ""
    return UnknownNameError(f"unknown {kind} {name!r}{hint} (known: {shown})")
