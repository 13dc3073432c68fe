"""`where={"split": "test"}`: equality on the metadata of a gallery's items."""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from xretrieve.errors import XRetrieveError, unknown
from xretrieve.gallery.items import Item


class MetadataFilter:
    """Looks up rows by metadata; each key is turned into a table the first time it is asked for.

    Args:
        items: by row, None where removed.
    """

    def __init__(self, items: Sequence[Item | None]) -> None:
        self._items = items
        self._tables: dict[str, dict[Any, list[int]]] = {}

    def rows(self, where: dict[str, Any]) -> np.ndarray:
        """Rows, ascending, whose metadata equals every key of ``where``.

        A list as the wanted value means any of them; an item whose own value is a list matches by any of its members.
        """
        if not isinstance(where, dict):
            raise XRetrieveError(f'where: expected a dict such as {{"split": "test"}}, got {where!r}')
        found: set[int] | None = None
        for key, wanted in where.items():
            table = self._table(key)
            options = wanted if isinstance(wanted, (list, tuple, set, frozenset)) else [wanted]
            rows = {row for option in options for row in table.get(_plain(option), ())}
            found = rows if found is None else found & rows
        if found is None:
            return np.array([row for row, item in enumerate(self._items) if item is not None], np.int64)
        return np.array(sorted(found), np.int64)

    def _table(self, key: str) -> dict[Any, list[int]]:
        if key not in self._tables:
            table: dict[Any, list[int]] = {}
            for row, item in enumerate(self._items):
                if item is not None and key in item.metadata:
                    value = item.metadata[key]
                    for member in value if isinstance(value, list) else [value]:
                        table.setdefault(_plain(member), []).append(row)
            if not table:
                known = {name for item in self._items if item is not None for name in item.metadata}
                if (same := same_name(str(key), known - {key})) is not None:
                    return self._table(same)
                raise unknown("metadata key", str(key), known)
            self._tables[key] = table
        return self._tables[key]


def same_name(name: str, known: Iterable[str]) -> str | None:
    """The known name that is this one however it is coded (macOS takes letters and their accents apart)."""
    wanted = unicodedata.normalize("NFC", name)
    return next((other for other in known if unicodedata.normalize("NFC", other) == wanted), None)


def _plain(value: Any) -> Any:
    """A key for a dict; true and 1 stay apart, 1 and 1.0 do not; "é" is one text however it is coded."""
    if isinstance(value, bool) or isinstance(value, (list, dict, tuple)):
        return unicodedata.normalize("NFC", json.dumps(value, sort_keys=True, ensure_ascii=False)), type(value).__name__
    return unicodedata.normalize("NFC", value) if isinstance(value, str) else value
