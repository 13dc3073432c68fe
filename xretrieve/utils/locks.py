"""One writer at a time. A lock goes with its process: a killed one blocks nobody."""

from __future__ import annotations

import contextlib
import errno
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from xretrieve.errors import XRetrieveError
from xretrieve.utils.disk import writing

PATIENCE = 2.0  # seconds of waiting before it is said


@contextlib.contextmanager
def locked(path: str | Path, wait: bool = True) -> Iterator[None]:
    """Be the only program that writes ``path``, a file or a folder, which need not be there yet.

    A folder that is there is locked itself, so that a killed program leaves nothing. For a file, on Windows, and on
    network disks that lock no folders, a file ``.NAME.lock`` lies beside it for as long as the lock is held.

    Args:
        path: what is going to be written.
        wait: for a program that holds it; else that is an error.
    """
    path = Path(os.path.realpath(path))
    with contextlib.ExitStack() as stack:
        if not (path.is_dir() and _lock_folder(path, wait, stack)):
            stack.enter_context(_lock_file(path, wait))
        yield


def _lock_folder(path: Path, wait: bool, stack: contextlib.ExitStack) -> bool:
    """False where this system or this disk cannot lock a folder."""
    try:
        import fcntl
    except ImportError:
        return False
    since: float | None = time.monotonic()
    while True:
        try:
            handle = os.open(path, os.O_RDONLY)
        except OSError:
            return False
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | (fcntl.LOCK_NB if since else 0))
        except OSError as error:
            os.close(handle)
            if error.errno not in (errno.EAGAIN, errno.EACCES):
                return False
            if not wait:
                raise _busy(path) from error
            if since and time.monotonic() - since > PATIENCE:
                _say(path)
                since = None
            time.sleep(0.01)
            continue
        except BaseException:  # stopped while it waited
            os.close(handle)
            raise
        if _is(handle, path):
            stack.callback(_unlock, handle)
            return True
        os.close(handle)  # another program put a new folder in its place meanwhile


def _is(handle: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(handle), os.stat(path))
    except OSError:
        return False


def _unlock(handle: int) -> None:
    import fcntl

    fcntl.flock(handle, fcntl.LOCK_UN)  # said aloud: a process that was forked meanwhile has the folder open too
    os.close(handle)


@contextlib.contextmanager
def _lock_file(path: Path, wait: bool) -> Iterator[None]:
    from filelock import FileLock, Timeout

    place = path.with_name(f".{short(path.name)}.lock")
    with writing(path):
        place.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(place)
    try:
        with writing(path):
            lock.acquire(timeout=PATIENCE if wait else 0)
    except Timeout as error:
        if not wait:
            raise _busy(path) from error
        _say(path)
        lock.acquire()
    try:
        yield
    finally:
        with contextlib.suppress(OSError):  # while it is held: who waits for this file sees that it is gone, and asks
            place.unlink()  # for a new one
        with contextlib.suppress(OSError):
            lock.release()


def _busy(path: Path) -> XRetrieveError:
    return XRetrieveError(f"another program is writing {path}; wait until it is done, or choose another place")


def _say(path: Path) -> None:
    print(f"waiting: another program is writing {path}", file=sys.stderr, flush=True)


def short(name: str) -> str:
    """A file's name as a part of another file's name: cut, with a hash, where it is long."""
    if len(os.fsencode(name)) <= 160:
        return name
    import hashlib

    return f"{name[:40]}~{hashlib.sha256(os.fsencode(name)).hexdigest()[:12]}"
