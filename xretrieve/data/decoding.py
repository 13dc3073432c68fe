"""Opening picture files within bounds: the formats of photo folders only, and never more memory than one may take.

A JPEG is decoded at a half, a quarter or an eighth of its size where it is very large. What cannot be decoded in parts
must fit as a whole. Before a pixel is decoded, its header says what that will take.
"""

from __future__ import annotations

import math
import os
import struct
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, BinaryIO

import numpy as np
from PIL import Image

from xretrieve.data.png_parts import SIGNATURE, PngParts
from xretrieve.errors import XRetrieveError

try:  # the extra `heic`
    import pillow_heif

    pillow_heif.register_heif_opener()
except ImportError:
    pillow_heif = None  # type: ignore[assignment]

SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff"})
IF_PILLOW_CAN = frozenset({".heic", ".heif", ".avif"})
LARGE = 2**25  # pixels (33.5 million): larger pictures are read at a fraction of their size
FRACTIONS = (1, 2, 4, 8)  # of a side
MEMORY = 300  # MB (10^6 bytes) that one picture may take
SPARE = 16  # MB of these for what no header tells
# Broken EXIF and the like is no concern of whoever indexes a folder.
warnings.filterwarnings("ignore", module=r"PIL\.")

Rows = Callable[[int, int], Image.Image]  # a band of the picture: rows from, to


class TooLargeError(XRetrieveError):
    """A picture that would take more memory than one may."""


@dataclass
class Plan:
    """How a picture will be decoded.

    Args:
        scale: 1, 2, 4 or 8, by which a JPEG is decoded smaller.
        shrink: 1, 2, 4 or 8, by which it is made smaller after that.
        bands: decoded by another decoder than Pillow's, which takes less memory; None: by Pillow.
        memory: bytes that it will take.
    """

    scale: int = 1
    shrink: int = 1
    bands: Callable[[], np.ndarray[Any, Any]] | None = None
    memory: float = 0.0


def allowed_memory() -> int:
    """Bytes that one picture may take while it is read: 300 MB, or ``XRETRIEVE_PICTURE_MB``."""
    told = os.environ.get("XRETRIEVE_PICTURE_MB", "")
    if told and not (told.isdecimal() and int(told) > SPARE):
        raise XRetrieveError(f"XRETRIEVE_PICTURE_MB is {told[:40]!r}; give a number of megabytes above {SPARE}")
    return int(told or MEMORY) * 10**6


def picture_suffixes() -> frozenset[str]:
    """Lower-case suffixes that are taken as pictures; HEIC and AVIF only where the installed Pillow reads them."""
    return SUFFIXES | (IF_PILLOW_CAN & set(Image.registered_extensions()))


def formats() -> list[str]:
    """Pillow's names of the formats that a folder is searched for; no others are opened, whatever a file is called."""
    known = Image.registered_extensions()
    return sorted({known[suffix] for suffix in picture_suffixes() if suffix in known})


def open_picture(file: BinaryIO) -> Image.Image:
    """An opened picture, not decoded yet. What is none of :func:`formats` is an error without the file's name.

    Pillow's own ``Image.open`` looks at a limit of pixels that is the same for all formats and belongs to the program.
    """
    head = file.read(32)
    size = file.seek(0, 2)
    whole = head[4:8] == b"ftyp" or (head[:4] == b"RIFF" and head[8:12] == b"WEBP")
    if whole and 2 * size > allowed_memory():
        raise TooLargeError(f"a file of {size / 1e6:.0f} MB takes too much memory to read; save it as JPEG")
    file.seek(0)
    for name in formats():
        factory, accept = Image.OPEN[name]
        if accept is not None and accept(head[:16]) is not True and not accept(head[:16]):
            continue
        file.seek(0)
        source: Any = PngParts(file) if head.startswith(SIGNATURE) else file
        try:
            return factory(source, "")
        except (SyntaxError, IndexError, TypeError, struct.error):  # not this format, as in Pillow
            continue
        except Image.DecompressionBombError as error:
            raise TooLargeError(str(error)) from error
    if pillow_heif is None and head[4:8] == b"ftyp" and head[8:12] in (b"heic", b"heix", b"mif1", b"msf1", b"hevc"):
        raise XRetrieveError("a HEIC picture; `pip install 'xretrieve[heic]'` to read it")
    raise XRetrieveError("not a picture in a format that can be read")


