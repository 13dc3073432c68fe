"""Read any picture as upright 8-bit RGB, or say which file is broken: the one reader of the house."""

from __future__ import annotations

import contextlib
import io
import math
import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO, cast

import numpy as np
from PIL import Image

from xretrieve.data.decoding import LARGE, TooLargeError, open_picture, plan
from xretrieve.errors import XRetrieveError

BAND = 2**20  # pixels that are converted at once
SAID = 160  # characters of a decoder's own words
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}  # by the number in EXIF, as in PIL.ImageOps.exif_transpose
LYING = (5, 6, 7, 8)  # those that change width and height


def read_picture(
    source: str | Path | bytes | Image.Image, max_pixels: int | None = None, side: int | None = None
) -> Image.Image:
    """An RGB picture from a path, the bytes of a file, or a PIL image.

    EXIF rotation is applied; CMYK, palette and 16-bit pictures are converted (16 bits are scaled to 8, not cut);
    transparency is laid on white; of an animation the first frame is taken. A missing, empty, truncated or damaged file
    is an :class:`XRetrieveError` that names it; so is one in another format than those that folders are searched for,
    and one that would take more memory than a picture may (:mod:`xretrieve.data.decoding`).

    Pictures of more than 33.5 million pixels come at a half of their width and height, or a quarter or an eighth.

    Args:
        source: what to read.
        max_pixels: a file of more is refused by its header, before it is decoded.
        side: for a copy of so many pixels a side: large JPEGs are then decoded at a fraction of their size.
    """
    if isinstance(source, Image.Image):
        return _given(source)
    with _opened(source) as (image, name, size):
        if max_pixels is not None and image.width * image.height > max_pixels:
            raise XRetrieveError(
                f"{name}: {image.width} x {image.height} pixels are more than the {max_pixels} that are taken"
            )
        way = plan(image, size, side)
        if way.scale > 1:
            cast(Any, image).draft(None, [max(1, edge // way.scale) for edge in image.size])
        if way.bands is not None:
            turn, array = _turn(image), way.bands()
            height, width = array.shape[:2]
            made = _joined(lambda top, bottom: Image.fromarray(array[top:bottom]), width, height, way.shrink)
            return _upright(made, turn)
        image.load()
        turn = _turn(image)
        made = _to_rgb(image, way.shrink)
    del image  # its pixels, where they are no longer needed
    return _upright(made, turn)


def picture_size(source: str | Path | Image.Image) -> tuple[int, int]:
    """Width and height of the upright picture as it is stored, mostly from the head of the file alone.

    What cannot be read is the same error as of :func:`read_picture`, which gives the largest pictures smaller.
    """
    if isinstance(source, Image.Image):
        return _upright_size(source)
    with _opened(source) as (image, _, size):
        plan(image, size)  # some formats keep the rotation behind the pixels
        return _upright_size(image)


def shrinking(source: str | Path) -> int:
    """How many times smaller a side is read than it is: 1 but for the largest pictures; 1 for what cannot be read."""
    try:
        with _opened(source) as (image, _, size):
            way = plan(image, size)
            return way.scale * way.shrink
    except XRetrieveError:
        return 1


def decoding_memory(source: str | Path | bytes, side: int | None = None) -> float:
    """Bytes that :func:`read_picture` will take, from the head of the file; what it will refuse is the same error."""
    with _opened(source) as (image, _, size):
        return plan(image, size, side).memory


@contextlib.contextmanager
def _opened(source: str | Path | bytes) -> Iterator[tuple[Image.Image, str, int]]:
    """A picture that is opened, its name in messages, and the bytes of its file. Whatever a decoder raises becomes an
    error that names the file; what is wrong with one picture must never end the work on the others."""
    if not isinstance(source, (str, Path, bytes)):
        raise XRetrieveError(f"expected a path or a PIL image, got {type(source).__name__}")
    name = "the picture that was sent" if isinstance(source, bytes) else str(source)
    with io.BytesIO(source) if isinstance(source, bytes) else _file(Path(source)) as file:
        try:
            size = file.seek(0, 2)
            if not size:
                raise XRetrieveError("the file is empty (0 bytes)")
            file.seek(0)
            yield open_picture(file), name, size
        except TooLargeError as error:
            raise TooLargeError(f"{name}: {error}") from error
        except XRetrieveError as error:
            raise XRetrieveError(str(error) if str(error).startswith(name) else f"{name}: {error}") from error
        except MemoryError as error:
            raise XRetrieveError(f"{name}: there is not enough memory to read it") from error
        except Exception as error:  # decoders raise whatever they like, by format and by where the damage is
            said = " ".join(str(error).split())[:SAID] or type(error).__name__
            raise XRetrieveError(f"{name}: broken picture ({said})") from error


def _file(path: Path) -> BinaryIO:
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):
            raise XRetrieveError(f"no picture at {path}: it is not a file")  # a pipe would be waited for
        return open(path, "rb")
    except (FileNotFoundError, NotADirectoryError, ValueError) as error:
        raise XRetrieveError(f"no picture at {path}") from error
    except OSError as error:
        raise XRetrieveError(f"{str(path)[:SAID]}: cannot be read ({error.strerror})") from error


def _given(image: Image.Image) -> Image.Image:
    try:
        image.load()
        shrink = next(f for f in (1, 2, 4, 8, 16) if image.width * image.height <= LARGE * f * f)
        made = _upright(_to_rgb(image, shrink), _turn(image))
        return made.copy() if made is image else made
    except Exception as error:
        raise XRetrieveError(f"the picture that was given cannot be read ({' '.join(str(error).split())[:SAID]})") \
            from error  # fmt: skip


def _turn(image: Image.Image) -> Image.Transpose | None:
    """What makes a loaded picture upright; damaged EXIF says nothing about it, and the pixels are fine."""
    try:
        return TURNS.get(image.getexif().get(0x0112, 1))
    except Exception:
        return None


def _upright(image: Image.Image, turn: Image.Transpose | None) -> Image.Image:
    return image if turn is None else image.transpose(turn)


def _upright_size(image: Image.Image) -> tuple[int, int]:
    try:
        lying = image.format != "TIFF" and image.getexif().get(0x0112, 1) in LYING  # Pillow turns a TIFF by itself
    except Exception:
        lying = False
    return image.size[::-1] if lying else image.size


def _to_rgb(image: Image.Image, shrink: int = 1) -> Image.Image:
    """RGB, and ``shrink`` times smaller a side. Done in bands, so that no second copy of all is made on the way."""
    if shrink == 1 and image.mode in ("RGB", "L", "CMYK", "YCbCr") and "transparency" not in image.info:
        return image if image.mode == "RGB" else image.convert("RGB")
    if shrink == 1 and image.mode == "RGB":
        return image
    highest = None
    if image.mode in ("I", "F"):
        highest = max(_values(band).max(initial=0) for band in _bands(image))
    return _joined(
        lambda top, bottom: _band_to_rgb(image.crop((0, top, image.width, bottom)), highest), *image.size, shrink
    )


def _joined(band: Callable[[int, int], Image.Image], width: int, height: int, shrink: int) -> Image.Image:
    made = Image.new("RGB", (math.ceil(width / shrink), math.ceil(height / shrink)))
    for top, bottom in _cuts(width, height, shrink):
        piece = _band_to_rgb(band(top, bottom))
        made.paste(piece.reduce(shrink) if shrink > 1 else piece, (0, top // shrink))
    return made


def _cuts(width: int, height: int, shrink: int = 1) -> Iterator[tuple[int, int]]:
    rows = shrink * max(1, BAND // (width * shrink))
    return ((top, min(height, top + rows)) for top in range(0, height, rows))


def _bands(image: Image.Image) -> Iterator[Image.Image]:
    return (image.crop((0, top, image.width, bottom)) for top, bottom in _cuts(*image.size))


def _band_to_rgb(image: Image.Image, highest: float | None = None) -> Image.Image:
    if image.mode == "RGB":
        return image
    if image.mode in ("I", "F") or image.mode.startswith("I;16"):
        image = Image.fromarray(_to_bytes(_values(image), image.mode, highest))
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image)
    return image.convert("RGB")


def _values(image: Image.Image) -> np.ndarray[Any, Any]:
    return np.nan_to_num(np.asarray(image).astype(np.float32))


def _to_bytes(values: np.ndarray[Any, Any], mode: str, highest: float | None) -> np.ndarray[Any, Any]:
    highest = values.max(initial=0) if highest is None else highest
    if mode.startswith("I;16") or highest > 255:
        values = values * (255 / 65535)
    elif mode == "F" and highest <= 1:
        values = values * 255
    return values.round().clip(0, 255).astype(np.uint8)
