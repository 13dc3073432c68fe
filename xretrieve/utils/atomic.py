"""Files and folders that are whole or not there: made under another name, and renamed.

The other name says which process makes it: ``.NAME.PID-HOST-XXXXXX.part`` (``.old`` for a folder that gives way to a
new one). What a killed process left is thus known, and goes as soon as something is written or opened there again.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import secrets
import shutil
import socket
import stat
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from xretrieve.errors import DiskError
from xretrieve.utils.checksums import seal
from xretrieve.utils.disk import sync, sync_tree, writing
from xretrieve.utils.locks import short

LEFT = re.compile(
    r"\.(?P<name>.+)\.(?P<token>(?P<pid>\d+)-(?P<host>[0-9a-f]{6})-[0-9a-f]{6})\.(?P<kind>part|old)(\..*)?"
)
OLD_LEFT = re.compile(
    r"\.(?P<name>.+)\.[a-z0-9_]{8}\.(?P<kind>part|old)(\..*)?"
)  # versions before 2.0 named no process
DONE = "files.done"  # .files.done: files that are complete and on their way to their places
DAY = 86400.0  # seconds after which what another machine left is taken for dead


@contextlib.contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path; what is written there becomes ``path`` on success, and goes on failure.

    A link stays a link, and its target is written; a pipe or a device is written to.
    """
    path = Path(path)
    if _special(path):
        with tempfile.TemporaryDirectory() as folder:
            yield Path(folder, "part" + path.suffix)
            with writing(path), _opened(path) as out, open(Path(folder, "part" + path.suffix), "rb") as made:
                shutil.copyfileobj(made, out)
        return
    path = Path(os.path.realpath(path))
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        tidy(path)
        mode = _mode(path)
        part = _temporary(path, "part" + path.suffix)
        os.close(os.open(part, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
    try:
        with writing(path, part):
            yield part
            with contextlib.suppress(PermissionError):  # some file systems have no modes
                part.chmod(mode)
            if not _inside(path):
                sync(part)
            part.replace(path)
            if not _inside(path):
                sync(path.parent)
    finally:
        with contextlib.suppress(OSError):
            part.unlink()


@contextlib.contextmanager
def atomic_folder(path: str | Path, sealed: bool = False, durable: bool = True, replace: bool = True) -> Iterator[Path]:
    """Yield a temporary folder; on success it takes the place of ``path``, on failure it is deleted.

    Args:
        path: a link to a folder stays one.
        sealed: write checksums of its files into it (:mod:`xretrieve.utils.checksums`).
        durable: wait until all of it is on the disk; False for what can be made again.
        replace: False where a folder that is there, even if it came meanwhile, is an error.
    """
    path = Path(os.path.realpath(path))
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        tidy(path)
        part = _temporary(path, "part")
        part.mkdir(0o700)
    durable = durable and not _inside(path)
    try:
        with writing(path, part):
            yield part
            if sealed:
                seal(part)
            if durable:
                sync_tree(part)
            part.chmod(0o755)
            if replace:
                _take_the_place(part, path)
            else:
                part.replace(path)  # which only an empty folder allows
            if durable:
                sync(path.parent)
    finally:
        shutil.rmtree(part, ignore_errors=True)


@contextlib.contextmanager
def atomic_files(folder: str | Path) -> Iterator[Path]:
    """Yield a temporary folder; on success all its files appear in ``folder`` together, in place of those of the same
    names. Who reads them calls :func:`finish_files` before: a kill may have come between two of them."""
    folder = Path(os.path.realpath(folder))
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        finish_files(folder)
        tidy(folder / DONE)
        part = _temporary(folder / DONE, "part")
        part.mkdir(0o700)
    try:
        with writing(folder, part):
            yield part
            sync_tree(part)
            finish_files(folder)  # of another program, meanwhile
            part.replace(folder / f".{DONE}")  # from now on it has happened
            sync(folder)
            finish_files(folder)
    finally:
        shutil.rmtree(part, ignore_errors=True)


def finish_files(folder: Path) -> None:
    """Put files in their places whose writing was complete, and was killed before all of them were there."""
    done = folder / f".{DONE}"
    if not done.is_dir():
        return
    with contextlib.suppress(FileNotFoundError):  # another program does the same
        for path in sorted(done.iterdir()):
            path.replace(folder / path.name)
        done.rmdir()
        sync(folder)


def _take_the_place(part: Path, path: Path) -> None:
    """A kill between the two renamings leaves both folders: then :func:`tidy` puts the old one back."""
    if not path.exists():
        part.replace(path)
        return
    old = part.with_name(part.name.removesuffix("part") + "old")
    path.replace(old)
    try:
        part.replace(path)
    except BaseException:
        old.replace(path)
        raise
    shutil.rmtree(old, ignore_errors=True)


def tidy(path: Path) -> None:
    """Delete what killed processes left of their work on ``path``.

    Where a folder had given way and the new one had not yet taken its place, it comes back. It was so when the new one
    is still there under its temporary name: an old folder alone had been replaced, or what replaced it was deleted.
    """
    found = [left for left in _leftovers(path.parent, short(path.name)) if _dead(left)]
    if not found:
        return
    with contextlib.suppress(OSError):
        olds = [left for left in found if _kind(left) == "old"]
        if olds and len(olds) < len(found) and not os.path.lexists(path):
            newest = max(olds, key=lambda left: left.stat().st_mtime)
            (newest if LEFT.fullmatch(newest.name) else newest / "folder").replace(path)
    for left in found:
        _remove(left)


def tidy_folder(folder: Path) -> None:
    """:func:`tidy` for everything in a folder, whatever it is called."""
    for name in {_match(left)["name"] for left in _leftovers(folder)}:
        tidy(folder / name)


def recover_folder(path: str | Path) -> None:
    """Put a folder back whose replacement was cut short, and delete what that left behind."""
    path = Path(os.path.realpath(path))
    tidy(path)
    for _ in range(500):  # another process is between its two renamings: that takes a moment
        if os.path.lexists(path) or not any(_kind(left) == "old" for left in _leftovers(path.parent, short(path.name))):
            break
        time.sleep(0.01)


def me() -> str:
    """This process, as temporary names have it."""
    space = ""
    with contextlib.suppress(OSError):
        space = os.readlink("/proc/self/ns/pid")  # two containers may both have a process 7
    return f"{os.getpid()}-{hashlib.sha256((socket.gethostname() + space).encode()).hexdigest()[:6]}"


def _temporary(path: Path, ending: str) -> Path:
    return path.with_name(f".{short(path.name)}.{me()}-{secrets.token_hex(3)}.{ending}")


def _match(left: Path) -> re.Match[str]:
    found = LEFT.fullmatch(left.name) or OLD_LEFT.fullmatch(left.name)
    assert found is not None, left
    return found


def _kind(left: Path) -> str:
    return _match(left)["kind"]


def _leftovers(parent: Path, name: str | None = None) -> list[Path]:
    """Temporary files and folders of ours in a folder; those of one target."""
    try:
        with os.scandir(parent) as entries:
            names = [entry.name for entry in entries if entry.name.startswith(f".{name or ''}")]
    except OSError:
        return []
    found = [(one, LEFT.fullmatch(one) or OLD_LEFT.fullmatch(one)) for one in names]
    return [parent / one for one, match in found if match and name in (None, match["name"])]


def _dead(left: Path) -> bool:
    """Whether nobody works on it any more."""
    match = LEFT.fullmatch(left.name)
    if match is None:
        return True
    pid, host = me().split("-")
    if match["host"] == host and os.name != "nt":
        return match["pid"] != pid and not _runs(int(match["pid"]))
    try:
        return time.time() - left.stat().st_mtime > DAY
    except OSError:
        return False


def _runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        pass
    return True


def _remove(left: Path) -> None:
    if left.is_dir() and not left.is_symlink():
        shutil.rmtree(left, ignore_errors=True)
    else:
        with contextlib.suppress(OSError):
            left.unlink()


def _inside(path: Path) -> bool:
    """Whether it lies in a temporary folder of ours, which is written to the disk as a whole."""
    return any(LEFT.fullmatch(parent.name) for parent in path.parents)


def _special(path: Path) -> bool:
    """A pipe, a device, or an open file by its number: what is there is written to, not replaced."""
    try:
        mode = os.stat(path).st_mode
    except OSError:
        return False
    numbered = str(path.absolute()).startswith(("/dev/", "/proc/"))
    return numbered or not (stat.S_ISREG(mode) or stat.S_ISDIR(mode))


def _opened(path: Path) -> IO[bytes]:
    """Open a pipe or a device to write; a file that is open already (`/dev/stdout`) goes on where it is."""
    if path.parent == Path("/dev/fd") or path.name in ("stdout", "stderr") and path.parent == Path("/dev"):
        number = {"stdout": 1, "stderr": 2}.get(path.name) or int(path.name)
        return open(os.dup(number), "wb")
    return open(path, "ab")


def _mode(path: Path) -> int:
    """The mode that a file keeps, or gets; one that may not be written is an error."""
    if path.is_dir():
        raise DiskError(f"cannot write {path}: it is a folder; give the name of a file")
    if path.exists():
        if not os.access(path, os.W_OK):
            raise DiskError(f"cannot write {path}: it is read-only; choose another place")
        return stat.S_IMODE(path.stat().st_mode)
    umask = os.umask(0)
    os.umask(umask)
    return 0o666 & ~umask
