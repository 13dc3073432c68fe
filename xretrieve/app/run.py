"""Listening until Ctrl-C or SIGTERM, by one process or by several."""

from __future__ import annotations

import contextlib
import gc
import multiprocessing
import os
import signal
import socket
import sys
import tempfile
import threading
import time
import webbrowser
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import uvicorn

from xretrieve.app.settings import COUNTERS, SHARED, Settings
from xretrieve.errors import XRetrieveError

if TYPE_CHECKING:
    from xretrieve.gallery import Gallery

PATIENCE = 10  # seconds that requests under way get to finish
SPARE_FILES = 256  # open files beside connections
BREATH = 1.0  # seconds before a worker that died at once is replaced


def serve(
    gallery: Gallery,
    settings: Settings,
    show: bool = False,
    say: Callable[[str], None] = print,
    workers: int = 1,
) -> None:
    """Answer until this process is told to stop (Ctrl-C, SIGTERM); requests under way are finished.

    Args:
        gallery: what is searched.
        settings: where to listen, and the limits.
        show: open the page in a browser.
        say: gets the page's address as soon as it can be opened.
        workers: processes that answer. They share the memory of the model and of the index (Linux), and sessions; each
            has the limits for itself. One that dies is replaced.
    """
    if workers < 1:
        raise XRetrieveError(f"workers is {workers}; give at least 1")
    if workers > 1 and sys.platform != "linux":
        raise XRetrieveError("several workers need Linux: leave --workers out")
    before = torch.get_num_threads()
    if workers > 1:
        torch.set_num_threads(1)  # threads that were started do not survive a fork, and each worker has a processor
    try:
        gallery.prepare()  # what is wrong with it is said before anybody connects
        with listen(settings) as sock, _told_to_stop() as stop:
            _allow_files(settings.connections)
            say(address(settings, sock))
            if show:
                place = address(settings, sock) + (f"#token={settings.token}" if settings.token else "")
                threading.Thread(target=webbrowser.open, args=(place,), daemon=True).start()
            if workers > 1:
                _supervise(gallery, settings, sock, workers, stop)
            else:
                _answer(gallery, settings, sock)
    finally:
        torch.set_num_threads(before)


def _answer(gallery: Gallery, settings: Settings, sock: socket.socket, backlog: int = 2048) -> None:
    """Answer in this process until it is told to stop."""
    from xretrieve.app.app import create_app
    from xretrieve.app.connections import bounded_protocol

    config = uvicorn.Config(
        create_app(gallery, settings), http=bounded_protocol(settings), ws="none", log_level="error", access_log=False,
        server_header=False, proxy_headers=False, timeout_graceful_shutdown=PATIENCE, backlog=backlog,
        timeout_keep_alive=settings.keep_alive_seconds,  # type: ignore[arg-type]  # any number of seconds
    )  # fmt: skip
    uvicorn.Server(config).run(sockets=[sock])


@contextlib.contextmanager
def _told_to_stop() -> Iterator[threading.Event]:
    """Set by SIGINT and SIGTERM. uvicorn raises the signal that stopped it once more; by then there is nothing left to
    stop."""
    stop = threading.Event()
    before = {number: signal.signal(number, lambda *_: stop.set()) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _supervise(gallery: Gallery, settings: Settings, sock: socket.socket, workers: int, stop: threading.Event) -> None:
    """Start processes that answer, replace those that die, and stop them."""
    context = multiprocessing.get_context("fork")
    running: dict[Any, float] = {}
    gc.collect()
    gc.freeze()  # what is there is not touched by collections, so that its memory stays shared
    with tempfile.TemporaryDirectory(prefix="xretrieve-") as shared:
        counters = Path(shared) / "metrics"
        counters.mkdir()
        os.environ[SHARED], os.environ[COUNTERS] = shared, str(counters)
        try:
            while not stop.is_set():
                for process, since in list(running.items()):
                    if not process.is_alive():
                        running.pop(process)
                        for left in counters.glob(f"gauge_live*_{process.pid}.db"):
                            left.unlink(missing_ok=True)
                        if time.monotonic() - since < BREATH:
                            stop.wait(BREATH)
                while len(running) < workers and not stop.is_set():
                    process = context.Process(target=_work, args=(gallery, settings, sock, os.getpid()))
                    process.start()
                    running[process] = time.monotonic()
                stop.wait(0.2)
        finally:
            for process in running:
                process.terminate()
            for process in running:
                process.join(2 * PATIENCE)
                if process.is_alive():
                    process.kill()
                    process.join()
            del os.environ[SHARED], os.environ[COUNTERS]
            gc.unfreeze()


def _work(gallery: Gallery, settings: Settings, sock: socket.socket, parent: int) -> None:
    """A process of several."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1)
        os.kill(os.getpid(), signal.SIGTERM)  # the first process was killed: nobody else would stop this one

    threading.Thread(target=watch, daemon=True).start()
    _answer(gallery, settings, sock, backlog=128)  # a worker takes what waits; the others should find some too


def _allow_files(connections: int) -> None:
    """As many open files as connections need, where the system lets us."""
    try:
        import resource
    except ImportError:
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = connections + SPARE_FILES
    if soft != resource.RLIM_INFINITY and soft < needed:
        most = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
        if most < needed:
            raise XRetrieveError(
                f"{connections} connections need {needed} open files, and the system allows {most}; give "
                f"-o connections={max(1, most - SPARE_FILES)}, or raise it (ulimit -n)"
            )


def listen(settings: Settings) -> socket.socket:
    """A socket that takes connections; an address that cannot be had is an error."""
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)  # asyncio sets TCP_NODELAY where it says TCP
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind((settings.host, settings.port))
        sock.listen(2048)
    except OSError as error:
        sock.close()
        raise XRetrieveError(
            f"cannot listen on {settings.host} port {settings.port} ({error.strerror or error}); give another --port "
            "(0: any free one), or another --host"
        ) from error
    return sock


def address(settings: Settings, sock: socket.socket) -> str:
    """Where a browser finds the page."""
    port = sock.getsockname()[1]
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(settings.host, settings.host)
    return f"http://[{host}]:{port}/" if ":" in host else f"http://{host}:{port}/"
