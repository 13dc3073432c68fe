"""A picture of pictures: what a dataset looks like, with captions or with region boxes."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING

from xretrieve.data.base import FeatureRow, RetrievalDataset
from xretrieve.errors import XRetrieveError

if TYPE_CHECKING:
    from PIL.Image import Image

INK = ("#c0392b", "#1f6fb2", "#1e8449", "#8e44ad", "#b9770e", "#117a65", "#5d4037", "#ad1457", "#283593", "#37474f")


def contact_sheet(
    dataset: RetrievalDataset, n: int = 12, *, boxes: bool = False, columns: int = 3, side: int = 240
) -> Image:
    """The first ``n`` pictures of a dataset on one sheet, each with its captions below.

    Args:
        dataset: any dataset with picture files.
        n: how many pictures; more than there are shows all.
        boxes: draw the region boxes, and write the region captions in their colours in place of the captions.
        columns: pictures per row.
        side: longest side of a shown picture in pixels.

    Raises:
        XRetrieveError: the dataset holds precomputed features, or ``n`` or ``columns`` is not positive.
    """
    from PIL import Image, ImageDraw

    from xretrieve.data.pictures import picture_size, read_picture

    if n < 1 or columns < 1:
        raise XRetrieveError(f"contact sheet of {n} pictures in {columns} columns: write 1 or more of both")
    n = min(n, len(dataset))
    line, width = 15, side + 160
    texts: list[list[tuple[str, str]]] = []
    for row in range(n):
        if boxes and dataset.regions:
            said = [(r.text, INK[i % len(INK)]) for i, r in enumerate(dataset.regions[row])]
        else:
            said = [(text, "black") for text in dataset.captions_of(row)]
        texts.append([(dataset.image_ids[row], "#777777")])
        for text, ink in said:
            texts[-1] += [(part, ink) for part in textwrap.wrap(text, width // 6, subsequent_indent="    ")]
    heights = [side + 14 + line * max(map(len, texts[i : i + columns])) for i in range(0, n, columns)]
    sheet = Image.new("RGB", (width * min(columns, n) + 10, sum(heights) + 10), "white")
    pen = ImageDraw.Draw(sheet)
    for row in range(n):
        source = dataset.images[row]
        if isinstance(source, FeatureRow):
            raise XRetrieveError(f"{dataset.name}/{dataset.split} holds features; there are no pictures to show")
        x, y = 10 + row % columns * width, 10 + sum(heights[: row // columns])
        size = picture_size(source)
        scale = side / max(size)
        shape = [max(1, round(s * scale)) for s in size]
        shown = read_picture(source).resize(shape, Image.Resampling.LANCZOS)
        sheet.paste(shown, (x, y))
        for i, region in enumerate(dataset.regions[row] if boxes and dataset.regions else []):
            left, top, w, h = (v * scale for v in region.box)
            pen.rectangle((x + left, y + top, x + left + w - 1, y + top + h - 1), outline=INK[i % len(INK)])
        for i, (text, ink) in enumerate(texts[row]):
            pen.text((x, y + side + 4 + i * line), text, fill=ink)
    return sheet
