"""One writer at a time. A lock goes with its process: a killed one blocks nobody."""

from __future__ import annotations

import contextlib
import errno
import os
import sys
from collections.abc import Iterator
from pathlib import Path

from xretrieve.errors import XRetrieveError
from xretrieve.utils.disk import writing

PATIENCE = 2.0  # seconds of waiting before it is said


@contextlib.contextmanager
def locked(path: str | Path, wait: bool = True) -> Iterator[None]:
    """Be the only program that writes ``path``, a file or a folder, which need not be there yet.

    The lock is a file ``.NAME.lock`` beside it, for as long as it is held; inside a folder whose own folder takes no
    files.

    Args:
        path: what is going to be written.
        wait: for a program that holds it; else that is an error.
    """
    from filelock import FileLock, Timeout

    path = Path(os.path.realpath(path))
    place = path.with_name(f".{short(path.name)}.lock")
    with writing(path):
        place.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(place)
    try:
        try:
            lock.acquire(timeout=PATIENCE if wait else 0)
        except OSError as error:
            if error.errno not in (errno.EACCES, errno.EPERM, errno.EROFS) or not path.is_dir():
                raise
            place = path / ".lock"
            lock = FileLock(place)
            with writing(path):
                lock.acquire(timeout=PATIENCE if wait else 0)
    except Timeout as error:
        if not wait:
            raise XRetrieveError(
                f"another program is writing {path}; wait until it is done, or choose another place"
            ) from error
        print(f"waiting: another program is writing {path}", file=sys.stderr, flush=True)
        lock.acquire()
    except OSError as error:
        with writing(path):
            raise error
    try:
        yield
    finally:
        with contextlib.suppress(OSError):  # while it is held: who waits for this file sees that it is gone, and asks
            place.unlink()  # for a new one
        with contextlib.suppress(OSError):
            lock.release()


def short(name: str) -> str:
    """A file's name as a part of another file's name: cut, with a hash, where it is long."""
    if len(os.fsencode(name)) <= 160:
        return name
    import hashlib

    return f"{name[:40]}~{hashlib.sha256(os.fsencode(name)).hexdigest()[:12]}"
