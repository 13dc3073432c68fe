"""Listening until Ctrl-C or SIGTERM."""

from __future__ import annotations

import signal
import socket
import threading
import webbrowser
from collections.abc import Callable
from typing import TYPE_CHECKING

import uvicorn

from xretrieve.app.app import create_app
from xretrieve.app.settings import Settings
from xretrieve.errors import XRetrieveError

if TYPE_CHECKING:
    from xretrieve.gallery import Gallery

PATIENCE = 10  # seconds that requests under way get to finish


def serve(gallery: Gallery, settings: Settings, show: bool = False, say: Callable[[str], None] = print) -> None:
    """Answer until this process is told to stop (Ctrl-C, SIGTERM); requests under way are finished.

    Args:
        gallery: what is searched.
        settings: where to listen, and the limits.
        show: open the page in a browser.
        say: gets the page's address as soon as it can be opened.
    """
    gallery.prepare()  # what is wrong with it is said before anybody connects
    app = create_app(gallery, settings)
    config = uvicorn.Config(
        app, log_level="warning", access_log=False, server_header=False, timeout_graceful_shutdown=PATIENCE
    )
    with listen(settings) as sock:
        say(address(settings, sock))
        if show:
            place = address(settings, sock) + (f"#token={settings.token}" if settings.token else "")
            threading.Thread(target=webbrowser.open, args=(place,), daemon=True).start()
        # uvicorn raises the signal that stopped it once more: by then there is nothing left to stop
        before = {number: signal.signal(number, lambda *_: None) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            uvicorn.Server(config).run(sockets=[sock])
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


def listen(settings: Settings) -> socket.socket:
    """A socket that takes connections; an address that cannot be had is an error."""
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind((settings.host, settings.port))
        sock.listen(128)
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
