"""What the routes of one server share."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from xretrieve.app.follow import Follower
from xretrieve.app.lanes import Lanes
from xretrieve.app.metrics import Metrics
from xretrieve.app.pictures import Copies, Decoders
from xretrieve.app.sessions import Sessions
from xretrieve.app.settings import SHARED, Settings
from xretrieve.app.worker import Worker

if TYPE_CHECKING:
    from xretrieve.gallery import Gallery


@dataclass
class State:
    """The gallery, who works on it, and what is kept between requests."""

    follower: Follower
    settings: Settings
    metrics: Metrics
    lanes: Lanes
    texts: Worker
    pictures: Worker
    sessions: Sessions
    decoders: Decoders
    copies: Copies

    @classmethod
    def of(cls, gallery: Gallery, settings: Settings) -> State:
        """A new state, its threads not started."""
        metrics, follower = Metrics(), Follower(gallery, settings.follow_seconds)
        lanes = Lanes(settings, metrics)
        texts = Worker("xretrieve-texts", follower, settings.batch, metrics)
        pictures = Worker("xretrieve-pictures", follower, settings.batch, metrics)
        shared = os.environ.get(SHARED)
        place = Path(shared) / "sessions.sqlite" if shared else None
        sessions = Sessions(settings.sessions, settings.session_minutes, settings.live_sessions, place)
        metrics.watch("xretrieve_waiting", "Requests that wait or are worked on", lambda: lanes.waiting, add=True)
        metrics.watch("xretrieve_sessions", "Open sessions", lambda: len(sessions))
        metrics.watch("xretrieve_pictures", "Pictures in the index", lambda: len(follower.newest))
        metrics.watch("xretrieve_revision", "Revision of the index", lambda: follower.newest.info["revision"])
        decoders = Decoders(settings)
        return cls(follower, settings, metrics, lanes, texts, pictures, sessions, decoders, Copies(decoders))

    @property
    def gallery(self) -> Gallery:
        """The gallery as it was read last. Whoever needs it twice for one answer asks once."""
        return self.follower.newest

    def start(self) -> None:
        """Start what works."""
        for part in (self.follower, self.texts, self.pictures):
            part.start()

    def stop(self) -> None:
        """Stop it; what is being done is finished."""
        for part in (self.texts, self.pictures, self.follower):
            part.stop()
