"""Looking at places that somebody names: a text that can be no path, a closed folder, a disk that fails."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path

from xretrieve.errors import XRetrieveError


def expand(path: str | Path) -> Path:
    """A path with its ``~`` written out; that of a user whom nobody knows stays."""
    return Path(os.path.expanduser(path))


def is_file(path: str | Path) -> bool:
    """Whether a file lies there. Texts that can be no path are none; a place that may not be looked at is an error."""
    return _looked(path, Path.is_file)


def is_folder(path: str | Path) -> bool:
    """Whether a folder lies there; as :func:`is_file`."""
    return _looked(path, Path.is_dir)


def is_there(path: str | Path) -> bool:
    """Whether anything lies there; as :func:`is_file`."""
    return _looked(path, Path.exists)


def _looked(path: str | Path, look: Callable[[Path], bool]) -> bool:
    """What `Path` says, which raises where a name is too long, a folder is closed or a disk fails."""
    try:
        return look(Path(path))
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG:
            return False
        raise XRetrieveError(f"{path}: cannot be looked at ({error.strerror}); check its rights, its disk") from error
