"""Pictures of queries, and small copies of those that are indexed. Files are found by their id in the index only.

They are decoded by processes of their own (:mod:`xretrieve.app.decoder`), one for each kind of work.
"""

from __future__ import annotations

import asyncio
import hashlib
import tempfile
from collections import OrderedDict
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from anyio import BrokenWorkerProcess, CapacityLimiter, fail_after, to_process

from xretrieve.app.decoder import Base64Error, in_own_process, jpeg_copy, query_picture
from xretrieve.app.errors import ApiError
from xretrieve.errors import XRetrieveError

if TYPE_CHECKING:
    from PIL.Image import Image

    from xretrieve.app.settings import Settings

KEPT = 32 * 2**20  # bytes of copies kept in memory


class Decoders:
    """Two processes, started when they are first needed: one for pictures of queries, one for copies.

    Args:
        settings: how many pixels and seconds one picture may take.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._turns = tempfile.TemporaryDirectory(prefix="xretrieve-")  # its lock is that of large pictures
        self._queries, self._copies = CapacityLimiter(1), CapacityLimiter(1)

    async def query(self, source: bytes | str | Path) -> tuple[Image, str]:
        """As :func:`xretrieve.app.decoder.query_picture`; what is none is status 400, or 404 of the index."""
        try:
            return await self._run(self._queries, query_picture, source, self._settings.max_pixels)
        except Base64Error as error:
            raise ApiError(422, str(error)) from error
        except XRetrieveError as error:
            raise _shown(error, source, 400) from error

    async def copy(self, path: Path, side: int) -> bytes:
        """As :func:`xretrieve.app.decoder.jpeg_copy`; a picture that cannot be read is status 404."""
        try:
            return await self._run(self._copies, jpeg_copy, path, side)
        except XRetrieveError as error:
            raise _shown(error, path, 404) from error

    async def _run(self, limiter: CapacityLimiter, function: Callable[..., Any], *arguments: Any) -> Any:
        work = partial(in_own_process, function, *arguments, Path(self._turns.name))
        async with limiter:  # the time of waiting does not count
            for left in (1, 0):
                try:
                    with fail_after(self._settings.picture_seconds):
                        return await to_process.run_sync(work, cancellable=True)
                except TimeoutError as error:
                    seconds = self._settings.picture_seconds
                    raise XRetrieveError(f"decoding it took more than {seconds:g} s") from error
                except BrokenWorkerProcess as error:
                    if not left:  # else it may have ended just then because it was idle
                        raise XRetrieveError("decoding it failed; is the file damaged?") from error
        raise AssertionError("unreachable")


def _shown(error: XRetrieveError, source: Any, status: int) -> ApiError:
    sentence = str(error)
    if isinstance(source, Path):
        sentence = f"the picture cannot be shown: {sentence.replace(str(source), source.name)}"
    return ApiError(status, sentence)


class Copies:
    """JPEG copies of picture files; those asked for last are kept, and one that is being made is waited for."""

    def __init__(self, decoders: Decoders) -> None:
        self._decoders = decoders
        self._kept: OrderedDict[str, bytes] = OrderedDict()
        self._making: dict[str, asyncio.Task[bytes]] = {}
        self._bytes = 0

    def tag(self, path: Path, size: int) -> str:
        """Changes when the file does. A file that is gone, or may not be looked at, is status 404."""
        try:
            stat = path.stat()
        except OSError as error:
            raise ApiError(404, f"the picture {path.name!r} is no longer on the disk") from error
        return hashlib.sha256(f"{path}\n{stat.st_mtime_ns}\n{stat.st_size}\n{size}".encode()).hexdigest()[:24]

    def kept(self, tag: str) -> bytes | None:
        """A copy that is there."""
        if tag in self._kept:
            self._kept.move_to_end(tag)
        return self._kept.get(tag)

    async def get(self, path: Path, size: int, tag: str) -> bytes:
        """A copy with no side over ``size`` pixels."""
        if (kept := self.kept(tag)) is not None:
            return kept
        if tag not in self._making:
            self._making[tag] = asyncio.ensure_future(self._decoders.copy(path, size))
            self._making[tag].add_done_callback(lambda task: self._making.pop(tag, None))
        copy = await asyncio.shield(self._making[tag])
        if tag not in self._kept:
            self._kept[tag] = copy
            self._bytes += len(copy)
        while self._bytes > KEPT:
            self._bytes -= len(self._kept.popitem(last=False)[1])
        return copy