def plan(image: Image.Image, file_bytes: int, side: int | None = None) -> Plan:
    """How to decode an opened picture.

    Args:
        image: of :func:`open_picture`.
        file_bytes: length of the file.
        side: a copy of so many pixels a side is wanted, and twice as many are plenty to make it from.

    Raises:
        TooLargeError: it cannot be done within :func:`allowed_memory`.
    """
    limit, pixels = allowed_memory() - SPARE * 10**6, image.width * image.height
    wanted = min(LARGE, limit // 8)  # a picture and a turned copy of it
    small = 1 if side is None else max([f for f in FRACTIONS if max(image.size) >= 2 * side * f], default=1)
    least = math.inf
    for fraction in FRACTIONS:
        result = pixels / fraction**2
        if result > wanted or (image.format in ("JPEG", "MPO") and fraction < small):
            continue
        for way in _ways(image, fraction):
            need = _bytes(image, file_bytes, way) + (4 * result if way.shrink > 1 or image.mode != "RGB" else 0)
            least = min(least, need)
            if need <= limit:
                way.memory = need
                return way
    raise TooLargeError(
        f"{image.width} x {image.height} pixels as {image.format} take {least / 1e6:.0f} MB to decode, more than the "
        f"{limit / 1e6:.0f} MB for one picture; save it smaller, or as plain JPEG, or set XRETRIEVE_PICTURE_MB"
        if least < math.inf
        else f"{image.width} x {image.height} pixels are too many for one picture; save it smaller"
    )


def _ways(image: Any, fraction: int) -> list[Plan]:
    if image.format in ("JPEG", "MPO"):
        return [Plan(scale=fraction)]
    ways = [Plan(shrink=fraction)]
    if image.format == "HEIF" and pillow_heif is not None and not image.is_animated:
        ways.append(Plan(shrink=fraction, bands=lambda: _heif_array(image)))
    if image.format == "WEBP" and image.n_frames == 1 and image.mode == "RGB":
        ways.append(Plan(shrink=fraction, bands=lambda: _webp_array(image)))
    return ways


def _bytes(image: Any, file_bytes: int, way: Plan) -> float:
    """What decoding takes, as measured (bytes a pixel; `benchmarks/reliability/pictures.py` watches it)."""
    pixels, kind = image.width * image.height, image.format
    own = {"1": 1, "L": 1, "P": 1, "I;16": 2, "I;16B": 2, "I;16L": 2}.get(image.mode, 4)
    if kind in ("JPEG", "MPO"):
        return pixels * (own / way.scale**2 + (2 * _samples(image) if _in_passes(image) else 0))
    if kind == "WEBP":
        return file_bytes * 2 + pixels * (16.5 if way.bands is None else 8)
    if kind == "AVIF":
        return file_bytes * 2 + pixels * (11 if image.mode == "RGB" else 13)
    if kind == "HEIF":
        deep = 1.5 if image.info.get("bit_depth", 8) > 8 else 0
        return file_bytes + pixels * (len(image.getbands()) + deep + (4.6 if way.bands is None else 2.1))
    if kind == "TIFF":
        tags = image.tag_v2
        bits = sum(tags.get(258, (8,))) * (1 if len(tags.get(258, (8,))) > 1 else tags.get(277, 1))
        strip = min(tags.get(278, image.height), image.height) * image.width if 322 not in tags else 0
        turned = own if tags.get(274, 1) != 1 else 0  # Pillow turns it at once
        packed = (
            0 if image.tile and image.tile[0][0] == "raw" else file_bytes + strip * bits / 8
        )  # libtiff maps the file
        return packed + pixels * (own + turned)
    return pixels * own


def _samples(image: Any) -> float:
    """Values a pixel that a JPEG keeps: 1.5 where colours have half the rows and columns, 3 where all."""
    layers = [(h, v) for _, h, v, _ in image.layer]
    across, down = max(h for h, _ in layers), max(v for _, v in layers)
    return sum(h * v for h, v in layers) / max(1, across * down)


def _in_passes(image: Any) -> bool:
    """Whether a JPEG comes in several passes, so that its decoder keeps all coefficients (2 bytes each)."""
    if "progressive" in image.info or "progression" in image.info:
        return True
    file, place = image.fp, image.fp.tell()
    file.seek(2)
    try:
        while len(head := file.read(5)) == 5 and head[0] == 0xFF:  # marker, length, and how many colours a pass has
            if head[1] == 0xDA:
                return head[4] < len(image.layer)
            file.seek(int.from_bytes(head[2:4], "big") - 3, 1)
        return True  # not the plain order of parts
    finally:
        file.seek(place)


def _heif_array(image: Any) -> np.ndarray[Any, Any]:
    image.fp.seek(0)
    return np.asarray(pillow_heif.open_heif(image.fp, convert_hdr_to_8bit=True))


def _webp_array(image: Any) -> np.ndarray[Any, Any]:
    import torch
    from torchvision.io import ImageReadMode, decode_webp

    image.fp.seek(0)
    data = torch.frombuffer(bytearray(image.fp.read()), dtype=torch.uint8)
    return decode_webp(data, mode=ImageReadMode.RGB).permute(1, 2, 0).numpy()
