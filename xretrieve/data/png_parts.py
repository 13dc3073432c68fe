"""A PNG file without the metadata that nobody here reads: colour profiles, and texts too large to unpack."""

from __future__ import annotations

import zlib
from typing import BinaryIO

SIGNATURE = b"\x89PNG\r\n\x1a\n"
PIXELS = frozenset({b"IHDR", b"PLTE", b"IDAT", b"IEND", b"tRNS"})
PACKED = frozenset({b"zTXt", b"iTXt"})  # may unpack to a thousand times their length
LARGEST = 2**20  # bytes of one such part, unpacked: what Pillow takes at most
ALL = 16 * 2**20  # of all together


class PngParts:
    """The file as a reader sees it that skips those parts; enough of a file for Pillow (``read``, ``seek``, ``tell``).

    Args:
        file: a PNG file, open, at its start.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file, self._at = file, 0
        self._spans = _kept(file)  # (start, end) in the file, one after the other here
        self._starts, self._length = [], 0
        for start, end in self._spans:
            self._starts.append(self._length)
            self._length += end - start

    def tell(self) -> int:
        """Where the next byte is read."""
        return self._at

    def seek(self, place: int, whence: int = 0) -> int:
        """Go to a place, as in a file."""
        self._at = max(0, place + (0, self._at, self._length)[whence])
        return self._at

    def read(self, count: int = -1) -> bytes:
        """At most ``count`` bytes; all that is left for -1."""
        left = self._length - self._at if count < 0 else min(count, self._length - self._at)
        pieces = []
        while left > 0:
            span = next(i for i in reversed(range(len(self._starts))) if self._starts[i] <= self._at)
            (start, end), offset = self._spans[span], self._at - self._starts[span]
            self._file.seek(start + offset)
            piece = self._file.read(min(left, end - start - offset))
            if not piece:
                break
            pieces.append(piece)
            self._at += len(piece)
            left -= len(piece)
        return b"".join(pieces)


def _kept(file: BinaryIO) -> list[tuple[int, int]]:
    """Spans of the file to read. At the first thing that is no PNG chunk the rest is left as it is."""
    spans = [(0, len(SIGNATURE))]
    size, place, budget = file.seek(0, 2), len(SIGNATURE), ALL
    while place + 8 <= size:
        file.seek(place)
        head = file.read(8)
        length, name = int.from_bytes(head[:4], "big"), head[4:]
        end = place + 12 + length
        if end > size or not name.isalpha():
            break
        weight = 0 if name in PIXELS else _weight(file, name, length)
        if weight <= min(LARGEST, budget):
            budget -= weight
            if spans[-1][1] == place:
                spans[-1] = (spans[-1][0], end)
            else:
                spans.append((place, end))
        place = end
    if place < size:
        spans.append((place, size))
    file.seek(0)
    return spans


def _weight(file: BinaryIO, name: bytes, length: int) -> int:
    """Bytes that a part takes in memory; too many for a colour profile, which changes nothing here."""
    if name == b"iCCP" or length > LARGEST:
        return LARGEST + 1
    if name not in PACKED:
        return length
    keyword, _, rest = file.read(length).partition(b"\0")
    if name == b"zTXt":
        packed = rest[1:]
    elif rest[:1] == b"\1":  # iTXt: flag, method, language, translated keyword, text
        packed = rest[2:].split(b"\0", 2)[-1]
    else:
        return length
    try:
        return len(keyword) + len(zlib.decompressobj().decompress(packed, LARGEST + 1))
    except zlib.error:
        return length
