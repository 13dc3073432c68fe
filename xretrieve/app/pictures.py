"""Pictures that are sent, and small copies of those that are indexed. Files are found by their id in the index only."""

from __future__ import annotations

import base64
import binascii
import hashlib
import io
import threading
from collections import OrderedDict
from pathlib import Path
from typing import TYPE_CHECKING

from xretrieve.app.errors import ApiError
from xretrieve.data.pictures import read_picture
from xretrieve.errors import XRetrieveError

if TYPE_CHECKING:
    from PIL.Image import Image

KEPT = 32 * 2**20  # bytes of copies kept in memory
SIDE = 1600  # pixels: sent pictures are shrunk to it at once, for models read less and many may wait


def sent_picture(data: bytes, max_pixels: int) -> Image:
    """An RGB picture of at most 1600 pixels a side, from the bytes of a file; what is none is status 400."""
    try:
        picture = read_picture(data, max_pixels, SIDE)
    except XRetrieveError as error:
        raise ApiError(400, str(error)) from error
    picture.thumbnail((SIDE, SIDE))
    return picture


def from_base64(text: str) -> bytes:
    """The bytes behind base64, with or without ``data:image/...;base64,`` before it."""
    _, comma, rest = text.partition(",") if text.startswith("data:") else ("", ",", text)
    try:
        if not comma or not rest:
            raise ValueError
        return base64.b64decode(rest, validate=True)
    except (ValueError, binascii.Error) as error:
        raise ApiError(422, "picture: give the bytes of a picture file in base64") from error


class Copies:
    """JPEG copies of picture files; those asked for last are kept."""

    def __init__(self) -> None:
        self._kept: OrderedDict[str, bytes] = OrderedDict()
        self._bytes = 0
        self._lock = threading.Lock()

    def tag(self, path: Path, size: int) -> str:
        """Changes when the file does. A file that is gone is status 404."""
        try:
            stat = path.stat()
        except OSError as error:
            raise ApiError(404, f"the picture {path.name!r} is no longer on the disk") from error
        return hashlib.sha256(f"{path}\n{stat.st_mtime_ns}\n{stat.st_size}\n{size}".encode()).hexdigest()[:24]

    def get(self, path: Path, size: int) -> bytes:
        """A copy with no side over ``size`` pixels."""
        tag = self.tag(path, size)
        with self._lock:
            if tag in self._kept:
                self._kept.move_to_end(tag)
                return self._kept[tag]
        try:
            picture = read_picture(path, side=size)
        except XRetrieveError as error:
            sentence = str(error).replace(str(path), path.name)
            raise ApiError(404, f"the picture cannot be shown: {sentence}") from error
        picture.thumbnail((size, size))
        buffer = io.BytesIO()
        picture.save(buffer, "JPEG", quality=85)
        made = buffer.getvalue()
        with self._lock:
            if tag not in self._kept:
                self._kept[tag] = made
                self._bytes += len(made)
            while self._bytes > KEPT:
                self._bytes -= len(self._kept.popitem(last=False)[1])
        return made
