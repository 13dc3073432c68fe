"""What other installed packages add, found by their entry points; a package that fails is named in one error."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from importlib.metadata import EntryPoint, entry_points
from typing import Any, TypeVar

from xretrieve.errors import XRetrieveError

BACKBONES, HEADS, DATASETS = "xretrieve.backbones", "xretrieve.heads", "xretrieve.datasets"
GROUPS = (BACKBONES, HEADS, DATASETS)
T = TypeVar("T")


class PluginError(XRetrieveError):
    """An installed plug-in that cannot be used: whose it is, what it failed with, and what to do."""


def plugins(group: str) -> dict[str, EntryPoint]:
    """The entry points of a group by name; of two packages that give one name, the first on the path."""
    found: dict[str, EntryPoint] = {}
    for point in entry_points(group=group):
        found.setdefault(point.name, point)
    return found


def load_plugin(point: EntryPoint) -> Any:
    """The object behind an entry point.

    Raises:
        PluginError: its package cannot be imported, or has no such object.
    """
    try:
        return point.load()
    except Exception as error:  # a plug-in is anybody's code, and may fail in any way while it is imported
        raise broken(point, f"failed with {type(error).__name__}: {error}") from error


def broken(point: EntryPoint, why: str) -> PluginError:
    """The error for a plug-in that cannot be used."""
    package = point.dist.name if point.dist else point.value.partition(".")[0]
    return PluginError(
        f"{point.group} plug-in {point.name!r} ({point.value}, of the package {package}) {why}; mend that package, or "
        f"remove it: pip uninstall {package}"
    )


def usable(names: list[str], read: Callable[[str], T]) -> dict[str, T]:
    """What ``read`` gives for each name. A broken plug-in is left out with a warning: it must not hide the others."""
    found = {}
    for name in names:
        try:
            found[name] = read(name)
        except PluginError as error:
            warnings.warn(str(error), stacklevel=3)
    return found


def state() -> list[dict[str, str]]:
    """Each installed plug-in: ``group``, ``name``, ``value``, ``package``, and ``error``, empty where it imports."""
    rows = []
    for group in GROUPS:
        for name, point in plugins(group).items():
            package = f"{point.dist.name} {point.dist.version}" if point.dist else ""
            row = {"group": group, "name": name, "value": point.value, "package": package, "error": ""}
            try:
                load_plugin(point)
            except PluginError as error:
                row["error"] = str(error)
            rows.append(row)
    return rows
