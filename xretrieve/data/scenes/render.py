"""Drawing a scene: inequalities on a fine grid, mixed in whole numbers, so that all machines agree on each pixel."""

from __future__ import annotations

import hashlib
import math
import struct
import zlib
from functools import lru_cache, reduce

import numpy as np

from xretrieve.data.scenes.scene import Draw, Scene, Thing
from xretrieve.data.scenes.vocabulary import BACKGROUNDS, COLOURS, LIGHT, RADIUS

FINE = 3  # sub-pixels along one side of a pixel
Box = tuple[int, int, int, int]


def _regular(points: int, inner: float = 0.0) -> list[tuple[float, float]]:
    """Corners of a regular polygon that stands upright; with ``inner``, of a star."""
    n = points * 2 if inner else points
    corners = []
    for k in range(n):
        angle, radius = 2 * math.pi * k / n, (inner if inner and k % 2 else 1.0)
        corners.append((radius * math.sin(angle), -radius * math.cos(angle)))
    return corners


POLYGONS: dict[str, list[tuple[float, float]]] = {
    "square": [(-0.84, -0.84), (0.84, -0.84), (0.84, 0.84), (-0.84, 0.84)],
    "triangle": [(0, -0.95), (1, 0.8), (-1, 0.8)],
    "star": _regular(5, 0.42),
    "pentagon": _regular(5),
    "diamond": [(0, -1), (0.66, 0), (0, 1), (-0.66, 0)],
    "cross": [(-0.3, -0.95), (0.3, -0.95), (0.3, -0.3), (0.95, -0.3), (0.95, 0.3), (0.3, 0.3),
              (0.3, 0.95), (-0.3, 0.95), (-0.3, 0.3), (-0.95, 0.3), (-0.95, -0.3), (-0.3, -0.3)],
    "arrow": [(-1, -0.3), (0.1, -0.3), (0.1, -0.85), (1, 0), (0.1, 0.85), (0.1, 0.3), (-1, 0.3)],
    "house": [(0, -1), (1, -0.15), (0.75, -0.15), (0.75, 0.95), (0.25, 0.95), (0.25, 0.35), (-0.25, 0.35),
              (-0.25, 0.95), (-0.75, 0.95), (-0.75, -0.15), (-1, -0.15)],
    "tree": [(0, -1), (0.55, -0.3), (0.3, -0.3), (0.85, 0.5), (0.2, 0.5), (0.2, 1), (-0.2, 1), (-0.2, 0.5),
             (-0.85, 0.5), (-0.3, -0.3), (-0.55, -0.3)],
}  # fmt: skip


