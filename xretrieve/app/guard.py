"""What every request passes before anything looks at it: who calls, by which name, whether there is a place for it, and
how much is sent.

Plain ASGI, so that nothing of a request is read before it may be.
"""

from __future__ import annotations

import contextlib
import hmac
import time
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any
from urllib.parse import urlsplit

from anyio import current_time, fail_after

from xretrieve.app.errors import ApiError
from xretrieve.app.lanes import Lanes
from xretrieve.app.metrics import Metrics
from xretrieve.app.settings import Settings

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

SMALL = 2**16  # bytes of a body that may always be received
GRACE = 5.0  # seconds before a body has to bring bytes at a rate
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

MORE = [(name.encode(), value.encode()) for name, value in HEADERS.items()]


class Guard:
    """Middleware.

    Args:
        app: what is guarded.
        settings: names, token and size of a body.
        metrics: told about every answer.
        lanes: the places for requests.
    """

    def __init__(self, app: App, settings: Settings, metrics: Metrics, lanes: Lanes) -> None:
        self._app, self._settings, self._metrics, self._lanes = app, settings, metrics, lanes

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
                message["headers"] = [*message["headers"], *(pair for pair in MORE if pair[0] not in given)]
            if head and message["type"] == "http.response.body":
                message = {**message, "body": b""}
            await send(message)

        try:
            headers = {name.lower(): value for name, value in scope["headers"]}
            self._check(scope, headers)
            size = self._size(scope, headers)
            with contextlib.ExitStack() as held:
                lane = self._lanes.of(scope["path"], size is None or size > SMALL)
                scope["place"] = held.enter_context(self._lanes.place(lane))
                if size is None or size > SMALL:
                    held.enter_context(self._lanes.room(self._settings.max_body if size is None else size))
                if size != 0:
                    receive = await self._body(receive)
                await self._app(scope, receive, answer)
        except ApiError as error:
            await error.answer()(scope, receive, answer)
        finally:
            route = scope.get("route")
            path = getattr(route, "path", None) or "other"
            self._metrics.requests.labels(path, str(status)).inc()
            self._metrics.seconds.labels(path).observe(time.perf_counter() - start)

    def _check(self, scope: Scope, headers: dict[bytes, bytes]) -> None:
        host = headers.get(b"host", b"").decode("latin-1")
        self._check_name(host)
        if scope["path"].startswith("/api/") or scope["path"] == "/metrics":
            self._check_site(headers, host)
        if self._settings.token and scope["path"] not in OPEN and not scope["path"].startswith("/static/"):
            self._check_token(headers.get(b"authorization", b""))

    def _check_site(self, headers: dict[bytes, bytes], host: str) -> None:
        """Pages of other places may not make a browser ask: it would cost, change sessions, or show that they are."""
        site, origin = headers.get(b"sec-fetch-site"), headers.get(b"origin", b"").decode("latin-1")
        if site is not None:
            foreign = site not in (b"same-origin", b"none")
        else:  # an older browser, or a program
            try:
                parts = urlsplit(origin)
                named = parts.hostname in self._settings.given_hosts  # a proxy may call the server by another name
            except ValueError:
                parts, named = urlsplit(""), False
            foreign = bool(origin) and parts.netloc.lower() != host.lower() and not named
        if foreign:
            raise ApiError(403, "a page of another site asked for this; only the server's own page and programs may")

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

    def _size(self, scope: Scope, headers: dict[bytes, bytes]) -> int | None:
        """Bytes of the body as announced; None where that is not said."""
        if scope["method"] in ("GET", "OPTIONS"):
            return 0
        if b"content-length" not in headers and b"transfer-encoding" in headers:
            return None
        announced = headers.get(b"content-length", b"0")
        if not announced.isdigit() or int(announced) > self._settings.max_body:
            raise self._too_large()
        return int(announced)

    def _too_large(self) -> ApiError:
        return ApiError(413, f"the request is larger than {self._settings.max_body} bytes; send a smaller picture")

    async def _body(self, receive: Receive) -> Receive:
        """The whole body, received before the app runs: a larger one is turned away as soon as it is known to be, and
        one that comes too slowly."""
        message = await self._read(receive)

        async def replay() -> MutableMapping[str, Any]:
            nonlocal message
            if message is None:
                return await receive()
            given, message = message, None  # nothing else keeps it
            return given

        return replay

    async def _read(self, receive: Receive) -> MutableMapping[str, Any] | None:
        body, more, limits = bytearray(), True, self._settings
        try:
            with fail_after(min(limits.body_seconds, GRACE)) as scope:
                last = current_time() + limits.body_seconds
                while more:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        raise ApiError(400, "the connection was closed in the middle of the request")
                    piece, more = message.get("body", b""), message.get("more_body", False)
                    if not body and not more:
                        body = piece
                        break
                    body += piece
                    scope.deadline = min(last, scope.deadline + len(piece) / limits.body_rate)
                    if len(body) > limits.max_body:
                        raise self._too_large()
        except TimeoutError as error:
            raise ApiError(
                408, f"the request came too slowly: it may take {limits.body_seconds:g} s, and must bring "
                f"{limits.body_rate} bytes a second"
            ) from error  # fmt: skip
        if len(body) > limits.max_body:
            raise self._too_large()
        return {"type": "http.request", "body": bytes(body), "more_body": False}
