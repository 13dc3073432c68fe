"""What Prometheus reads at ``/metrics``."""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

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

    def watch(self, name: str, help_: str, read: Callable[[], float]) -> None:
        """A gauge that is read whenever it is asked for."""
        Gauge(name, help_, registry=self.registry).set_function(read)

    def text(self) -> bytes:
        """All of them in Prometheus' text format."""
        return generate_latest(self.registry)
