"""A published state of the Combiner, TIRG or DQU-CIR as one of this project's heads over a shared space."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from xretrieve.errors import XRetrieveError
from xretrieve.heads import create_head
from xretrieve.heads.composed import ComposedHead

# what of a state says how wide things are: option -> (parameter, axis); the first one is the width of the features
SIZES = {
    "combiner": {"feature_dim": ("output_layer.weight", 0), "projection_dim": ("text_projection_layer.weight", 0),
                 "hidden_dim": ("combiner_layer.weight", 0)},
    "tirg": {"embed_dim": ("gated_feature_composer.3.weight", 0)},
    "dqu": {"dim": ("combiner_fc.0.weight", 0)},
}  # fmt: skip


def composed_sizes(family: str, state: Mapping[str, Tensor], where: str) -> dict[str, int]:
    """The widths that a state implies; an absent key or a scalar in its place is an error that names it."""
    found = {}
    for name, (key, axis) in SIZES[family].items():
        if key not in state:
            raise XRetrieveError(f"{where}: no {key!r}; this is not a whole {family} model{_looks_like(family, state)}")
        if state[key].ndim != 2:
            raise XRetrieveError(f"{where}: {key} has shape {tuple(state[key].shape)}, expected two axes")
        found[name] = state[key].shape[axis]
    return found


def build_composed_head(family: str, widths: Mapping[str, int], **options: Any) -> ComposedHead:
    """The family's head for these widths, over two backbones that share a space; further options as given."""
    width = widths[next(iter(SIZES[family]))]
    if family == "combiner":
        options |= {"projection": widths["projection_dim"], "hidden": widths["hidden_dim"]}
    if family == "tirg":
        options.pop("dropout", None)  # it has none
    head = create_head(family, image_dim=width, text_dim=width, **options)
    assert isinstance(head, ComposedHead)
    return head


def load_network(head: ComposedHead, state: Mapping[str, Tensor], where: str) -> None:
    """Fill the published part; the first missing, unexpected or wrong-shaped key is one error that names it."""
    own = head.network.state_dict(keep_vars=True)  # type: ignore[union-attr]
    hint = _looks_like(head.name, state)
    for key, value in own.items():
        if key not in state:
            raise XRetrieveError(f"{where}: no {key!r}; this is not a whole {head.name} model{hint}")
        if state[key].shape != value.shape:
            raise XRetrieveError(
                f"{where}: {key} has shape {tuple(state[key].shape)}, the model needs {tuple(value.shape)}{hint}"
            )
        if state[key].is_floating_point() and not bool(torch.isfinite(state[key]).all()):
            raise XRetrieveError(f"{where}: {key} holds NaN or infinite values")
    for key in state:
        if key not in own:
            raise XRetrieveError(f"{where}: a {head.name} model has no {key!r}{hint}")
    with torch.no_grad():
        for key, value in own.items():
            value.copy_(state[key])


def _looks_like(family: str, state: Mapping[str, Tensor]) -> str:
    marks = {"combiner": "combiner_layer.", "tirg": "res_info_composer.", "dqu": "scaler_fc."}
    seen = [name for name, mark in marks.items() if any(key.startswith(mark) for key in state)]
    return f" (it looks like {seen[0]})" if seen and family not in seen else ""
