"""What a gallery in memory has to do with other programs that change the one on the disk."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from xretrieve.errors import XRetrieveError
from xretrieve.gallery.matchers import Matchers
from xretrieve.gallery.metadata_filter import MetadataFilter
from xretrieve.gallery.store import Store
from xretrieve.gallery.vector_index import GalleryIndex

if TYPE_CHECKING:
    from typing_extensions import Self

    from xretrieve.matcher import Matcher


class Followed:
    """A gallery that was read, and follows what happens to its folder.

    Args:
        store: what was read.
        matcher, coarse: as in :class:`xretrieve.gallery.matchers.Matchers`.
    """

    def __init__(self, store: Store, matcher: Matcher | None = None, coarse: Matcher | None = None) -> None:
        self._store, self._matchers = store, Matchers(store, matcher, coarse)
        self._index = GalleryIndex(store)
        self._filter: MetadataFilter | None = None
        self._coded: dict[str, str] | None = None  # ids that are not plain ASCII, by their usual form
        self._follows = True  # a session stays with what it started from
        self._unread: Any = None  # the state on the disk that could not be read
        self.problem = ""

    def prepare(self) -> None:
        """Load the whole of both matchers and the index now; a search loads what it needs and is not there yet."""
        self._matchers.ready()
        self._index.load()

    @property
    def current(self) -> bool:
        """Whether searches see what is on the disk: no other program changed the gallery since it was read."""
        return not self._store.stale

    def refresh(self) -> bool:
        """Read the gallery again where another program changed it; True when it did. Every search begins with this.

        What cannot be read (gone, damaged, of a model that is not there) leaves everything as it was, and ``problem``
        says what is wrong; else that is ''.
        """
        if not self._follows:
            return False
        store, now = self._store, self._store.seen()
        if now == store.stamp or (self.problem and now == self._unread):
            return False
        try:
            self._take(Store.open(store.folder))
        except XRetrieveError as error:
            self.problem, self._unread = str(error), now
            return False
        return True

    @property
    def seen(self) -> Any:
        """What the disk shows of the gallery now; another value than :attr:`stamp` when it was changed."""
        return self._store.seen()

    @property
    def stamp(self) -> Any:
        """What the disk showed when the gallery was read."""
        return self._store.stamp

    def held(self) -> Self:
        """The gallery as it is now, as an object of its own that does not follow the disk."""
        held = copy.copy(self)
        held._follows = False
        return held

    def renewed(self) -> Self | None:
        """What :meth:`refresh` would make of it, whole and loaded, as an object of its own; None where it would make
        nothing. This object goes on answering from what it has, only ``problem`` is told."""
        newer = copy.copy(self)
        newer._follows = True
        changed = newer.refresh()
        self.problem, self._unread = newer.problem, newer._unread
        newer._follows = False
        return newer if changed else None

    def _take(self, store: Store, load: bool = True) -> None:
        matchers, index = self._matchers.over(store), GalleryIndex(store)
        if load:  # the new ones are there before the old ones go
            matchers.main, matchers.coarse  # noqa: B018
            index.load()
        self._store, self._matchers, self._index = store, matchers, index
        self._filter = self._coded = None
        self.problem, self._unread = "", None

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        """The only program that changes the gallery, from its newest state on, without what killed programs left."""
        with self._store.writing():
            if self._store.stale:
                self._take(Store.open(self._store.folder), load=False)
            self._store.clean()
            yield
