"""HMRN's reasoning level: a pair of an image and the sentences so far becomes a small graph, and the graph a logit.

One node compares the global vectors, one per sentence compares it with what it sees in the image. Three steps of
attention among the nodes, then the global node is read. Source: HMRN (Neural Networks 2024, arXiv 2306.14460); nodes
and steps follow SGRAF (arXiv 2101.01368).

Arrays over the pairs of a block are (g,N,M,...): groups, images, sets (see :mod:`xretrieve.heads.attention`).
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from xretrieve.heads.attention import attend
from xretrieve.heads.base import EPS, l2
from xretrieve.heads.products import linear, short_softmax
from xretrieve.heads.scoring import Items
from xretrieve.heads.sgr import GraphStep, merge

Trace = dict[str, Tensor] | None


class Affine(NamedTuple):
    """Weight and bias of a Linear layer in the precision of the matrix products."""

    weight: Tensor
    bias: Tensor


class Weights(NamedTuple):
    """What depends on weights only, made once per call: W_loc, W_glo, and of every step the merged query and key
    (:func:`xretrieve.heads.sgr.merge`) and W_g."""

    loc: Affine
    glo: Affine
    steps: list[tuple[Affine, Affine]]


def fold(loc: nn.Linear, glo: nn.Linear, steps: nn.ModuleList) -> Weights:
    """The weights, merged and cast to the precision that autocast asks for."""
    device = loc.weight.device.type
    dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else loc.weight.dtype

    def cast(weight: Tensor, bias: Tensor) -> Affine:
        return Affine(weight.to(dtype), bias.to(dtype))

    made = []
    for step in steps:
        assert isinstance(step, GraphStep)
        merged = merge(step.graph_query_w, step.graph_key_w)
        made.append((cast(*merged), cast(step.sim_graph_w.weight, step.sim_graph_w.bias)))
    return Weights(cast(loc.weight, loc.bias), cast(glo.weight, glo.bias), made)


def region_scales(dots: Tensor, temperature: float) -> Tensor:
    """``temperature`` over the length of every region's dots with the sentences so far, for every round at once.

    dots (g,N,R,M,T), 0 for absent sentences -> the same shape, axis T counting rounds.
    """
    # clamped before the root, whose gradient at 0 is infinite
    return temperature / (dots.square().cumsum(-1).clamp(min=1e-24).sqrt() + EPS)


def reason(
    dots: Tensor, scales: Tensor, turn: int, images: Items, sentences: Tensor, mask: Tensor | None, prefix: Tensor,
    weights: Weights, trace: Trace = None,
) -> Tensor:  # fmt: skip
    """The global node after the last step, (g,N,M,S).

    Args:
        dots: (g,N,R,M,T) dots of regions and sentences after the LeakyReLU, float32.
        scales: of :func:`region_scales`.
        turn: how many sentences are read, r.
        images: V (g,N,R,D) and v (g,N,D).
        sentences: Q (g,M,T,D).
        mask: (g,M,T), None when no sentence is absent.
        prefix: u_r (g,M,D).
        weights: of :func:`fold`.
        trace: receives intermediate arrays by name, all rows of the last step included.
    """
    x = nodes(dots, scales, turn, images, sentences, prefix, weights, trace)  # (g,N,M,1+r,S)
    if trace is not None:
        trace["nodes"] = x
    shape, n = x.shape[:3], turn + 1
    real = None
    if mask is not None and not bool(mask[..., :turn].all()):
        real = nn.functional.pad(mask[..., :turn], (1, 0), value=True)  # (g,M,1+r)
        real = real[:, None, :, None].expand(*shape, 1, n).reshape(-1, 1, n)  # (P,1,n)
    x = x.reshape(-1, n, x.shape[-1])  # (P,n,S)
    for k, step in enumerate(weights.steps, start=1):
        x, edges = graph_step(x, real, *step, first_row=k == len(weights.steps) and trace is None)
        if trace is not None:
            trace |= {f"step{k}": x.view(*shape, n, -1), f"edges{k}": edges.view(*shape, n, n)}
    return x[:, 0].view(*shape, -1)


def nodes(
    dots: Tensor, scales: Tensor, turn: int, images: Items, sentences: Tensor, prefix: Tensor, weights: Weights,
    trace: Trace,
) -> Tensor:  # fmt: skip
    """X of a round, the global node first: unit vectors (g,N,M,1+r,S)."""
    # Softmax over the regions without its denominator: the attended vector is made a unit vector in any case. The
    # exponent lies within +-temperature. Absent regions are zero vectors and add nothing, so no mask is needed.
    weight = (dots[..., :turn] * scales[..., turn - 1 : turn]).exp()  # (g,N,R,M,r)
    context = attend(weight.to(images.local.dtype), images.local)  # (g,N,M,r,D)
    length = torch.linalg.vector_norm(context, dim=-1, keepdim=True).float()  # (g,N,M,r,1)
    inverse = (1 / (length + 1e-14)).to(context.dtype)  # the weights may be as small as exp(-temperature)
    if trace is not None:
        trace["context"] = context * inverse
    asked = sentences[:, None, :, :turn]  # (g,1,M,r,D)
    local = linear(_square(torch.addcmul(-asked, context, inverse)), *weights.loc)  # (g,N,M,r,S)
    apart = images.pooled[:, :, None] - prefix[:, None]  # (g,N,M,D)
    world = linear(_square(apart.to(local.dtype)), *weights.glo)  # (g,N,M,S)
    return _unit(torch.cat([world[..., None, :], local], -2))


def graph_step(
    x: Tensor, mask: Tensor | None, merged: Affine, mix: Affine, first_row: bool
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """``ReLU(E X Wg' + bg)`` and ``E = softmax((X Wq' + bq)(X Wk' + bk)')``, of all rows or of the first.

    The weights of a row sum to 1, so ``X Wg' + bg`` may come first, bias included; for one row it comes last.
    x (P,n,S), mask (P,1,n) -> (P,r,S), (P,r,n).
    """
    asking = linear(x[:, :1].contiguous() if first_row else x, *merged)  # (P,r,S)
    weights = short_softmax(torch.bmm(asking, x.mT).float(), mask).to(x.dtype)  # (P,r,n)
    if first_row:
        return linear(torch.bmm(weights, x), *mix).relu_(), weights
    return torch.bmm(weights, linear(x, *mix)).relu_(), weights


def _square(x: Tensor) -> Tensor:
    return x.square() if x.requires_grad else x.square_()


def _unit(x: Tensor) -> Tensor:
    if x.requires_grad:
        return l2(x.float()).to(x.dtype)
    length = torch.linalg.vector_norm(x, dim=-1, keepdim=True).float()
    return x.mul_((1 / (length + EPS)).to(x.dtype))
