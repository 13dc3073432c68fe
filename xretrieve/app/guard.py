"""What every request passes before anything looks at it: who calls, by which name, and how much is sent.

Plain ASGI, so that nothing of a request is read before it may be.
"""

from __future__ import annotations

import hmac
import time
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from anyio import fail_after

from xretrieve.app.errors import ApiError
from xretrieve.app.metrics import Metrics
from xretrieve.app.settings import Settings

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

OPEN = ("/", "/docs", "/openapi.json", "/api/health")  # and /static/: they say nothing about the pictures
HEADERS = {
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
}


class Guard:
    """Middleware.

    Args:
        app: what is guarded.
        settings: names, token and size of a body.
        metrics: told about every answer.
    """

    def __init__(self, app: App, settings: Settings, metrics: Metrics) -> None:
        self._app, self._settings, self._metrics = app, settings, metrics
        self._reading = 0  # bodies that are being received

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One connection."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        start, status = time.perf_counter(), 500
        head = scope["method"] == "HEAD"  # answered as GET is, without the body
        scope = {**scope, "method": "GET"} if head else scope

        async def answer(message: MutableMapping[str, Any]) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                given = {name.lower() for name, _ in message["headers"]}
                more = [(name.encode(), value.encode()) for name, value in HEADERS.items()]
                message["headers"] = [*message["headers"], *(pair for pair in more if pair[0] not in given)]
            if head and message["type"] == "http.response.body":
                message = {**message, "body": b""}
            await send(message)

        try:
            receive = await self._check(scope, receive)
            await self._app(scope, receive, answer)
        except ApiError as error:
            await error.answer()(scope, receive, answer)
        finally:
            route = scope.get("route")
            path = getattr(route, "path", None) or "other"
            self._metrics.requests.labels(path, str(status)).inc()
            self._metrics.seconds.labels(path).observe(time.perf_counter() - start)

    async def _check(self, scope: Scope, receive: Receive) -> Receive:
        headers = {name.lower(): value for name, value in scope["headers"]}
        self._check_name(headers.get(b"host", b"").decode("latin-1"))
        if self._settings.token and scope["path"] not in OPEN and not scope["path"].startswith("/static/"):
            self._check_token(headers.get(b"authorization", b""))
        if scope["method"] in ("GET", "OPTIONS"):
            return receive
        return await self._body(headers, receive)

    def _check_name(self, host: str) -> None:
        names = self._settings.names
        name = host.lower()
        name = name[1:].partition("]")[0] if name.startswith("[") else name.rpartition(":")[0] or name
        if names is not None and name not in names:
            raise ApiError(403, f"this server is not called {name[:100]!r}; start it with -o hosts={name[:100]}")

    def _check_token(self, given: bytes) -> None:
        kind, _, token = given.partition(b" ")
        right = hmac.compare_digest(token.strip(), self._settings.token.encode())
        if kind.lower() != b"bearer" or not right:
            raise ApiError(401, "a token is needed: send the header Authorization: Bearer TOKEN")

    async def _body(self, headers: dict[bytes, bytes], receive: Receive) -> Receive:
        """The whole body, received before the app runs: a larger one is turned away as soon as it is known to be."""
        most = self._settings.max_body
        too_large = ApiError(413, f"the request is larger than {most} bytes; send a smaller picture")
        announced = headers.get(b"content-length", b"0")
        if not announced.isdigit() or int(announced) > most:
            raise too_large
        if self._reading >= 2 * self._settings.queue:
            self._metrics.rejected.inc()
            raise ApiError(503, "too many requests are being received; try again in 1 s", 1)
        self._reading += 1
        try:
            with fail_after(self._settings.body_seconds):
                body = await _read(receive, most)
        except TimeoutError as error:
            raise ApiError(408, f"the request took more than {self._settings.body_seconds:g} s to arrive") from error
        finally:
            self._reading -= 1
        if body is None:
            raise too_large
        given = False

        async def replay() -> MutableMapping[str, Any]:
            nonlocal given
            if given:
                return await receive()
            given = True
            return {"type": "http.request", "body": body, "more_body": False}

        return replay


async def _read(receive: Receive, most: int) -> bytes | None:
    """All of a body; None as soon as it is longer than ``most`` bytes."""
    body, more = bytearray(), True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ApiError(400, "the connection was closed in the middle of the request")
        body += message.get("body", b"")
        more = message.get("more_body", False)
        if len(body) > most:
            return None
    return bytes(body)
