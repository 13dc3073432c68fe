"""Decoding in another process: what it takes of memory ends with it, and no text waits for it.

This module is what that process imports, so it imports little.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import io
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from xretrieve.data.pictures import decoding_memory, read_picture
from xretrieve.errors import XRetrieveError
from xretrieve.utils.allocation import give_back_memory
from xretrieve.utils.files import content_hash
from xretrieve.utils.locks import locked

if TYPE_CHECKING:
    from PIL.Image import Image

T = TypeVar("T")
SIDE = 1600  # pixels: pictures of queries are shrunk to it at once, for models read less and many may wait
JPEG_QUALITY = 85
IDLE = 60.0  # seconds without work, after which the process ends
HEAVY = 64 * 10**6  # bytes; pictures that take more are decoded one at a time


class Base64Error(XRetrieveError):
    """Not base64."""


def query_picture(source: bytes | str | Path, max_pixels: int, turns: Path) -> tuple[Image, str]:
    """An RGB picture of at most 1600 pixels a side, and the hash of its content.

    Args:
        source: a file's bytes, those in base64, or where the file lies.
        max_pixels: of a picture that was sent.
        turns: a folder; large pictures are decoded one at a time among all processes that are given it.
    """
    if isinstance(source, Path):
        return _small(source, None, SIDE, turns), content_hash(source)
    return _small(_from_base64(source) if isinstance(source, str) else source, max_pixels, SIDE, turns), ""


def jpeg_copy(path: Path, side: int, turns: Path) -> bytes:
    """A JPEG file of a picture with no side over ``side`` pixels; ``turns`` as in :func:`query_picture`."""
    out = io.BytesIO()
    _small(path, None, side, turns).save(out, "JPEG", quality=JPEG_QUALITY)
    return out.getvalue()


def _small(source: bytes | Path, max_pixels: int | None, side: int, turns: Path) -> Image:
    heavy = decoding_memory(source, side) > HEAVY
    with locked(turns) if heavy else contextlib.nullcontext():
        picture = read_picture(source, max_pixels, side)
        picture.thumbnail((side, side))
        if heavy:
            give_back_memory()
    return picture


def _from_base64(text: str) -> bytes:
    _, comma, rest = text.partition(",") if text.startswith("data:") else ("", ",", text)
    try:
        if not comma or not rest:
            raise ValueError
        return base64.b64decode(rest, validate=True)
    except (ValueError, binascii.Error) as error:
        raise Base64Error("picture: give the bytes of a picture file in base64") from error


_ending: list[threading.Timer] = []


def in_own_process(function: Callable[..., T], *arguments: Any) -> T:
    """What ``function`` returns. Only for a process that does nothing else: it gets a low priority, for searches come
    first where processors are few, and it ends when it is not needed for a minute."""
    if hasattr(os, "nice") and os.nice(0) < 5:
        with contextlib.suppress(OSError):
            os.nice(5)
    while _ending:
        _ending.pop().cancel()
    try:
        return function(*arguments)
    finally:
        timer = threading.Timer(IDLE, os._exit, (0,))
        timer.daemon = True
        timer.start()
        _ending.append(timer)
