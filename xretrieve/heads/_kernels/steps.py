"""Reasoning steps without gradients: :func:`xretrieve.heads.graph.step`, a few pairs at a time through all steps.

A step multiplies S-wide nodes by S x S matrices, and in between passes over them. Measured at S = 256, a pass takes a
twenty-fifth of a product while the nodes lie in the caches of the core, and a ninth where they come from the memory. So
nodes of as many pairs as fit go through every step before the next ones are looked at, and nothing between the steps is
kept.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from xretrieve.heads.precise import apply, full, lengths, unit
from xretrieve.heads.products import short_softmax

if TYPE_CHECKING:
    from xretrieve.heads.graph import StepWeights

PIECE = 2 * 2**20  # bytes of the nodes that go through the steps together; four arrays of this size are in use


def steps(x: Tensor, mask: Tensor | None, weights: Sequence[StepWeights], first_row: bool) -> Tensor:
    """Nodes after all steps.

    Args:
        x: (g,N,M,n,S).
        mask: (g,1,M,n), None when every node is real.
        weights: of each step.
        first_row: only the first node is read after the last step.

    Returns:
        (g,N,M,n,S), or (g,N,M,1,S) with ``first_row``.
    """
    pairs, (n, s) = x.shape[:3], x.shape[3:]
    nodes = x.flatten(0, 2)  # (P,n,S)
    real = None if mask is None else mask.expand(*pairs, n).flatten(0, 2)[:, None].to(torch.float32)  # (P,1,n)
    made = x.new_empty(len(nodes), 1 if first_row else n, s)
    pieces = max(1, -(-nodes.numel() * nodes.element_size() // PIECE))
    size = max(1, -(-len(nodes) // pieces))
    for start in range(0, len(nodes), size):
        some, seen = nodes[start : start + size], None if real is None else real[start : start + size]
        for k, own in enumerate(weights):
            some = _step(some, seen, own, first_row and k == len(weights) - 1)
        made[start : start + size] = some
    return made.unflatten(0, pairs)


def _step(x: Tensor, real: Tensor | None, w: StepWeights, first_row: bool) -> Tensor:
    """(P,n,S) -> (P,n or 1,S); the letters are those of :mod:`xretrieve.heads.graph`."""
    asking = x[:, :1].contiguous() if first_row else x  # (P,r,S)
    logits = torch.bmm(apply(asking, w.ask, w.ask_bias), x.mT)  # (P,r,n)
    y = torch.bmm(_softmax(logits, real), x)  # (P,r,S)
    if w.gate is not None:
        y = _join(y, asking, _contexts(x, real, w), w)
    return apply(y, w.mix, w.mix_bias, relu=True)


def _contexts(x: Tensor, real: Tensor | None, w: StepWeights) -> Tensor:
    """Z (P,M,S)."""
    if w.share is None:
        share = x.new_ones(len(x), 1, x.shape[1]) if real is None else real.to(x.dtype)
        share = share / share.sum(-1, keepdim=True)
    else:
        weight, bias = w.share.to(x.dtype), w.share_bias.to(x.dtype)
        logits = torch.baddbmm(bias[:, None], weight.expand(len(x), -1, -1), x.mT)  # (P,M,n)
        share = _softmax(logits, real)
    mixed = torch.bmm(share, x)
    return unit(mixed, lengths(mixed), out=mixed)


def _join(y: Tensor, asking: Tensor, z: Tensor, w: StepWeights) -> Tensor:
    """J (P,r,S), in the place of Y."""
    from_z = apply(z, w.gate_context)  # (P,M,S or 1)
    gate = apply(y, w.gate, w.gate_bias)  # (P,r,S or 1)
    if w.key is None:
        gate, c = gate.add_(from_z), z
    else:
        shift = torch.matmul(z, w.key_bias.to(z.dtype))[:, None]  # (P,1,M)
        over = _softmax(torch.baddbmm(shift, asking, apply(z, w.key).mT))  # (P,r,M)
        gate, c = gate.baddbmm_(over, from_z), torch.bmm(over, z)
    return torch.lerp(y, c.expand_as(y), gate.sigmoid_().expand_as(y), out=y)


def _softmax(logits: Tensor, real: Tensor | None = None) -> Tensor:
    """Over the last axis in float32, in the precision of the products afterwards."""
    return short_softmax(full(logits), real).to(logits.dtype)
