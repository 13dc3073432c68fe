"""Places for each kind of work: texts never wait for pictures, and what has no place is refused at once."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator
from typing import TYPE_CHECKING

from xretrieve.app.errors import ApiError

if TYPE_CHECKING:
    from xretrieve.app.metrics import Metrics
    from xretrieve.app.settings import Settings

LONGEST_WAIT = 60  # seconds that Retry-After asks for at most
ALWAYS = 8  # requests that may wait however slow the model is


class Lane:
    """The requests of one kind that are worked on or wait. Only the event loop counts them.

    Args:
        name: for people.
        places: that there are.
        seconds: that the last one may have to wait, as far as one knows; more is refused.
        metrics: told about what was refused.
    """

    def __init__(self, name: str, places: int, metrics: Metrics, seconds: float = math.inf) -> None:
        self.name, self.places, self._metrics, self._seconds = name, places, metrics, seconds
        self.inside = 0
        self.pace = 0.05  # seconds of one request, a running mean

    def enter(self) -> None:
        """Take a place, or raise an :class:`ApiError` of status 503."""
        wait = self.pace * (self.inside + 1)
        if self.inside >= self.places or (self.inside >= ALWAYS and wait > self._seconds):
            self._metrics.rejected.inc()
            seconds = max(1, min(LONGEST_WAIT, math.ceil(wait)))
            raise ApiError(503, f"{self.inside} {self.name} are waiting already; try again in {seconds} s", seconds)
        self.inside += 1

    def leave(self) -> None:
        """Give the place back."""
        self.inside -= 1

    def took(self, seconds: float) -> None:
        """One request took so long when its turn had come."""
        self.pace += 0.2 * (seconds - self.pace)


class Place:
    """A place that a request has. It is told in ``scope["place"]``."""

    def __init__(self, lane: Lane) -> None:
        lane.enter()
        self.lane = lane

    def move(self, lane: Lane) -> None:
        """Change to another lane, when the body says what the request is; status 503 where that one is full."""
        if lane is not self.lane:
            lane.enter()
            self.lane.leave()
            self.lane = lane


class Lanes:
    """Those of one server, and the memory that large requests take."""

    def __init__(self, settings: Settings, metrics: Metrics) -> None:
        self.texts = Lane("text searches", settings.queue, metrics, settings.queue_seconds)
        self.uploads = Lane("searches with a picture", settings.uploads, metrics)
        self.explanations = Lane("explanations", settings.explanations, metrics)
        self.copies = Lane("copies of pictures", settings.copies, metrics)
        self.all = {"texts": self.texts, "uploads": self.uploads, "explanations": self.explanations,
                    "copies": self.copies}  # fmt: skip
        self._metrics, self._room = metrics, settings.large
        self._large = 0
        self.untidy = False  # large requests have come and gone

    @property
    def waiting(self) -> int:
        """Requests that have a place."""
        return sum(lane.inside for lane in self.all.values())

    def of(self, path: str, large: bool) -> Lane | None:
        """The lane of a path; None for what costs nothing. ``large``: the body may hold a picture."""
        if path == "/api/search":
            return self.uploads if large else self.texts
        if path == "/api/search/upload":
            return self.uploads
        if path == "/api/explain":
            return self.explanations
        if path == "/api/pictures":
            return self.copies
        return self.texts if path.startswith("/api/sessions") else None

    @contextlib.contextmanager
    def place(self, lane: Lane | None) -> Iterator[Place | None]:
        """A place while a request is answered."""
        place = Place(lane) if lane is not None else None
        try:
            yield place
        finally:
            if place is not None:
                place.lane.leave()

    @contextlib.contextmanager
    def room(self, size: int) -> Iterator[None]:
        """Room for a large body until its request is answered; status 503 where others have it."""
        if self._large and self._large + size > self._room:
            self._metrics.rejected.inc()
            raise ApiError(503, "too many large requests at once; try again in 2 s", 2)
        self._large += size
        try:
            yield
        finally:
            self._large -= size
            self.untidy = True
