"""Connections that are slow, greedy or too many, over real sockets."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
import time

import pytest
import uvicorn

from xretrieve.app.app import create_app
from xretrieve.app.connections import bounded_protocol
from xretrieve.app.run import _allow_files, listen
from xretrieve.app.settings import Settings
from xretrieve.errors import XRetrieveError

BEGUN = b"GET /api/health HTTP/1.1\r\nHost: localhost\r\nX: "
HEALTH = b"GET /api/health HTTP/1.1\r\nHost: localhost\r\n\r\n"
PARSERS = ["h11", "httptools"]


@contextlib.contextmanager
def running(served, parser="h11", **limits):
    """The port of a server in a thread."""
    if parser == "httptools":
        pytest.importorskip("httptools")
    settings = Settings(port=0, **limits)
    protocol = bounded_protocol(settings, parser)
    with listen(settings) as sock:
        config = uvicorn.Config(create_app(served, settings), http=protocol, log_level="critical")
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [sock]})
        thread.start()
        try:
            while not server.started:
                time.sleep(0.01)
            yield sock.getsockname()[1]
        finally:
            server.should_exit = True
            thread.join()


def connect(port):
    made = socket.create_connection(("127.0.0.1", port), timeout=10)
    made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return made


def answer(sock):
    """Status and body; None where the connection was closed without one."""
    data = b""
    while b"\r\n\r\n" not in data:
        piece = sock.recv(65536)
        if not piece:
            return None
        data += piece
    head, _, body = data.partition(b"\r\n\r\n")
    length = int(head.lower().partition(b"content-length:")[2].split(b"\r\n")[0])
    while len(body) < length:
        body += sock.recv(65536)
    return int(head[9:12]), json.loads(body)


@pytest.mark.parametrize("parser", PARSERS)
def test_small_answers_are_not_held_back(served, parser):
    with running(served, parser) as port, connect(port) as sock:
        waits = []
        for _ in range(30):
            start = time.perf_counter()
            sock.sendall(HEALTH)
            assert answer(sock)[0] == 200
            waits.append(time.perf_counter() - start)
        assert sorted(waits)[15] < 0.03, "40 ms are Nagle's algorithm and delayed acknowledgements"


@pytest.mark.parametrize("parser", PARSERS)
def test_a_header_that_does_not_end_is_given_up_and_a_silent_connection_closed(served, parser):
    with running(served, parser, header_seconds=0.3) as port, connect(port) as slow, connect(port) as silent:
        for _ in range(100):  # a byte now and then is no progress
            with contextlib.suppress(OSError):
                slow.sendall(BEGUN if _ == 0 else b"a")
            time.sleep(0.02)
        status, body = answer(slow)
        assert status == 408 and "0.3 s" in body["error"]
        assert answer(silent) is None
        with connect(port) as late:  # after a whole request the time begins anew
            for _ in range(3):
                late.sendall(HEALTH)
                assert answer(late)[0] == 200
                time.sleep(0.2)
            late.sendall(BEGUN)
            assert answer(late)[0] == 408


@pytest.mark.parametrize("parser", PARSERS)
def test_what_is_no_http_is_told_so_in_json(served, parser):
    with running(served, parser) as port, connect(port) as sock:
        sock.sendall(b"\x00\x01\x02\r\n\r\n")
        assert answer(sock) == (400, {"error": "this is no valid HTTP request"})


@pytest.mark.parametrize("parser", PARSERS)
def test_a_header_has_a_size(served, parser):
    with running(served, parser) as port, connect(port) as sock:
        with contextlib.suppress(OSError):
            for _ in range(40):
                sock.sendall(BEGUN if not _ else b"a" * 4096)
        with contextlib.suppress(OSError):
            found = answer(sock)
            assert found is None or found[0] in (400, 431)
        with connect(port) as other:
            other.sendall(HEALTH)
            assert answer(other)[0] == 200


@pytest.mark.parametrize("parser", PARSERS)
def test_a_body_that_nobody_reads_any_more_ends_too(served, parser):
    with running(served, parser, header_seconds=0.3, max_body=1000) as port, connect(port) as sock:
        head = b"POST /api/search HTTP/1.1\r\nHost: localhost\r\nContent-Length: 999999999\r\n\r\n"
        sock.sendall(head + b"x" * 100)
        assert answer(sock)[0] == 413
        start = time.perf_counter()
        with contextlib.suppress(OSError):
            while time.perf_counter() - start < 5:
                sock.sendall(b"x" * 100)
                time.sleep(0.02)
        assert time.perf_counter() - start < 4


@pytest.mark.parametrize("parser", PARSERS)
def test_too_many_connections_push_out_those_that_wait_for_nothing(served, parser, monkeypatch):
    monkeypatch.setattr("xretrieve.app.connections.STALLED", 0.1)
    with running(served, parser, connections=5) as port, contextlib.ExitStack() as stack:
        used = stack.enter_context(connect(port))
        used.sendall(HEALTH)
        assert answer(used)[0] == 200
        slow = [stack.enter_context(connect(port)) for _ in range(4)]
        for sock in slow:
            sock.sendall(BEGUN)
        time.sleep(0.3)
        newer = stack.enter_context(connect(port))  # takes the place of the first one whose header does not end
        newer.sendall(HEALTH)
        assert answer(newer)[0] == 200
        with contextlib.suppress(ConnectionError):
            assert answer(slow[0]) is None
        used.sendall(HEALTH)
        assert answer(used)[0] == 200, "a connection that was used is the last to go"


@pytest.mark.parametrize("parser", PARSERS)
def test_where_none_can_go_a_new_connection_is_answered_with_503(served, parser, monkeypatch):
    go = threading.Event()
    monkeypatch.setattr(type(served), "search_many", lambda self, asks: go.wait(10) and self._search_many(asks))
    body = b'{"texts": ["a dog"]}'
    search = b"POST /api/search HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: "
    with running(served, parser, connections=2) as port, contextlib.ExitStack() as stack:
        busy = [stack.enter_context(connect(port)) for _ in range(2)]
        for sock in busy:
            sock.sendall(search + f"{len(body)}\r\n\r\n".encode() + body)
        time.sleep(0.3)
        refused = stack.enter_context(connect(port))
        refused.sendall(HEALTH)
        status, told = answer(refused)
        assert status == 503 and "too many connections" in told["error"]
        go.set()
        assert [answer(sock)[0] for sock in busy] == [200, 200]


def test_more_connections_than_files_are_refused_at_the_start(monkeypatch):
    resource = pytest.importorskip("resource")
    monkeypatch.setattr(resource, "getrlimit", lambda kind: (200, 1000))
    raised = []
    monkeypatch.setattr(resource, "setrlimit", lambda kind, limits: raised.append(limits))
    _allow_files(512)
    assert raised == [(768, 1000)]
    with pytest.raises(XRetrieveError, match="-o connections=744"):
        _allow_files(5000)


def test_far_beyond_the_limit_connections_are_closed_and_the_others_go_on(served, monkeypatch):
    monkeypatch.setattr("xretrieve.app.connections.ANSWERED", 2)
    with running(served, connections=1) as port, contextlib.ExitStack() as stack:
        first = stack.enter_context(connect(port))
        first.sendall(HEALTH)
        assert answer(first)[0] == 200
        for _ in range(6):
            stack.enter_context(connect(port))
        closed = stack.enter_context(connect(port))
        with contextlib.suppress(ConnectionError):
            assert closed.recv(1) == b""
        first.sendall(HEALTH)
        assert answer(first)[0] == 200


@pytest.mark.parametrize("parser", PARSERS)
def test_an_answer_that_is_not_read_is_given_up(served, parser, monkeypatch):
    large = b"x" * 2**25
    monkeypatch.setattr("xretrieve.app.metrics.Metrics.text", lambda self: large)
    with running(served, parser, body_seconds=0.3) as port, connect(port) as sock:
        sock.sendall(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n")
        time.sleep(1)
        data = 0
        with contextlib.suppress(ConnectionError):
            while piece := sock.recv(2**20):
                data += len(piece)
        assert data < len(large), "the connection was closed in the middle"
