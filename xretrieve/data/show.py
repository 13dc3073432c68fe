"""A few examples of a dataset, as plain values or as one self-contained web page."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Sequence
from typing import Any

import numpy as np

from xretrieve.data.base import FeatureRow, RetrievalDataset
from xretrieve.errors import XRetrieveError


def examples(
    data: RetrievalDataset, n: int = 3, seed: int | None = None, ids: Sequence[str] = ()
) -> list[dict[str, Any]]:
    """The first ``n`` images, or a random draw (with a seed), or those with the given ids, with all that is known."""
    rows = {image_id: row for row, image_id in enumerate(data.image_ids)}
    if ids:
        absent = [i for i in ids if i not in rows]
        if absent:
            where = f"{data.name}/{data.split}"
            raise XRetrieveError(f"{where}: no image {absent[0]!r}; ids look like {data.image_ids[0]!r}")
        chosen = [rows[i] for i in ids]
    elif seed is not None:
        chosen = sorted(np.random.default_rng(seed).choice(len(data), min(n, len(data)), replace=False).tolist())
    else:
        chosen = list(range(min(n, len(data))))
    shown = []
    for row in chosen:
        image = data.images[row]
        shown.append(
            {
                "id": data.image_ids[row],
                "image": f"{image.path} row {image.row}" if isinstance(image, FeatureRow) else str(image),
                "captions": data.captions_of(row),
                "regions": [{"box": list(r.box), "text": r.text} for r in (data.regions[row] if data.regions else [])],
                "triplets": [
                    {
                        "texts": list(t.texts),
                        "kind": t.kind,
                        "target": None if t.target is None else data.image_ids[t.target],
                    }
                    for t in data.triplets
                    if t.reference == row
                ],
                "metadata": data.metadata[row],
            }
        )
    return shown


def page(data: RetrievalDataset, shown: Sequence[dict[str, Any]], width: int = 320) -> str:
    """An HTML page with the pictures inside it, so that it can be sent as one file."""
    cards = []
    for example in shown:
        captions = "".join(f"<li>{html.escape(text)}</li>" for text in example["captions"])
        regions = ", ".join(html.escape(region["text"]) for region in example["regions"])
        image = data.images[data.image_ids.index(example["id"])]
        picture = "" if isinstance(image, FeatureRow) else f'<img src="{_embedded(image, width)}" alt="">'
        cards.append(
            f"<section>{picture}<div><b>{html.escape(example['id'])}</b><ul>{captions}</ul>"
            f"{'<p>Regions: ' + regions + '</p>' if regions else ''}</div></section>"
        )
    title = html.escape(f"{data.name}, {data.split}: {len(data):,} images, {len(data.captions):,} captions")
    style = (
        "body{font:16px/1.4 sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem}"
        "section{display:flex;flex-wrap:wrap;gap:1rem;margin:1.5rem 0}img{max-width:100%;align-self:start}"
    )
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">'
        f"<title>{title}</title><style>{style}</style><h1>{title}</h1>{''.join(cards)}</html>\n"
    )


def _embedded(path: Any, width: int) -> str:
    from xretrieve.data.pictures import read_picture

    picture = read_picture(path, side=2 * width)
    picture.thumbnail((width, width * 2))
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=85)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()
