"""What a disk says when it cannot: full, over quota, read-only, gone. One sentence, whichever library ran into it."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator
from pathlib import Path

from xretrieve.errors import DiskError

# these are about the disk, whatever was being done
HARD = [errno.ENOSPC, errno.EROFS, errno.EIO, errno.EFBIG] + [
    getattr(errno, name) for name in ("EDQUOT", "ESTALE", "ENODEV", "ENOTCONN", "EHOSTDOWN") if hasattr(errno, name)
]
FULL = ("numpy", "requested and")  # numpy says how many values it wrote, and not why it stopped


def disk_reason(error: BaseException) -> str | None:
    """What the operating system said, in words; None where an error is not about a disk.

    safetensors and FAISS raise types of their own with the system's words in them.

    >>> disk_reason(RuntimeError("write error: No space left on device"))
    'No space left on device'
    """
    if isinstance(error, OSError) and error.errno is not None:
        return error.strerror or os.strerror(error.errno)
    if isinstance(error, DiskError):  # it says so itself
        return None
    said = str(error)
    if isinstance(error, OSError) and FULL[1] in said:
        return os.strerror(errno.ENOSPC)
    return next((os.strerror(code) for code in HARD if os.strerror(code) in said), None)


@contextlib.contextmanager
def writing(path: Path, part: Path | None = None) -> Iterator[None]:
    """A place that cannot be written is a :class:`DiskError` that names it.

    Args:
        path: what is being made.
        part: where it is made. Other files that cannot be read meanwhile are another matter, and their errors pass.
    """
    try:
        yield
    except Exception as error:
        cause: BaseException = error
        if isinstance(error, DiskError) and part is not None and str(part) in str(error):
            cause = error.__cause__ or error  # of a file in a folder that is being made: the folder is named
        reason = disk_reason(cause)
        if reason is None or not _about(cause, part):
            raise
        raise DiskError(f"cannot write {path}: {reason}; {advice(cause)}") from cause


def _about(error: BaseException, part: Path | None) -> bool:
    if part is None or not isinstance(error, OSError) or error.errno in HARD or error.filename is None:
        return True
    return str(part) in str(error.filename)


def advice(error: BaseException) -> str:
    """What to do about it."""
    full = [os.strerror(code) for code in (errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC))]
    return "make room, or choose another place" if disk_reason(error) in full else "choose another place"


def sync(path: Path) -> None:
    """Wait until a file, or the names in a folder, are on the disk; a system that cannot do so is not an error."""
    flags = os.O_RDONLY if path.is_dir() or os.name != "nt" else os.O_RDWR
    try:
        handle = os.open(path, flags)
    except OSError:  # Windows opens no folders
        return
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno in HARD:
            raise
    finally:
        os.close(handle)


def sync_tree(folder: Path) -> None:
    """:func:`sync` of everything in a folder; many at once, as a disk takes them together in a quarter of the time."""
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(16) as pool:
        for place, _, files in os.walk(folder):
            list(pool.map(sync, (Path(place, name) for name in files)))
            sync(Path(place))
