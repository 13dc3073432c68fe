"""Where the caption of a sample is found in the best image, for models whose head compares words and regions."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from xretrieve.data.base import FeatureRow
from xretrieve.evaluation.samples import Sample, thumbnail

if TYPE_CHECKING:
    from xretrieve.data.base import RetrievalDataset


def sample_heats(
    matcher: Any, dataset: RetrievalDataset, samples: Sequence[Sample], cache: Any = None
) -> dict[str, bytes]:
    """Caption id -> small JPEG of its first hit under the heat of the caption.

    Empty for other heads and for averages, and where there are no pictures or nothing says where the regions lie.
    """
    if hasattr(matcher, "members") or getattr(getattr(matcher, "head", None), "looks", None) is None:
        return {}
    row = {image: i for i, image in enumerate(dataset.image_ids)}
    asked = [(s, dataset.images[row[s.hits[0].id]]) for s in samples if s.direction == "t2i" and s.hits]
    asked = [(sample, source) for sample, source in asked if not isinstance(source, FeatureRow)]
    if not asked:
        return {}
    sources = [source for _, source in asked]
    images = matcher.encode_images(sources, ids=[sample.hits[0].id for sample, _ in asked], cache=cache)
    texts = matcher.encode_texts([sample.text for sample, _ in asked])
    heats = {}
    for i, (layout, (sample, source)) in enumerate(zip(matcher.image.layout(sources), asked, strict=True)):
        if layout is not None:
            heats[sample.query] = _draw(matcher.head, texts[i : i + 1], images[i : i + 1], layout, source)
    return {caption: jpeg for caption, jpeg in heats.items() if jpeg}


def _draw(head: Any, text: Any, image: Any, layout: Any, source: Any) -> bytes:
    from PIL import Image

    from xretrieve.data.pictures import picture_size
    from xretrieve.explain.attention import attention_of
    from xretrieve.explain.heat import colours, heat_map, whole

    small = thumbnail(source)
    if small is None:
        return b""
    told = attention_of(head, text, image, layout=layout)
    with Image.open(io.BytesIO(small)) as opened:
        sheet = opened.convert("RGBA")
    sheet.alpha_composite(colours(heat_map(told["layout"], whole(told), sheet.size, picture_size(source))))
    out = io.BytesIO()
    sheet.convert("RGB").save(out, "JPEG", quality=72, optimize=True)
    return out.getvalue()
