"""What the routes of one server share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from anyio import CapacityLimiter

from xretrieve.app.metrics import Metrics
from xretrieve.app.pictures import Copies
from xretrieve.app.sessions import Sessions
from xretrieve.app.settings import Settings
from xretrieve.app.worker import Worker

if TYPE_CHECKING:
    from xretrieve.gallery import Gallery

DECODERS = 2  # pictures that are decoded at once: one of 50 million pixels takes 150 MB


@dataclass
class State:
    """The gallery, who works on it, and what is kept between requests."""

    gallery: Gallery
    settings: Settings
    metrics: Metrics
    worker: Worker
    sessions: Sessions
    copies: Copies
    decoders: CapacityLimiter

    @classmethod
    def of(cls, gallery: Gallery, settings: Settings) -> State:
        """A new state, its worker not started."""
        metrics = Metrics()
        worker = Worker(gallery, settings.queue, settings.batch, metrics)
        sessions = Sessions(settings.sessions, settings.session_minutes)
        metrics.watch("xretrieve_waiting", "Requests that wait for the model", lambda: worker.waiting)
        metrics.watch("xretrieve_sessions", "Open sessions", lambda: len(sessions))
        metrics.watch("xretrieve_pictures", "Pictures in the index", lambda: len(gallery))
        decoders = CapacityLimiter(DECODERS)
        return cls(gallery, settings, metrics, worker, sessions, Copies(), decoders)
