"""Sessions that callers hold by a random name; one that nobody uses is dropped.

What was said lies in a small database, so that it survives the process that answers and there may be many; the work
that was done on it is kept in memory for those used last.
"""

from __future__ import annotations

import json
import secrets
import sqlite3
import time
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from xretrieve.app.errors import ApiError

if TYPE_CHECKING:
    from xretrieve.gallery import Gallery
    from xretrieve.session import Session

TABLE = "CREATE TABLE IF NOT EXISTS sessions (name TEXT PRIMARY KEY, how TEXT, texts TEXT, used REAL)"


class Sessions:
    """Only the thread of the text searches touches them.

    Args:
        most: open at the same time; more are status 503.
        minutes: without use, until one is dropped.
        live: kept in memory.
        place: file of the database, for several processes; by default it is in memory.
        clock: seconds, the same in all processes.
    """

    def __init__(
        self, most: int, minutes: float, live: int = 64, place: Path | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:  # fmt: skip
        self._most, self.seconds, self._live, self._clock = most, 60 * minutes, live, clock
        self._place = place
        self._base: sqlite3.Connection | None = None
        self._kept: OrderedDict[str, tuple[Gallery, Session]] = OrderedDict()

    def __len__(self) -> int:
        return int(self._one("SELECT count(*) FROM sessions WHERE used > ?", self._clock() - self.seconds)[0])

    def open(self, gallery: Gallery, combine: str = "", where: dict[str, Any] | None = None) -> tuple[str, Session]:
        """A new session over a gallery and its name."""
        now = self._clock()
        self._database.execute("DELETE FROM sessions WHERE used <= ?", (now - self.seconds,))
        count, first = self._one("SELECT count(*), min(used) FROM sessions")
        if count >= self._most:
            wait = max(1, round(first + self.seconds - now))
            raise ApiError(503, f"{self._most} sessions are open already; close one, or try again in {wait} s", wait)
        session, name = gallery.session(combine, where), secrets.token_urlsafe(12)
        how = json.dumps({"combine": combine, "where": where})
        self._database.execute("INSERT INTO sessions VALUES (?, ?, '[]', ?)", (name, how, now))
        self._keep(name, gallery, session)
        return name, session

    def get(self, name: str, gallery: Gallery) -> Session:
        """The session of a name over the gallery as it is now, and it is used now; one that is not there is status
        404."""
        now = self._clock()
        row = self._one("SELECT how, texts FROM sessions WHERE name = ? AND used > ?", name, now - self.seconds)
        if row is None:
            self._kept.pop(name, None)
            raise ApiError(404, "there is no such session, or it was not used for long; open a new one")
        self._database.execute("UPDATE sessions SET used = ? WHERE name = ?", (now, name))
        texts, (over, session) = json.loads(row[1]), self._kept.get(name, (None, None))
        if session is None or over is not gallery or list(session.texts) != texts:
            session = gallery.session(**json.loads(row[0]))  # of another process, or of before, or out of memory
            for text in texts:
                session.add(text)
        self._keep(name, gallery, session)
        return session

    def note(self, name: str, session: Session) -> None:
        """Keep what was said."""
        self._database.execute("UPDATE sessions SET texts = ? WHERE name = ?", (json.dumps(session.texts), name))

    def close(self, name: str) -> None:
        """Drop one."""
        self._kept.pop(name, None)
        if not self._database.execute("DELETE FROM sessions WHERE name = ?", (name,)).rowcount:
            raise ApiError(404, "there is no such session, or it was not used for long; open a new one")

    def _keep(self, name: str, gallery: Gallery, session: Session) -> None:
        self._kept[name] = (gallery, session)
        self._kept.move_to_end(name)
        while len(self._kept) > self._live:
            self._kept.popitem(last=False)

    def _one(self, query: str, *values: Any) -> Any:
        return self._database.execute(query, values).fetchone()

    @property
    def _database(self) -> sqlite3.Connection:
        if self._base is None:  # at the first use: a process that was forked opens its own
            self._base = self._open()
        return self._base

    def _open(self) -> sqlite3.Connection:
        base = sqlite3.connect(self._place or ":memory:", isolation_level=None, check_same_thread=False, timeout=10)
        base.execute("PRAGMA journal_mode = WAL")
        base.execute("PRAGMA synchronous = OFF")  # they need not survive the machine
        base.execute(TABLE)
        base.execute("CREATE INDEX IF NOT EXISTS by_use ON sessions (used)")
        return base
