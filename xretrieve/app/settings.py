"""Where the server listens, and what it takes at most."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from xretrieve.errors import XRetrieveError
from xretrieve.session import LIMIT

SHARED = "XRETRIEVE_SERVE_SHARED"  # names a folder that the processes of one server share
COUNTERS = "PROMETHEUS_MULTIPROC_DIR"  # names the folder of their counters; read when prometheus_client is imported
LOOPBACK = ("127.0.0.1", "localhost", "::1")


@dataclass(frozen=True)
class Settings:
    """All of them can be set by ``-o KEY=VALUE`` of `xretrieve serve`.

    Args:
        host: address to listen on; the default is this machine only.
        port: 0 takes any free one.
        token: what callers must send as ``Authorization: Bearer TOKEN``; '' for none.
        hosts: further names that the server is called by, separated by commas. On a loopback address only requests
            for this machine are answered, so that no web page can reach it under a name of its own.
        connections: open at the same time; beyond, those that wait for nothing are closed, the oldest first, and if
            there is none a new one is answered with 503.
        header_seconds: that the header of a request may take to arrive.
        keep_alive_seconds: that a connection may wait for its next request.
        max_body: bytes of a request.
        body_seconds: that a request may take to arrive, and its answer to be read.
        body_rate: bytes a second that it must bring after its first 5 seconds.
        large: bytes of all requests above 64 KiB together; more are answered with 503.
        max_pixels: of a picture that is sent; more is refused before it is decoded.
        picture_seconds: that decoding one picture may take.
        max_text: characters of one text.
        max_texts: texts of one query, and sentences of a session.
        max_k: results.
        max_rerank: candidates that one search may have scored token by token.
        queue: text searches and calls of sessions that may wait; more are answered with 503.
        queue_seconds: that they may have to wait; more are answered with 503, but for 8 that always may.
        uploads: searches with a picture that may wait.
        explanations: that may wait.
        copies: small copies of pictures that may wait.
        batch: searches whose queries go through the model together.
        sessions: open at the same time.
        live_sessions: of which the work done so far is kept in memory; for another one the sentences are read again.
        session_minutes: until a session that nobody uses is dropped.
        follow_seconds: until a change of the index by another program is noticed.
    """

    host: str = "127.0.0.1"
    port: int = 8765
    token: str = ""
    hosts: str = ""
    connections: int = 512
    header_seconds: float = 5.0
    keep_alive_seconds: float = 30.0
    max_body: int = 12 * 2**20
    body_seconds: float = 60.0
    body_rate: int = 2**14
    large: int = 48 * 2**20
    max_pixels: int = 250_000_000
    picture_seconds: float = 20.0
    max_text: int = 1000
    max_texts: int = LIMIT
    max_k: int = 200
    max_rerank: int = 1000
    queue: int = 64
    queue_seconds: float = 0.5
    uploads: int = 8
    explanations: int = 8
    copies: int = 128
    batch: int = 16
    sessions: int = 10_000
    live_sessions: int = 64
    session_minutes: float = 30.0
    follow_seconds: float = 1.0

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if field.name != "port" and field.type in ("int", "float") and value <= 0:
                raise XRetrieveError(f"{field.name} is {value!r}; give a number above 0")
        if not 0 <= self.port <= 65535:
            raise XRetrieveError(f"port is {self.port}; give 0 (any free one) to 65535")
        if self.max_texts > LIMIT:
            raise XRetrieveError(f"max_texts is {self.max_texts}; a session takes {LIMIT} at most")
        if not self.token.isascii() or self.token.strip() != self.token:
            raise XRetrieveError("the token must be plain ASCII without spaces around it: it travels in a header")

    @property
    def limits(self) -> dict[str, int | float]:
        """All that is not about where the server listens."""
        return {key: value for key, value in dataclasses.asdict(self).items()
                if key not in ("host", "port", "token", "hosts")}  # fmt: skip

    @property
    def loopback(self) -> bool:
        """Whether only this machine can reach the server."""
        return self.host in LOOPBACK

    @property
    def names(self) -> frozenset[str] | None:
        """Host names that are answered; None: all."""
        given = self.given_hosts
        return frozenset({*LOOPBACK, *given}) if self.loopback else frozenset({self.host, *given}) if given else None

    @property
    def given_hosts(self) -> frozenset[str]:
        """``hosts``, each name."""
        return frozenset(name.strip().lower() for name in self.hosts.split(",") if name.strip())
