"""What a gallery holds, and what of its folders it does not: pictures that failed, are gone, or were left out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from xretrieve.gallery.follow import Followed
from xretrieve.gallery.items import Item
from xretrieve.gallery.sources import lying


class Contents(Followed):
    """The part of :class:`xretrieve.Gallery` that says what is in it."""

    @property
    def path(self) -> Path:
        """The folder."""
        return self._store.folder

    @property
    def info(self) -> dict[str, Any]:
        """What ``gallery.json`` holds: matcher, index and its recall, dates, counts."""
        return self._store.info

    @property
    def failed(self) -> list[dict[str, str]]:
        """Pictures that could not be indexed: ``path`` and ``reason``."""
        failed: list[dict[str, str]] = self.info["failed"]
        return failed

    @property
    def gone(self) -> list[str]:
        """Ids of pictures of which no file is left. They are found as before, until they are removed.

        A picture of a folder that is missing, empty or closed is not gone, but :attr:`away`.
        """
        return lying(self._items(), self.info, "gone")

    @property
    def away(self) -> list[str]:
        """Ids of pictures that cannot be reached at the moment: the whole folder that they come from is missing or
        empty, as that of a disk that is not mounted, or the place may not be looked at."""
        return lying(self._items(), self.info, "away")

    @property
    def left_out(self) -> list[dict[str, Any]]:
        """What was not taken from the folders, counted by reason: ``folder``, ``reason``, ``count``, ``examples``
        (paths below the folder) and ``message``, a sentence."""
        folders: dict[str, Any] = self.info.get("folders", {})
        return [{"folder": folder, **entry} for folder, about in folders.items() for entry in about["left_out"]]

    @property
    def ids(self) -> list[str]:
        """Ids in gallery order."""
        return [item.id for item in self._items()]

    @property
    def metadata(self) -> list[dict[str, Any]]:
        """Metadata in gallery order."""
        return [item.metadata for item in self._items()]

    def __len__(self) -> int:
        return len(self._store)

    def __contains__(self, id_: object) -> bool:
        return id_ in self._store.rows

    def _items(self) -> list[Item]:
        return [item for item in self._store.items if item is not None]
