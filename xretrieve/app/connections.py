"""Connections within bounds.

uvicorn closes idle connections, but has no deadline for a header, and its limit of connections answers in a form of
its own while those that fill it stay. hypercorn has a time limit of each read only, so that a byte a second is enough.
granian has a deadline for headers, but lets what is over its limit wait instead of answering it, and its server for an
application of the same process is called experimental. So uvicorn's protocol, with whichever parser is installed, is
kept within bounds here.
"""

from __future__ import annotations

import asyncio
import json
from typing import Any

from uvicorn.config import HTTP_PROTOCOLS
from uvicorn.importer import import_from_string

from xretrieve.app.settings import Settings

HEADER = 2**16  # bytes of a header
ANSWERED = 128  # connections beyond the limit that are told so; more are closed without a word
STALLED, UNUSED, SILENT = 1.0, 1.0, 3.0  # seconds: since a header stopped, since an answer, without a byte
REASONS = {
    400: "Bad Request",
    408: "Request Timeout",
    431: "Request Header Fields Too Large",
    503: "Service Unavailable",
}


def bounded_protocol(settings: Settings, parser: str = "auto") -> type[Any]:
    """A class for uvicorn's ``http=``; its connections know each other. ``parser`` is a name of uvicorn's."""
    protocol: Any = import_from_string(HTTP_PROTOCOLS[parser])  # type: ignore[index]

    class Bounded(protocol):  # type: ignore[misc]
        limits = settings
        new: dict[Any, float] = {}  # connections that have sent no whole header yet, the oldest first; when they came
        idle: dict[Any, float] = {}  # those between two requests, the oldest first; since when

        def connection_made(self, transport: Any) -> None:
            """A new connection; where there are too many, the one that waits for the least has to go."""
            super().connection_made(transport)
            self._timer: asyncio.TimerHandle | None = None
            self._stuck: asyncio.TimerHandle | None = None
            self._bytes, self._refused = 0, False
            if len(self.connections) > self.limits.connections + ANSWERED:
                transport.abort()
                return
            if len(self.connections) > self.limits.connections and not self._make_room():
                self._refused = True  # as soon as its request comes, so that the answer can be read
            self.new[self] = self.loop.time()
            self._begin()

        def data_received(self, data: bytes) -> None:
            """Bytes of a header, of a body, or of a body that nobody reads any more."""
            if self._refused:
                return self._end(503, "too many connections; try again in 1 s")
            self.idle.pop(self, None)
            before = self.cycle
            over = before is None or before.response_complete
            drains = over and before is not None and before.more_body
            super().data_received(data)
            if self.cycle is not before:
                self.new.pop(self, None)
                self._stop()
                self._bytes = 0
            elif over:
                self._bytes += 0 if drains else len(data)
                if self._bytes > HEADER:
                    self._end(431, f"the header is larger than {HEADER} bytes")
                elif self._timer is None:
                    self._begin()
            return None

        def on_response_complete(self) -> None:
            """The connection waits for its next request."""
            super().on_response_complete()
            if self.cycle.response_complete and not self.cycle.more_body and not self.transport.is_closing():
                self.idle[self] = self.loop.time()

        def pause_writing(self) -> None:
            """The client does not read its answer."""
            super().pause_writing()
            self._stuck = self._stuck or self.loop.call_later(self.limits.body_seconds, self.transport.abort)

        def resume_writing(self) -> None:
            """It reads on."""
            self._read_on()
            super().resume_writing()

        def _read_on(self) -> None:
            if self._stuck is not None:
                self._stuck.cancel()
                self._stuck = None

        def connection_lost(self, exc: Exception | None) -> None:
            """The connection is gone."""
            self.new.pop(self, None)
            self.idle.pop(self, None)
            self._stop()
            self._read_on()
            super().connection_lost(exc)

        def send_400_response(self, msg: str) -> None:
            """What cannot be parsed, in the form of all errors."""
            self._end(400, "this is no valid HTTP request")

        def _make_room(self) -> bool:
            """Close a connection that is certainly not asking just now."""
            now, first = self.loop.time(), next(iter(self.new), None)
            if first is not None and now - self.new[first] > (STALLED if first._bytes else SILENT):
                first.transport.abort()
                del self.new[first]
                return True
            first = next(iter(self.idle), None)
            if first is not None and now - self.idle[first] > UNUSED:
                del self.idle[first]
                first.transport.close()
                return True
            return False

        def _begin(self) -> None:
            self._timer = self.loop.call_later(self.limits.header_seconds, self._late)

        def _stop(self) -> None:
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None

        def _late(self) -> None:
            self._timer = None
            if self._bytes:
                self._end(408, f"the header took more than {self.limits.header_seconds:g} s to arrive")
            else:
                self.transport.close()

        def _end(self, status: int, sentence: str) -> None:
            if not self.transport.is_closing():
                body = json.dumps({"error": sentence}).encode()
                retry = "Retry-After: 1\r\n" if status == 503 else ""
                head = f"HTTP/1.1 {status} {REASONS[status]}\r\nContent-Type: application/json\r\nConnection: close\r\n"
                self.transport.write(f"{head}{retry}Content-Length: {len(body)}\r\n\r\n".encode() + body)
                self.transport.close()

    return Bounded
