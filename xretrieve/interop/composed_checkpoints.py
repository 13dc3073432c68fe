"""Published Combiner checkpoints (CLIP4Cir) as run folders."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from xretrieve.backbones import create_backbone
from xretrieve.errors import XRetrieveError
from xretrieve.heads.composed import ComposedHead
from xretrieve.interop.composed_parts import build_composed_head, composed_sizes, load_network
from xretrieve.matcher import Matcher
from xretrieve.utils.plain_values import without_wrapper

KEY = "Combiner"  # CLIP4Cir saves {"epoch": number, class name: state dict}


def combiner_state(stored: Mapping[str, Any], where: str) -> dict[str, Tensor]:
    """The state dict of a Combiner checkpoint, or of a file that is one; anything else is an error."""
    given = stored.get(KEY, stored if all(isinstance(v, Tensor) for v in stored.values()) else None)
    if not isinstance(given, Mapping) or not given or not all(isinstance(v, Tensor) for v in given.values()):
        raise XRetrieveError(f"{where}: expected a dict with {KEY!r}, parameters by name (found {sorted(stored)})")
    return {without_wrapper(key): value.float() for key, value in given.items()}


def combiner_matcher(
    state: Mapping[str, Tensor], where: str, name: str, options: Mapping[str, Any], backbone: str | None,
    weights: str | Path | None, source: str,
) -> Matcher:  # fmt: skip
    """A matcher of a Combiner's state over the two towers whose features it composes.

    Args:
        state: parameters under their published names.
        where, name, source: for messages; what the matcher is called; where it will lie.
        options: of the head (``dropout``, ``scale``).
        backbone: the two-tower model, for example ``open_clip:RN50x4/openai``; None: raw features are given.
        weights: a local file with the weights of both towers.
    """
    widths = composed_sizes("combiner", state, where)
    head = build_composed_head("combiner", widths, **options)
    assert isinstance(head, ComposedHead)
    load_network(head, state, where)
    width = widths["feature_dim"]
    if backbone is None:
        if weights is not None:
            raise XRetrieveError("weights are those of a backbone; name it too (backbone=, --backbone)")
        sides = [create_backbone("features", modality=side, dim=width) for side in ("image", "text")]
    else:
        sides = [create_backbone(backbone, modality=s, weights=weights, frozen=True) for s in ("image", "text")]
    for side in sides:
        if side.pooled_dim != width:
            raise XRetrieveError(
                f"{where} composes features of {width} numbers, but the {side.modality}s of {backbone} have "
                f"{side.pooled_dim}; name the model it was trained on (640: RN50x4, 512: ViT-B, 768: ViT-L, 1024: RN50)"
            )
    return Matcher(sides[0], sides[1], head.eval(), name=name, source=source)
