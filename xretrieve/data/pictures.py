"""Read any picture as upright 8-bit RGB, or say which file is broken."""

from __future__ import annotations

import contextlib
import io
import struct
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from xretrieve.errors import XRetrieveError
from xretrieve.utils.paths import is_file

with contextlib.suppress(ImportError):  # the extra `heic`; without it HEIC files are left out of a folder
    import pillow_heif

    pillow_heif.register_heif_opener()

# What PIL raises on broken files, depending on the format and on where the damage is.
_BROKEN = (
    OSError,
    SyntaxError,
    ValueError,
    EOFError,
    IndexError,
    KeyError,
    TypeError,
    struct.error,
    Image.DecompressionBombError,
)


def read_picture(source: str | Path | bytes | Image.Image, max_pixels: int | None = None) -> Image.Image:
    """An RGB picture from a path, the bytes of a file, or a PIL image.

    EXIF rotation is applied; CMYK, palette and 16-bit pictures are converted (16 bits are scaled to 8, not cut);
    transparency is laid on white; of an animation the first frame is taken. A missing, empty or truncated file is an
    :class:`XRetrieveError` that names it.

    max_pixels: a file of more pixels is refused by its header, before it is decoded. Bytes are taken in the formats
    that a folder is searched for, and no others.
    """
    if isinstance(source, Image.Image):
        return _to_rgb(source)
    if not isinstance(source, (str, Path, bytes)):
        raise XRetrieveError(f"expected a path or a PIL image, got {type(source).__name__}")
    if isinstance(source, bytes):
        return _decode(io.BytesIO(source), "the picture that was sent", max_pixels, _formats())
    path = Path(source)
    if not is_file(path):
        raise XRetrieveError(f"no picture at {path}")
    if path.stat().st_size == 0:
        raise XRetrieveError(f"{path}: the file is empty (0 bytes)")
    return _decode(path, str(path), max_pixels)


def _decode(
    source: Path | io.BytesIO, name: str, max_pixels: int | None, formats: list[str] | None = None
) -> Image.Image:
    try:
        with Image.open(source, formats=formats) as image:
            if max_pixels is not None and image.width * image.height > max_pixels:
                raise XRetrieveError(
                    f"{name}: {image.width} x {image.height} pixels are more than the {max_pixels} that are taken"
                )
            image.load()
            return _to_rgb(image)
    except UnidentifiedImageError as error:
        raise XRetrieveError(f"{name}: not a picture in a format that can be read") from error
    except _BROKEN as error:
        raise XRetrieveError(f"{name}: broken picture ({error})") from error


def _formats() -> list[str]:
    from xretrieve.data.folder import picture_suffixes

    known = Image.registered_extensions()
    return sorted({known[suffix] for suffix in picture_suffixes() if suffix in known})


def picture_size(source: str | Path | Image.Image) -> tuple[int, int]:
    """Width and height of the upright picture that :func:`read_picture` gives, mostly from the head of the file alone.

    What cannot be read is the same error.
    """
    if isinstance(source, (str, Path)):
        try:
            with Image.open(source) as image:
                return _upright_size(image)
        except _BROKEN:
            return read_picture(source).size  # says what is wrong
    return read_picture(source).size


def _upright_size(image: Image.Image) -> tuple[int, int]:
    lying = image.getexif().get(0x0112, 1) in (5, 6, 7, 8)  # EXIF: to be turned by 90 degrees
    return image.size[::-1] if lying else image.size


def _to_rgb(image: Image.Image) -> Image.Image:
    try:
        image = ImageOps.exif_transpose(image)
    except _BROKEN:
        pass  # damaged EXIF says nothing about the rotation; the pixels are fine
    if image.mode == "RGB":
        return image
    if image.mode in ("I", "F") or image.mode.startswith("I;16"):
        image = Image.fromarray(_to_bytes(np.asarray(image), image.mode))
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image)
    return image.convert("RGB")


def _to_bytes(values: np.ndarray[Any, Any], mode: str) -> np.ndarray[Any, Any]:
    values = np.nan_to_num(values.astype(np.float32))
    highest = values.max(initial=0)
    if mode.startswith("I;16") or highest > 255:
        values = values * (255 / 65535)
    elif mode == "F" and highest <= 1:
        values = values * 255
    return values.round().clip(0, 255).astype(np.uint8)
