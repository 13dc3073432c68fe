"""The gallery as it is on the disk: another program's changes are read beside the searches, and then seen by all."""

from __future__ import annotations

import gc
import threading
from typing import TYPE_CHECKING

from xretrieve.utils.allocation import give_back_memory

if TYPE_CHECKING:
    from xretrieve.gallery import Gallery

PATIENCE = 0.3  # seconds that the first request after a change waits for it to be read; then answers are of before


class Follower:
    """Looks at the disk in a thread of its own.

    Args:
        gallery: to begin with. It is never changed: a new state is another object, so that an answer has one revision.
        seconds: between two looks.
    """

    def __init__(self, gallery: Gallery, seconds: float) -> None:
        self._gallery, self._seconds = gallery.held(), seconds
        self._wake, self._looked = threading.Event(), threading.Condition()
        self._looks, self._looking = 0, False
        self._stopped = True
        self._thread: threading.Thread | None = None
        self._waited: object = None  # the change that a request has waited for

    def start(self) -> None:
        """Begin to look, or begin again after :meth:`stop`."""
        self._stopped = False
        self._wake.clear()
        self._thread = threading.Thread(target=self._run, name="xretrieve-follow", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End the thread."""
        self._stopped = True
        self._wake.set()
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    @property
    def newest(self) -> Gallery:
        """The last state that was read."""
        return self._gallery

    @property
    def problem(self) -> str:
        """What is wrong with a newer state that cannot be read, or ''."""
        return self._gallery.problem

    def gallery(self, patience: float = PATIENCE) -> Gallery:
        """The state to answer from: that on the disk where it is read soon, else the one of before."""
        seen = self._gallery.seen
        if seen != self._gallery.stamp and seen != self._waited and self._thread is not None:
            self._waited = seen
            self.look(patience)
        return self._gallery

    def look(self, patience: float) -> bool:
        """Look at the disk now, and wait for it at most so many seconds; whether the newest state is that on the
        disk."""
        with self._looked:
            enough = self._looks + (2 if self._looking else 1)  # looks; one that is under way may be of before
            self._wake.set()
            self._looked.wait_for(
                lambda: self._gallery.current or self._stopped or (bool(self.problem) and self._looks >= enough),
                patience,
            )
        return self._gallery.current

    def _run(self) -> None:
        while not self._stopped:
            self._wake.wait(self._seconds)
            with self._looked:
                self._wake.clear()
                self._looking = True
            newer = None
            if not self._stopped and not self._gallery.current:
                try:
                    newer = self._gallery.renewed()
                except Exception as error:  # whatever it is: this thread goes on looking
                    self._gallery.problem = f"{type(error).__name__}: {error}"
            with self._looked:
                self._gallery = self._gallery if newer is None else newer
                self._looks, self._looking = self._looks + 1, False
                self._looked.notify_all()
            if newer is not None:
                gc.unfreeze()  # the state of before is no longer needed
                gc.collect()
                gc.freeze()
                give_back_memory()
