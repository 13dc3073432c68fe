"""The similarity nodes of all pairs, forward and backward written out: ``l2(W (l2(c) - q)^2 + b)``.

The one array as wide as D that a pair needs is made, squared and projected in pieces that stay near the caches, and
made again in the backward pass: between the passes only S-wide nodes and narrow weights are kept.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from xretrieve.heads.precise import Affine, apply, bias_gradient, full, lengths, unit, unit_gradient, weight_gradient
from xretrieve.heads.products import linear

PIECE = 4 * 2**20  # bytes of a D-wide piece


def compare(share: Tensor, context: Tensor, query: Tensor, layer: Affine, first: Tensor | None = None) -> Tensor:
    """Nodes of every pair and query token.

    Args:
        share: (g,N,k,M,q) weights over the context that make the attended vector a unit vector.
        context: (g,N,k,D), what is attended to.
        query: (g,M,q,D).
        layer: W (S,D) and b (S,).
        first: (g,N,M,S), nodes to put before the others.

    Returns:
        (g,N,M,q,S), or (g,N,M,1+q,S) with ``first``, in the precision of ``context``.
    """
    g, n, k, m, q = share.shape
    made = _Compare.apply(
        share.to(context.dtype).reshape(g * n, k, m * q), context.flatten(0, 1), query.flatten(1, 2),
        None if first is None else first.flatten(0, 1), layer, layer.weight.full, layer.bias.full, q,
    )  # fmt: skip
    return made.unflatten(0, (g, n))


class _Compare(torch.autograd.Function):
    """share (gN,k,Mq), context (gN,k,D), query (g,Mq,D), first (gN,M,S), W, b -> (gN,M,1+q,S)."""

    @staticmethod
    def forward(
        ctx: Any, share: Tensor, context: Tensor, query: Tensor, first: Tensor | None, layer: Affine, weight: Tensor,
        bias: Tensor, q: int,
    ) -> Tensor:  # fmt: skip
        pairs, dtype = (len(share), share.shape[2] // q), context.dtype
        lead = int(first is not None)
        made = context.new_empty(*pairs, lead + q, len(weight))
        length = torch.empty(*pairs, q, 1, dtype=torch.promote_types(dtype, torch.float32), device=made.device)
        for rows, items, own, minus in _parts(share, query, context, q):
            y = apply(_squares(own, context[rows], minus), layer.weight, layer.bias).unflatten(1, (-1, q))
            length[rows, items] = lengths(y)
            unit(y, length[rows, items], out=made[rows, items, lead:])
        if first is not None:
            made[:, :, 0] = first
        ctx.save_for_backward(share, context, query, made, length)
        ctx.layer = layer
        return made

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        share, context, query, made, length = ctx.saved_tensors
        weight, dtype, q = ctx.layer.weight.to(context.dtype), context.dtype, length.shape[2]
        lead, grad = made.shape[2] - q, grad.contiguous()
        twice = 2 * weight.T.contiguous()  # (D,S); a square's gradient has a factor 2
        to_share = torch.empty_like(share) if ctx.needs_input_grad[0] else None
        to_context = torch.empty_like(context)
        to_query = torch.zeros(query.shape, dtype=torch.promote_types(dtype, torch.float32), device=query.device)
        to_weight, to_bias = torch.zeros_like(ctx.layer.weight.full), torch.zeros_like(ctx.layer.bias.full)
        group = len(share) // len(query)
        for rows, minus in _pieces(share, query, context):
            up = unit_gradient(grad[rows, :, lead:], made[rows, :, lead:], length[rows]).flatten(1, 2)  # (c,Mq,S)
            difference = torch.baddbmm(minus, share[rows].mT, context[rows], beta=-1)  # (c,Mq,D)
            to_weight += weight_gradient(up, difference.square())
            to_bias += bias_gradient(up)
            down = linear(up, twice).mul_(difference)  # (c,Mq,D)
            if to_share is not None:
                to_share[rows] = torch.bmm(context[rows], down.mT)
            torch.bmm(share[rows], down, out=to_context[rows])
            if len(query) == 1:
                to_query -= down.sum(0)
            else:
                owner = torch.arange(rows.start, rows.stop, device=query.device) // group
                to_query.index_add_(0, owner, full(down), alpha=-1)
        to_first = grad[:, :, 0] if lead else None
        return to_share, to_context, to_query.to(dtype), to_first, None, to_weight, to_bias, None


def _squares(share: Tensor, context: Tensor, query: Tensor) -> Tensor:
    """``(share' context - query)^2``. (c,k,Q), (c,k,D), (c,Q,D) -> (c,Q,D)."""
    if share.dtype in (torch.float32, torch.float64):  # one pass behind a product that need not read what it writes
        attended = torch.bmm(share.mT, context)
        return torch.ops.aten.mse_loss.out(attended, query, 0, out=attended)  # 0: nothing is added up
    return torch.baddbmm(query, share.mT, context, beta=-1).square_()  # rounded once


def _parts(share: Tensor, query: Tensor, context: Tensor, q: int) -> Iterator[tuple[slice, slice, Tensor, Tensor]]:
    """:func:`_pieces` cut between query items too: rows of gN, of M, their share (c,k,mq), queries (c,mq,D)."""
    one = q * query.shape[2] * query.element_size()
    wide = max(1, PIECE // max(1, one))
    for rows, minus in _pieces(share, query, context):
        for start in range(0, share.shape[2] // q, wide):
            tokens = slice(start * q, (start + wide) * q)
            yield rows, slice(start, start + wide), share[rows, :, tokens], minus[:, tokens]


def _pieces(share: Tensor, query: Tensor, context: Tensor) -> Iterator[tuple[slice, Tensor]]:
    """Rows of gN, and the queries that are subtracted from them (c,Mq,D)."""
    total, group = len(share), len(share) // len(query)
    width = query[0].numel() * query.element_size()
    step = max(1, PIECE // max(1, width))
    for start in range(0, total, step):
        rows = slice(start, min(total, start + step))
        if len(query) == 1:
            minus = query.expand(rows.stop - rows.start, -1, -1)
        else:
            minus = query[torch.arange(rows.start, rows.stop, device=query.device) // group]
        yield rows, minus
