"""What made a picture answer a query set: each sentence's region, and the terms of the score, as plain values."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from xretrieve.backbones.places import Layout
from xretrieve.explain.attention import values
from xretrieve.heads.abilities import SetStage
from xretrieve.tokens import Prepared


@torch.inference_mode()
def set_told(
    head: SetStage, said: Prepared, image: Prepared, sentences: Sequence[str], layout: Layout | None = None
) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """What each sentence of a set found in a picture.

    Args:
        head: scores the set.
        said: one set of T sentences; image: one picture of R regions.
        sentences: the T texts.
        layout: where the regions lie.

    Returns:
        For each sentence, to go with its own score: ``region``, the place (from 0) of the region it looks at most;
        ``found``, what it finds where it looks, a mean of cosines; of HMRN ``reads``, how much the first step of the
        reasoning reads from it; of Drill-down ``slot``, the slot it wrote, and ``counts``, that slot's share of the
        score as this sentence left it (0 when a later one has rewritten it).

        For the whole set: ``attention`` as of :func:`xretrieve.explain.attention_of`, sentences in place of words; of
        HMRN ``levels``: ``local``, ``reason`` and ``global``, each with its ``value`` and its ``weight``. The sum of
        their products is the score. ``levels["reason"]["reads_global"]`` is what the reasoning reads from the two
        global vectors: with the sentences' ``reads`` it makes 1.
    """
    image = image.trim()
    made = head.explain(said, image)
    found = {name: value[0] if value.shape[0] == 1 else value for name, value in made.items()}
    weights = found["regions"][0].float().masked_fill(~image.mask[0], 0)  # (T,R)
    match = found["sentences"][0].float()  # (T,)
    trust = match.clamp(min=0)
    heat = (trust if bool(trust.any()) else torch.ones_like(trust)) @ weights  # (R,)
    each: list[dict[str, Any]] = [
        {"found": value, "region": place}
        for value, place in zip(values(match), weights.argmax(1).tolist(), strict=True)
    ]
    whole: dict[str, Any] = {
        "attention": {
            "of": "sentences",
            "words": list(sentences),
            "regions": weights.shape[1],
            "layout": layout.to_dict() if layout is not None else None,
            "streams": {"t2i": {"weights": values(weights), "match": values(match)}},
            "map": {"t2i": values(heat / heat.sum().clamp(min=1e-12))},
        }
    }
    if "local" in found:
        whole["levels"] = _levels(found, each)
    if "slots" in found:
        for part, slot, counts in zip(each, found["slots"].tolist(), values(found["mean"]), strict=True):
            part |= {"slot": slot, "counts": counts}
    return each, whole


def _levels(found: dict[str, Tensor], each: list[dict[str, Any]]) -> dict[str, Any]:
    """HMRN's three terms; what the reasoning reads from each sentence goes to ``each``."""
    names = [name for name in ("local", "reason", "global") if name in found]
    weights = dict(zip(("local", "reason", "global"), values(found["weights"]), strict=True))
    levels = {name: {"value": values(found[name])[0], "weight": weights[name]} for name in names}
    if "nodes" in found:
        reads = values(found["nodes"][0])  # the global node, then the sentences
        levels["reason"]["reads_global"] = reads[0]
        for part, share in zip(each, reads[1:], strict=True):
            part["reads"] = share
    return levels
