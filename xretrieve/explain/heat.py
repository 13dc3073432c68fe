"""Heat over a picture: one number per region becomes one per pixel, and colours that let the picture through."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

Size = tuple[int, int]  # width, height
SMALL = 64  # longest side of an overlay in pixels: heat is smooth, the browser enlarges it
HOT = np.array([225, 30, 20], np.float32)
BRIGHT = np.array([255, 150, 0], np.float32)


def word_values(told: dict[str, Any], stream: str, word: int) -> list[float]:
    """R numbers: how much a word looks at each region (t2i), or how much of each region's look goes to it (i2t)."""
    weights = told["streams"][stream]["weights"]
    return weights[word] if stream == "t2i" else [row[word] for row in weights]


def heat_map(layout: dict[str, Any], values: Sequence[float], size: Size, picture: Size | None = None) -> np.ndarray:
    """(height, width) float32 heat over the whole picture; NaN where the model did not look at all.

    Args:
        layout: ``layout`` of an explanation (:func:`xretrieve.explain.attention_of`).
        values: one per region.
        size: width and height of the result.
        picture: those of the picture that boxes in pixels refer to; by default the boxes' own extent.
    """
    given = np.asarray(values, np.float32)
    if layout["grid"] is not None:
        return _grid(given.reshape(layout["grid"]), layout["area"], size)
    return _boxes(given, shares(layout["boxes"], picture), size)


def shares(boxes: Sequence[Sequence[float]], picture: Size | None = None) -> np.ndarray:
    """Boxes (R,4) in shares of the picture's width and height; those stored in pixels are divided by its size."""
    found = np.asarray(boxes, np.float32)
    if found.max(initial=0) <= 1.5:
        return found
    width, height = picture or (float(found[:, [0, 2]].max()), float(found[:, [1, 3]].max()))
    return found / np.array([width, height, width, height], np.float32)


def _grid(cells: np.ndarray, area: Sequence[float], size: Size) -> np.ndarray:
    rows, columns = cells.shape
    left, top, right, bottom = area
    across, inside_x = _blend(columns, left, right, size[0])
    down, inside_y = _blend(rows, top, bottom, size[1])
    heat = down @ cells @ across.T  # bilinear between the centres of the cells
    heat[~np.outer(inside_y, inside_x)] = np.nan
    return heat


def _blend(cells: int, start: float, stop: float, pixels: int) -> tuple[np.ndarray, np.ndarray]:
    """(pixels, cells) shares of the cells in every pixel of a line, and which pixels lie between start and stop."""
    place = ((np.arange(pixels) + 0.5) / pixels - start) / (stop - start)
    at = np.clip(place * cells - 0.5, 0, cells - 1)
    low = np.floor(at).astype(int)
    shares = np.zeros((pixels, cells), np.float32)
    shares[np.arange(pixels), low] = 1 - (at - low)
    shares[np.arange(pixels), np.minimum(low + 1, cells - 1)] += at - low
    return shares, (place >= 0) & (place <= 1)


def _boxes(values: np.ndarray, boxes: np.ndarray, size: Size) -> np.ndarray:
    width, height = size
    heat = np.full((height, width), np.nan, np.float32)
    for place in values.argsort():  # the strongest is painted last
        left, top, right, bottom = (boxes[place] * np.array([width, height, width, height])).round().astype(int)
        y, x = slice(max(0, top), max(top + 1, bottom)), slice(max(0, left), max(left + 1, right))
        heat[y, x] = values[place]
    return heat


def colours(heat: np.ndarray, peak: float | None = None, low: float = 0.0) -> Image.Image:
    """RGBA over a picture: dark where there is no heat, clear and then glowing where there is.

    ``low`` and ``peak`` are the heats drawn darkest and brightest; by default 0 and the highest.
    """
    top = float(np.nanmax(heat)) if peak is None else peak
    level = np.clip((np.nan_to_num(heat, nan=low) - low) / max(top - low, 1e-12), 0, 1)[..., None]
    level = level**0.8
    dark = 0.5 * (1 - level) ** 1.5
    glow = 0.55 * np.clip(level - 0.35, 0, 1) / 0.65
    alpha = dark + glow
    colour = (HOT + (BRIGHT - HOT) * level) * glow / np.maximum(alpha, 1e-6)
    pixels = np.concatenate([colour, alpha * 255], -1)
    return Image.fromarray(pixels.round().clip(0, 255).astype(np.uint8), "RGBA")


def overlay(
    told: dict[str, Any], values: Sequence[float], picture: Size, side: int = SMALL, peak: float | None = None,
    low: float = 0.0,
) -> bytes:  # fmt: skip
    """A small transparent PNG to be laid over a picture of any scale; no bytes where the regions lie nowhere."""
    if told["layout"] is None:
        return b""
    scale = side / max(picture)
    size = max(1, round(picture[0] * scale)), max(1, round(picture[1] * scale))
    out = io.BytesIO()
    colours(heat_map(told["layout"], values, size, picture), peak, low).save(out, "PNG", optimize=True)
    return out.getvalue()


def stream_map(told: dict[str, Any], stream: str) -> tuple[list[float], float]:
    """The heat of the whole text in one stream, and the heat that is drawn darkest: the lowest, for over all words the
    heat of regions differs by little."""
    values = told["map"][stream]
    return values, min(values)


def whole(told: dict[str, Any]) -> list[float]:
    """One heat of the text over the regions, 0 to 1: the mean of the streams' maps, each from its lowest to its
    highest value."""
    maps = [np.asarray(values, np.float32) for values in told["map"].values()]
    stretched = [(m - m.min()) / max(float(m.max() - m.min()), 1e-12) for m in maps]
    return np.mean(stretched, 0).tolist()


def whole_overlay(told: dict[str, Any], path: str | Path) -> bytes:
    """:func:`overlay` of the whole text for a picture file."""
    from xretrieve.data.pictures import picture_size

    return overlay(told, whole(told), picture_size(path))
