"""What Prometheus reads at ``/metrics``.

Where several processes serve, ``PROMETHEUS_MULTIPROC_DIR`` is set before this module is imported, and the client
library adds their counters.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Literal

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector

from xretrieve.app.settings import COUNTERS

SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)


class Metrics:
    """The counters of one server (each has a registry of its own)."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.requests = Counter("xretrieve_requests", "Requests answered", ["path", "status"], registry=self.registry)
        self.seconds = Histogram(
            "xretrieve_request_seconds", "Time to answer", ["path"], buckets=SECONDS, registry=self.registry
        )
        self.batch = Histogram(
            "xretrieve_batch_searches", "Searches answered together", buckets=(1, 2, 4, 8, 16, 32),
            registry=self.registry,
        )  # fmt: skip
        self.rejected = Counter(
            "xretrieve_rejected", "Requests turned away because the queue was full", registry=self.registry
        )
        self._watched: list[tuple[Gauge, Callable[[], float]]] = []

    def watch(self, name: str, help_: str, read: Callable[[], float], add: bool = False) -> None:
        """A gauge that is read whenever it is asked for; of several processes the highest counts, or they are added."""
        mode: Literal["livesum", "livemax"] = "livesum" if add else "livemax"
        self._watched.append((Gauge(name, help_, registry=self.registry, multiprocess_mode=mode), read))

    def text(self) -> bytes:
        """All of them in Prometheus' text format."""
        for gauge, read in self._watched:
            gauge.set(read())
        if not os.environ.get(COUNTERS):
            return generate_latest(self.registry)
        every = CollectorRegistry()
        MultiProcessCollector(every)
        return generate_latest(every)
