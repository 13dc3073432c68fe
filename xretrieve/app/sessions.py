"""Sessions that callers hold by a random name; one that nobody uses is dropped."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from xretrieve.app.errors import ApiError

if TYPE_CHECKING:
    from xretrieve.session import Session


@dataclass
class Held:
    """A session, and when it was used last (seconds of the clock)."""

    session: Session
    used: float


class Sessions:
    """Only the worker's thread touches them.

    Args:
        most: open at the same time; more are status 503.
        minutes: without use, until one is dropped.
        clock: seconds.
    """

    def __init__(self, most: int, minutes: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._most, self.seconds, self._clock = most, 60 * minutes, clock
        self._held: dict[str, Held] = {}

    def __len__(self) -> int:
        return len(self._held)

    def open(self, make: Callable[[], Session]) -> tuple[str, Session]:
        """A new session and its name."""
        self._expire()
        if len(self._held) >= self._most:
            first = min(held.used for held in self._held.values())
            wait = max(1, round(first + self.seconds - self._clock()))
            raise ApiError(503, f"{self._most} sessions are open already; close one, or try again in {wait} s", wait)
        session, name = make(), secrets.token_urlsafe(12)
        self._held[name] = Held(session, self._clock())
        return name, session

    def get(self, name: str) -> Session:
        """The session of a name, which is used now; one that is not there is status 404."""
        self._expire()
        if name not in self._held:
            raise ApiError(404, "there is no such session, or it was not used for long; open a new one")
        self._held[name].used = self._clock()
        return self._held[name].session

    def close(self, name: str) -> None:
        """Drop one."""
        self.get(name)
        del self._held[name]

    def _expire(self) -> None:
        now = self._clock()
        self._held = {name: held for name, held in self._held.items() if now - held.used < self.seconds}
