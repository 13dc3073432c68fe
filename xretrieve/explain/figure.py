"""One explanation as a figure: the picture, the heat of the whole text, and a tile per word, for every stream."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from xretrieve.explain.heat import Size, colours, heat_map, shares, stream_map, word_values

COLUMNS = 6
TILE = 240  # longest side of a tile in pixels
STREAMS = {
    "t2i": ("words look at regions", "where each word looks"),
    "i2t": ("regions look at words", "which regions look at each word"),
}
TILE_WIDTH, GAP, TEXT, HEADING = 1.75, 0.12, 0.46, 0.34  # inches; TEXT is the lines above and under a tile
SUMMARY = 3  # columns of the first row: the picture, and the whole text in up to two streams
LINE = 44  # letters of a sentence over its tile
OUTLINED = 3  # boxes that are drawn as such


@dataclass(frozen=True)
class Tile:
    """One small picture of the figure: a heading, a number under it, and the picture with its heat."""

    title: str
    note: str
    picture: Image.Image


def figure(told: dict[str, Any], picture: Image.Image | None, title: str = "") -> bytes:
    """A PNG of an explanation.

    Args:
        told: the dict of :meth:`xretrieve.Ranking.explain`, with ``attention``.
        picture: the hit; None draws the heat on an empty sheet.
        title: written on top.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    attention = told["attention"]
    groups = [("", summary(attention, picture, told)), *words(attention, picture, told["parts"])]
    size = groups[0][1][0].picture.size
    shape = size[1] / size[0]
    # in inches, from the top down: what each group takes with its heading
    columns = [COLUMNS if heading and of_words(attention) else SUMMARY for heading, _ in groups]
    wide = [(COLUMNS * TILE_WIDTH) / count for count in columns]
    lines = [1 + (len(tiles) - 1) // count for (_, tiles), count in zip(groups, columns, strict=True)]
    cells = [(width - GAP) * shape + TEXT for width in wide]
    total = 0.75 + sum(HEADING * bool(g[0]) + n * cell for g, n, cell in zip(groups, lines, cells, strict=True))
    page = Figure(figsize=(COLUMNS * TILE_WIDTH + GAP, total), dpi=110, facecolor="white")
    top = (
        _heading(page, title if len(title) <= 2 * LINE else title[: 2 * LINE - 1] + "…", total, total - 0.1, 12.5) - 0.1
    )
    for (heading, tiles), rows, count, width, cell in zip(groups, lines, columns, wide, cells, strict=True):
        if heading:
            top = _heading(page, heading, total, top, 10.5)
        for place, tile in enumerate(tiles):
            row, column = divmod(place, count)
            left, bottom = GAP + column * width, top - (row + 1) * cell + TEXT / 2
            drawn = page.add_axes((left / page.get_figwidth(), bottom / total, (width - GAP) / page.get_figwidth(),
                                   (cell - TEXT) / total))  # fmt: skip
            drawn.imshow(np.asarray(tile.picture), aspect="auto")
            drawn.set_axis_off()
            drawn.set_title(tile.title, fontsize=9.5, pad=3, loc="left", parse_math=False)
            note: dict[str, Any] = {"fontsize": 7.5, "color": "#555", "va": "top", "transform": drawn.transAxes}
            drawn.text(0, -0.025 / shape, tile.note, parse_math=False, **note)
        top -= rows * cell
    out = io.BytesIO()
    FigureCanvasAgg(page).print_png(out)
    return out.getvalue()


def _heading(page: Any, text: str, total: float, top: float, size: float) -> float:
    """Write a line from ``top`` (inches) down; returns where what follows begins."""
    left = GAP / page.get_figwidth()
    page.text(left, (top - HEADING / 2) / total, text, fontsize=size, fontweight="bold", va="center", parse_math=False)
    return top - HEADING


def summary(attention: dict[str, Any], picture: Image.Image | None, told: dict[str, Any]) -> list[Tile]:
    """The picture itself, and the heat of the whole text in each stream."""
    sheet = _sheet(attention, picture)
    tiles = [Tile(_short(str(told["id"]), 38), f"rank {told['rank']}, score {told['score']:.4f}", sheet)]
    for stream in attention["map"]:
        drawn = heated(attention, *stream_map(attention, stream)[:1], picture, low=stream_map(attention, stream)[1])
        tiles.append(Tile(f"{stream}: {says(attention, stream)[0]}", "the whole text", drawn))
    return tiles


def words(
    attention: dict[str, Any], picture: Image.Image | None, parts: Sequence[dict[str, Any]] = ()
) -> list[tuple[str, list[Tile]]]:
    """A tile per word, stream by stream; of a query set a tile per sentence, with its own score from ``parts``."""
    groups = []
    for stream, found in attention["streams"].items():
        even = 1 / (attention["regions"] if stream == "t2i" else len(attention["words"]))
        tiles = []
        for place, word in enumerate(attention["words"]):
            values = word_values(attention, stream, place)
            note = f"at most {100 * max(values):.0f} %"
            if stream == "t2i":
                note += f", match {found['match'][place]:.2f}"
            title = _short(word, 20)
            if not of_words(attention):
                note = f"alone {parts[place]['score']:.4f}, {note}"
                title = word if len(word) <= LINE else word[: LINE - 1] + "…"
            tiles.append(Tile(title, note, heated(attention, values, picture, peak=max(*values, 2 * even))))
        groups.append((f"{stream}: {says(attention, stream)[1]}", tiles))
    return groups


def of_words(attention: dict[str, Any]) -> bool:
    """Whether words of one text look at the regions, and not sentences of a query set."""
    return attention.get("of", "words") == "words"


def says(attention: dict[str, Any], stream: str) -> tuple[str, str]:
    """What a stream shows: of all, and of one word (or sentence)."""
    whole, one = STREAMS[stream]
    return (whole, one) if of_words(attention) else (whole.replace("word", "sentence"), one.replace("word", "sentence"))


def heated(
    attention: dict[str, Any], values: list[float], picture: Image.Image | None, low: float = 0.0,
    peak: float | None = None,
) -> Image.Image:  # fmt: skip
    """The picture with the heat of some values over it, and the strongest boxes outlined."""
    sheet = _sheet(attention, picture).convert("RGBA")
    layout = attention["layout"]
    if layout is None:
        return sheet.convert("RGB")
    own = picture.size if picture is not None else None
    sheet.alpha_composite(colours(heat_map(layout, values, sheet.size, own), peak, low))
    if layout["boxes"] is not None:
        pen = ImageDraw.Draw(sheet)
        for place in np.argsort(values)[::-1][:OUTLINED]:
            box = shares(layout["boxes"], own)[place] * np.array([*sheet.size, *sheet.size])
            pen.rectangle(box.tolist(), outline=(255, 255, 255, 230), width=2)
    return sheet.convert("RGB")


def _sheet(attention: dict[str, Any], picture: Image.Image | None) -> Image.Image:
    """The picture at the size of a tile, or an empty sheet of the boxes' shape."""
    if picture is not None:
        small = picture.convert("RGB").copy()
        small.thumbnail((TILE, TILE))
        return small
    return Image.new("RGB", _extent(attention["layout"]), (150, 150, 150))


def _extent(layout: dict[str, Any] | None) -> Size:
    if layout is None or layout["boxes"] is None:
        return TILE, TILE * 3 // 4
    far = np.asarray(layout["boxes"], np.float32)[:, 2:].max(0)
    far = far * TILE / far.max()
    return max(1, int(far[0])), max(1, int(far[1]))


def _short(text: str, limit: int) -> str:
    return text if len(text) <= limit else "…" + text[1 - limit :]