def _inside(shape: str, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Which points of the plane belong to the shape; it fills about -1 to 1, y points down."""
    r = x * x + y * y
    if shape == "circle":
        return r <= 0.9
    if shape == "ring":
        return (r <= 1) & (r >= 0.36)
    if shape == "crescent":
        return (r <= 1) & ((x - 0.5) * (x - 0.5) + y * y >= 0.62)
    if shape == "heart":
        u, v = x * 1.2, 0.12 - y * 1.2
        s = u * u + v * v - 1
        return s * s * s <= u * u * v * v * v
    if shape == "mushroom":
        cap = (x * x + (y + 0.05) * (y + 0.05) * 1.1 <= 1) & (y <= 0.1)
        return cap | ((np.abs(x) <= 0.32) & (y >= 0) & (y <= 0.95))
    if shape == "flower":
        petals = r <= 0.12
        for a, b in _regular(6):
            petals |= (x - 0.62 * a) * (x - 0.62 * a) + (y - 0.62 * b) * (y - 0.62 * b) <= 0.13
        return petals
    corners = POLYGONS[shape]
    over = [ay > y for _, ay in corners]
    odd = np.zeros(x.shape, dtype=bool)
    for i, (bx, by) in enumerate(corners):
        ax, ay = corners[i - 1]
        if ay != by:
            odd ^= (over[i - 1] != over[i]) & (x < (bx - ax) * (y - ay) / (by - ay) + ax)
    return odd


def _marks(texture: str, x: np.ndarray, y: np.ndarray, period: float) -> np.ndarray:
    """Which points carry the second tone; x, y and the period in pixels."""
    if texture == "striped":
        return (x + y) * 0.7071 % period < period * 0.45
    if texture == "checked":
        return (np.floor(x / period * 1.6) + np.floor(y / period * 1.6)) % 2 < 1
    u, v = x % period - period / 2, y % period - period / 2
    return u * u + v * v <= period * period * 0.095


def _shrunk(inside: np.ndarray, by: int) -> np.ndarray:
    """What is inside with all its neighbours up to ``by`` points away, left, right, above and below."""
    core = np.zeros_like(inside)
    here = slice(by, -by)
    core[here, here] = inside[here, here]
    core[here, here] &= inside[: -2 * by, here]
    core[here, here] &= inside[2 * by :, here]
    core[here, here] &= inside[here, : -2 * by]
    core[here, here] &= inside[here, 2 * by :]
    return core


def _per_pixel(points: np.ndarray) -> np.ndarray:
    """How many of a pixel's points are set: bool (h * FINE, w * FINE) to whole numbers (h, w) of float32."""
    count = points.view(np.uint8)
    rows = reduce(np.add, (count[i::FINE] for i in range(FINE)))
    return reduce(np.add, (rows[:, i::FINE] for i in range(FINE))).astype(np.float32)


def _patch(thing: Thing, draw: Draw, size: int) -> tuple[np.ndarray, np.ndarray, int, int]:
    """Coverage (h, w, T) in sub-pixels, the T tones (T, 3) RGB, left and top pixel; whole numbers in float32, which
    multiplies matrices faster and holds them exactly."""
    radius = RADIUS[thing.size] * size * draw.between(0.95, 1.05)
    loose = max(0.0, size / 6 - radius) * 0.6 if not thing.front else 0.0
    cx = (thing.col + 0.5) * size / 3 + draw.between(-loose, loose)
    cy = (thing.row + 0.5) * size / 3 + draw.between(-loose, loose)
    angle = draw.between(-0.2, 0.2)
    left, top = math.floor(cx - radius * 1.25), math.floor(cy - radius * 1.25)
    side = math.ceil(radius * 2.5) + 2
    axis = (np.arange(side * FINE) + 0.5) / FINE
    px, py = axis[None, :] + (left - cx), axis[:, None] + (top - cy)
    cos, sin = math.cos(angle), math.sin(angle)
    x, y = px * cos + py * sin, py * cos - px * sin
    inside = _inside(thing.shape, x / radius, y / radius)
    core = _shrunk(inside, 2)
    tones = [inside ^ core, core]
    if thing.texture != "plain":
        shift, period = draw.between(0, 5), max(size * 0.046, radius * 0.4)
        marked = core.copy()
        marked[core] = _marks(thing.texture, x[core] + shift, y[core] + shift * 0.6, period)
        tones[1:] = [core ^ marked, marked]
    coverage = np.stack([_per_pixel(tone) for tone in tones], -1)
    colour = np.clip(np.array(COLOURS[thing.colour][0]) + [draw.below(19) - 9 for _ in range(3)], 0, 255)
    if thing.colour in LIGHT:
        edge, mark = colour * 45 // 100, colour * 62 // 100
    else:
        edge, mark = colour * 55 // 100, (colour * 35 + 255 * 65) // 100
    if thing.colour == "black":
        edge = np.array([120, 120, 124])
    return coverage, np.stack([edge, colour, mark])[: len(tones)].astype(np.float32), left, top


@lru_cache(maxsize=4)
def _ramp(size: int) -> tuple[np.ndarray, np.ndarray]:
    line = np.arange(size, dtype=np.int32) * 256 // size - 128
    return line[None, :], line[:, None]


def render(scene: Scene, seed: str, size: int) -> tuple[np.ndarray, list[Box]]:
    """Draw a scene.

    Args:
        scene: what to draw.
        seed: text; draws what no caption speaks of (jitter, rotation, tint, light, noise).
        size: side of the picture in pixels.

    Returns:
        the picture, uint8 (size, size, 3), and a box (x, y, w, h) in pixels for each of ``scene.things``.
    """
    draw = Draw(seed)
    across, down = _ramp(size)
    tint = np.array(BACKGROUNDS[scene.background][0]) + draw.below(17) - 8 + [draw.below(9) - 4 for _ in range(3)]
    light = (across * (draw.below(49) - 24) + down * (draw.below(49) - 24)) // 256
    picture = tint.astype(np.int32) + light[:, :, None]
    boxes: list[Box] = []
    for thing in scene.things:
        coverage, tones, left, top = _patch(thing, draw, size)
        x0, y0 = max(left, 0), max(top, 0)
        x1, y1 = min(left + coverage.shape[1], size), min(top + coverage.shape[0], size)
        coverage = coverage[y0 - top : y1 - top, x0 - left : x1 - left]
        under = picture[y0:y1, x0:x1]
        full = FINE * FINE
        covered = coverage.sum(-1).astype(np.int32)
        mixed = (coverage @ tones).astype(np.int32)
        picture[y0:y1, x0:x1] = (under * (full - covered)[..., None] + mixed + full // 2) // full
        ys, xs = np.nonzero(covered > full // 2)
        width, height = np.ptp(xs) + 1, np.ptp(ys) + 1
        boxes.append((int(x0 + xs.min()), int(y0 + ys.min()), int(width), int(height)))
    number = int.from_bytes(hashlib.sha256(seed.encode()).digest()[:8], "big")
    raw = np.random.PCG64(number).random_raw(-(-size * size // 8))
    noise = np.frombuffer(raw.astype("<u8").tobytes(), np.uint8)[: size * size].reshape(size, size, 1).astype(np.int32)
    amount = 6 + draw.below(16)
    return np.clip(picture + (noise * amount >> 8) - amount // 2, 0, 255).astype(np.uint8), boxes


def png_bytes(picture: np.ndarray) -> bytes:
    """A PNG of an (H, W, 3) uint8 picture, not compressed: the same bytes with any zlib, quick to read and write."""
    height, width, _ = picture.shape
    rows = np.zeros((height, 1 + width * 3), np.uint8)  # each row starts with filter type 0
    rows[:, 1:] = picture.reshape(height, -1)
    data = rows.tobytes()
    blocks = [data[i : i + 65535] for i in range(0, len(data), 65535)]
    body = b"".join(
        struct.pack("<BHH", i == len(blocks) - 1, len(b), len(b) ^ 0xFFFF) + b for i, b in enumerate(blocks)
    )
    stream = b"\x78\x01" + body + struct.pack(">I", zlib.adler32(data))

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", stream) + chunk(b"IEND", b"")
