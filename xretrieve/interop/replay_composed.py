"""`replay` for heads over composed queries: the Combiner of CLIP4Cir, TIRG and the gate of DQU-CIR."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from xretrieve.errors import XRetrieveError
from xretrieve.heads.composed import ComposedHead, cosines, with_raw
from xretrieve.interop.composed_parts import build_composed_head, composed_sizes, load_network
from xretrieve.interop.parts import read_array, read_options
from xretrieve.tokens import Prepared
from xretrieve.training.losses import SoftTriplet, match_loss

DEFAULTS: dict[str, dict[str, Any]] = {
    "combiner": {"logit_scale": 100.0},
    "tirg": {"bn_eps": 1e-5, "bn_momentum": 0.1},
    "dqu": {},
}
_SIZES = ("feature_dim", "projection_dim", "hidden_dim", "embed_dim", "dim")
_OTHER = ("model", "dropout", "gradients", *_SIZES)


def replay_composed(
    family: str, state: Mapping[str, Any], inputs: Mapping[str, Any], options: Mapping[str, Any]
) -> dict[str, np.ndarray]:
    """Recompute a model's arrays in float32 on the CPU, without dropout.

    Args:
        family: ``combiner``, ``tirg`` or ``dqu``.
        state: parameters and buffers under their published names.
        inputs: ``image``, ``text`` and ``target`` (B,D), raw features; optionally ``gallery`` (G,D).
        options: sizes, which must agree with the state; ``logit_scale`` of the Combiner; ``gradients=False`` leaves
            the gradients out.

    Returns:
        ``query``, ``target`` where the model scales it, ``logits``, ``loss`` and the arrays between, in evaluation
        mode; ``grad/NAME`` of the loss for each parameter and ``grad/in/NAME`` for image, text and target; of TIRG with
        two or more queries also ``train/...``, one pass in training mode.
    """
    chosen = read_options(family, options, DEFAULTS[family], _OTHER, ["bn_eps", "bn_momentum"])
    weights = {key: read_array(value, f"state {key}") for key, value in state.items()}
    widths = composed_sizes(family, weights, "state")
    for name, width in widths.items():
        if chosen.get(name, width) != width:
            raise XRetrieveError(f"option {name} is {chosen[name]}, but the state says {width}")
    given = _inputs(inputs, next(iter(widths.values())))
    scale = {"scale": chosen["logit_scale"]} if family == "combiner" else {}
    head = build_composed_head(family, widths, dropout=0.0, **scale)
    load_network(head, weights, "state")
    found = _evaluate(head.eval(), given, chosen.get("gradients", True))
    if family == "tirg" and len(given["image"]) > 1:
        found |= _training_pass(head, given)
    return {key: value.detach().numpy() for key, value in found.items()}


def _inputs(inputs: Mapping[str, Any], width: int) -> dict[str, Tensor]:
    found = {}
    for key in ("image", "text", "target"):
        if key not in inputs:
            raise XRetrieveError(f"inputs: no {key!r}; image, text and target (B,{width}) are needed")
        found[key] = read_array(inputs[key], f"inputs {key}").float()
    if "gallery" in inputs:
        found["gallery"] = read_array(inputs["gallery"], "inputs gallery").float()
    for key, value in found.items():
        rows = len(value) if key == "gallery" else len(found["image"])
        if value.ndim != 2 or value.shape != (rows, width) or not rows:
            raise XRetrieveError(f"inputs: {key} has shape {tuple(value.shape)}, expected ({rows or 'B'},{width})")
    return found


def _evaluate(head: ComposedHead, given: dict[str, Tensor], gradients: bool) -> dict[str, Tensor]:
    leaves = {key: given[key].clone().requires_grad_() for key in ("image", "text", "target")}
    image, text, target = (with_raw(leaf) for leaf in leaves.values())
    made = head.compose(image, text)
    logits = head.logits(made.query, target.pooled)
    loss = match_loss(logits)
    found = {**made.trace, "query": made.query, "logits": logits, "loss": loss}
    if head.name == "combiner":
        found |= _sums(image, text)
        if "gallery" in given:
            found["gallery_scores"] = cosines(made.query, with_raw(given["gallery"]).pooled)
    if head.name == "dqu":
        found["target"] = target.pooled
    if head.name == "tirg":
        length = head.match_scale().sqrt() * _sign(head)
        query, goal = length * made.query, length * target.pooled
        points = torch.cat([query, goal])
        found |= {"query": query, "target": goal}
        found["squared_distances"] = (points[:, None] - points).square().sum(-1)
        found["soft_triplet_all"] = SoftTriplet().of(query, goal)[0]
    if gradients:
        loss.backward()
        assert isinstance(head.network, nn.Module)
        own = dict(head.network.named_parameters())
        found |= {f"grad/{key}": torch.zeros_like(p) if p.grad is None else p.grad for key, p in own.items()}
        found |= {f"grad/in/{key}": leaf.grad for key, leaf in leaves.items() if leaf.grad is not None}
    return found


def _sign(head: ComposedHead) -> Tensor:
    """TIRG's c may be negative; logits know its square only."""
    return head.network.normalization_layer.norm_s.detach().sign()  # type: ignore[union-attr, operator]


def _sums(image: Prepared, text: Prepared) -> dict[str, Tensor]:
    from xretrieve.heads.sums import Sum

    width = image.pooled.shape[1]
    return {f"sum_{kind}": Sum(width, width, raw=kind == "raw").compose(image, text).query for kind in ("raw", "unit")}


def _training_pass(head: ComposedHead, given: dict[str, Tensor]) -> dict[str, Tensor]:
    """Composed vectors with the batch's statistics, and the running statistics after that one call."""
    head.train()
    with torch.no_grad():
        made = head.compose(with_raw(given["image"]), with_raw(given["text"]))
    after = {f"train/state_after/{key}": value for key, value in head.network.named_buffers()}  # type: ignore[union-attr, operator]
    return {"train/composed": made.trace["composed"], **after}
