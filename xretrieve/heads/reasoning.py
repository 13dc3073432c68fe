"""HMRN's reasoning level: a pair of an image and the sentences so far becomes a small graph, and the graph a vector.

One node compares the global vectors, one per sentence compares it with what it sees in the image. Three steps of
attention among the nodes, then the global node is read. Source: HMRN (Neural Networks 2024, arXiv 2306.14460); nodes
and steps are those of SGRAF (arXiv 2101.01368), so both heads share them.

Arrays over the pairs of a block are (g,N,M,...): groups, images, sets (see :mod:`xretrieve.heads.attention`).
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from xretrieve.heads import graph
from xretrieve.heads.attention import attend, attended_norm
from xretrieve.heads.base import EPS, l2
from xretrieve.heads.compare import compare
from xretrieve.heads.graph import StepWeights
from xretrieve.heads.precise import Affine, apply, lengths, unit
from xretrieve.heads.scoring import Items
from xretrieve.heads.sgr import GraphStep

Trace = dict[str, Tensor] | None


class Weights(NamedTuple):
    """What depends on weights only, made once per call: W_loc, W_glo, and those of every step, query and key merged."""

    loc: Affine
    glo: Affine
    steps: list[StepWeights]


def fold(loc: nn.Linear, glo: nn.Linear, steps: nn.ModuleList) -> Weights:
    """The weights of W_loc, W_glo and some :class:`~xretrieve.heads.sgr.GraphStep`."""
    return Weights(Affine(loc), Affine(glo), [one.weights() for one in steps if isinstance(one, GraphStep)])


def region_scales(dots: Tensor, temperature: float) -> Tensor:
    """``temperature`` over the length of every region's dots with the sentences so far, for every round at once.

    dots (g,N,R,M,T), 0 for absent sentences -> the same shape, axis T counting rounds.
    """
    # clamped before the root, whose gradient at 0 is infinite
    return temperature / (dots.square().cumsum(-1).clamp(min=1e-24).sqrt() + EPS)


def reason(
    dots: Tensor, scales: Tensor, turn: int, texts: Items, images: Items, gram: Tensor, weights: Weights,
    trace: Trace = None,
) -> Tensor:  # fmt: skip
    """The global node after the last step, (g,N,M,S).

    Args:
        dots: (g,N,R,M,T) dots of regions and sentences after the LeakyReLU, float32.
        scales: of :func:`region_scales`.
        turn: how many sentences are read, r.
        texts: Q (g,M,T,D), its mask, and u_r (g,M,D) as ``pooled``.
        images: V (g,N,R,D) and v (g,N,D).
        gram: inner products of an image's regions (g,N,R,R).
        weights: of :func:`fold`.
        trace: receives ``context``, ``nodes`` and ``step1`` ... by name, all rows of the last step included.
    """
    # Softmax over the regions without its denominator: the attended vector is made a unit vector in any case. The
    # exponent lies within +-temperature. Absent regions are zero vectors and add nothing, so no mask is needed.
    weight = (dots[..., :turn] * scales[..., turn - 1 : turn]).exp()  # (g,N,R,M,r)
    share = weight / attended_norm(weight, gram)[:, :, None]
    world = global_node(images.pooled, texts.pooled, weights.glo, images.local.dtype)  # (g,N,M,S)
    x = compare(share, images.local, texts.local[:, :, :turn].contiguous(), weights.loc, world)  # (g,N,M,1+r,S)
    if trace is not None:
        trace |= {"context": l2(attend(weight, images.local.float())), "nodes": x}
    mask = None
    if texts.mask is not None and not bool(texts.mask[..., :turn].all()):
        mask = nn.functional.pad(texts.mask[..., :turn], (1, 0), value=True)[:, None]  # (g,1,M,1+r)
    if trace is None:
        return graph.reason(x, mask, weights.steps, first_row=True)[..., 0, :]
    for k, own in enumerate(weights.steps, start=1):
        x = trace[f"step{k}"] = graph.step(x, mask, own, first_row=False)  # (g,N,M,1+r,S)
    return x[..., 0, :]


def global_node(v: Tensor, u: Tensor, layer: Affine, dtype: torch.dtype) -> Tensor:
    """``l2(W (v - u)^2 + b)``. v (g,N,D), u (g,M,D) -> (g,N,M,S); products and result in ``dtype``."""
    apart = v[:, :, None] - u[:, None]  # (g,N,M,D)
    if torch.is_grad_enabled():
        y = nn.functional.linear(apart.square(), layer.weight.full, layer.bias.full)
        return l2(y.float()).to(dtype)
    y = apply(apart.to(dtype).square_(), layer.weight, layer.bias)
    return unit(y, lengths(y), out=y)


def read_weights(x: Tensor, mask: Tensor | None, weights: StepWeights) -> Tensor:
    """What the global node reads in a step: weights over the nodes x (g,N,M,1+T,S), mask (g,1,M,1+T) -> (g,N,M,1+T)."""
    ask = nn.functional.linear(x[..., 0, :], weights.ask.full, weights.ask_bias.full)  # (g,N,M,S)
    logits = torch.matmul(x, ask[..., None]).squeeze(-1)
    return (logits if mask is None else logits.masked_fill(~mask, -torch.inf)).softmax(-1)
