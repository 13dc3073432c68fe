"""Attention between the words of a text and the regions of a picture, as plain values."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from xretrieve.backbones.places import Layout
from xretrieve.heads.abilities import Attention
from xretrieve.heads.base import l2
from xretrieve.tokens import Prepared

DIGITS = 6


@torch.inference_mode()
def attention_of(
    head: Attention, text: Prepared, image: Prepared, words: Sequence[str] = (), layout: Layout | None = None
) -> dict[str, Any]:
    """What each word looks at, and what each region looks at.

    Args:
        head: :attr:`xretrieve.heads.base.Head.looks` of a head.
        text, image: one prepared row each.
        words: what the real tokens of the text are; they are numbered where that is not known.
        layout: where the regions lie.

    Returns:
        A dict that ``json.dumps`` takes, W words and R regions:

        - ``of``: "words"; of a query set (:func:`xretrieve.explain.sets.set_told`) "sentences", which stand as words.
        - ``words``: W strings; markers and unknown words in angle brackets.
        - ``regions``: R. ``layout``: :meth:`Layout.to_dict`, or None.
        - ``streams``: per stream of the head ``weights`` and ``match`` (below).
        - ``map``: per stream R numbers that sum to 1, one heat for the whole text. ``t2i``: the words' weights, each
            word counted by its match. ``i2t``: the regions' matches.

        In ``t2i`` words look at regions: ``weights`` is W lists of R numbers that sum to 1. In ``i2t`` regions look at
        words: R lists of W numbers that sum to 1. ``match`` is the cosine between what looks and the mixture that it
        looks at: how well each word is found in the picture, how well each region is described by the text.
        Padded regions (between real ones) have zeros.
    """
    text, image = text.trim(), image.trim()
    real_words, real_regions = text.mask[0], image.mask[0]
    w, r = text.local[0][real_words].float(), image.local[0].float()
    streams: dict[str, Any] = {}
    maps: dict[str, list[float]] = {}
    for stream, found in head.attention(text, image).items():
        weights = found[0, 0].float()  # (queries, context)
        if stream == "t2i":
            weights = weights[real_words].masked_fill(~real_regions, 0)  # (W,R)
            match = _cosine(w, weights @ r)
            heat = match.clamp(min=0) @ weights  # (R,)
        else:
            weights = weights[:, real_words].masked_fill(~real_regions[:, None], 0)  # (R,W)
            match = _cosine(r, weights @ w).masked_fill(~real_regions, 0)
            heat = match.clamp(min=0)
        streams[stream] = {"weights": values(weights), "match": values(match)}
        maps[stream] = values(heat / heat.sum().clamp(min=1e-12))
    named = list(words) if len(words) == len(w) else [f"#{i + 1}" for i in range(len(w))]
    return {
        "of": "words",
        "words": named,
        "regions": len(r),
        "layout": layout.to_dict() if layout is not None else None,
        "streams": streams,
        "map": maps,
    }


def found_words(told: dict[str, Any]) -> list[tuple[str, float]]:
    """The words of an explanation without markers, each with its match (0 to 1): how well the picture shows it.

    Heads whose words do not look at regions give none.
    """
    match = told["streams"].get("t2i", {}).get("match")
    if match is None:
        return []
    rows = zip(told["words"], match, strict=True)
    return [(word, min(1.0, max(0.0, m))) for word, m in rows if not word.startswith("<")]


def _cosine(a: Tensor, b: Tensor) -> Tensor:
    return (l2(a) * l2(b)).sum(-1)


def values(x: Tensor) -> list[Any]:
    """(N,) or (N,M) as lists of numbers, rounded."""
    return (
        [[round(v, DIGITS) for v in row] for row in x.tolist()]
        if x.ndim == 2
        else [round(v, DIGITS) for v in x.tolist()]
    )
