"""Cross-attention between regions and words: SCAN's (arXiv 1803.08024), as SGRAF (arXiv 2101.01368) also uses it.

One definition serves both streams. The *context* is what is looked at, the *query* is what looks: in the t2i stream
words look at regions, in the i2t stream regions look at words. Everything is batched over all pairs of a block:

    context (g,N,k,D), query (g,M,q,D)  ->  every array over pairs is (g,N,...,M,...)

``g`` counts independent groups: 1 when every item meets every item, Q when each query meets its own candidates.
Padded tokens must be exact zeros (the heads see to that): a zero has affinity 0 and enters no norm.
"""

from __future__ import annotations

import torch
from torch import Tensor

from xretrieve.errors import unknown
from xretrieve.heads.base import EPS

FEATURE_NORMS = ("clipped_l2norm", "l2norm", "clipped", "no_norm", "softmax")
# not -inf: an item without a single real token gets even weights over its zeros instead of NaN
LOW = torch.finfo(torch.float32).min


def affinities(context: Tensor, query: Tensor) -> Tensor:
    """Cosines of unit vectors, one matrix product for all pairs. (g,N,k,D), (g,M,q,D) -> (g,N,k,M,q) float32."""
    (g, n, k, _), (_, m, q, _) = context.shape, query.shape
    flat = torch.bmm(context.flatten(1, 2), query.flatten(1, 2).mT)  # (g, Nk, Mq)
    return flat.float().view(g, n, k, m, q)


def swap_roles(cosines: Tensor) -> Tensor:
    """The same cosines with context and query exchanged, (g,N,k,M,q) -> (g,M,q,N,k): the other stream costs nothing."""
    return cosines.permute(0, 3, 4, 1, 2)


def attention_weights(
    cosines: Tensor,
    temperature: float,
    context_mask: Tensor | None = None,
    query_mask: Tensor | None = None,
    norm: str = "clipped_l2norm",
    slope: float = 0.1,
) -> Tensor:
    """Weights over the context, (g,N,k,M,q) float32; they sum to 1 over ``k`` for every query.

    Args:
        cosines: (g,N,k,M,q) of :func:`affinities`.
        temperature: lambda, the factor before the softmax over the context.
        context_mask: (g,N,k), None when every context token is real.
        query_mask: (g,M,q), None when every query token is real (read by ``norm="softmax"`` only).
        norm: LeakyReLU and l2 over the queries (``clipped_l2norm``), only one of them (``clipped``, ``l2norm``),
            neither (``no_norm``), or a softmax over the queries instead (``softmax``).
        slope: of the LeakyReLU.
    """
    if norm not in FEATURE_NORMS:
        raise unknown("feature_norm", norm, FEATURE_NORMS)
    a = cosines
    if norm.startswith("clipped"):
        a = torch.nn.functional.leaky_relu(a, slope)
    if norm.endswith("l2norm"):
        # each context token is normalised over the queries; clamped before the root, whose gradient at 0 is infinite
        a = a * (temperature / (a.square().sum(-1, keepdim=True).clamp(min=1e-24).sqrt() + EPS))
    elif norm == "softmax":
        if query_mask is not None:
            a = a.masked_fill(~query_mask[:, None, None], LOW)
        a = a.softmax(-1) * temperature
    else:
        a = a * temperature
    if context_mask is not None:
        a = a.masked_fill(~context_mask[..., None, None], LOW)
    return a.softmax(2)


def gram_matrix(local: Tensor) -> Tensor:
    """Inner products of an item's own tokens, float32 whatever the autocast. (N,L,D) -> (N,L,L)."""
    with torch.autocast(local.device.type, enabled=False):
        return torch.bmm(local.float(), local.float().mT)


def attended_norm(weights: Tensor, gram: Tensor) -> Tensor:
    """Length of the attended vector without forming it: ``||sum_j P_j x_j||^2 = P' G P``.

    weights (g,N,k,M,q), gram (g,N,k,k) -> (g,N,M,q) float32.
    """
    g, n, k, m, q = weights.shape
    with torch.autocast(weights.device.type, enabled=False):
        p = weights.reshape(g * n, k, m * q)
        squared = (p * torch.bmm(gram.flatten(0, 1), p)).sum(1)  # (gN, Mq)
    return squared.clamp(min=1e-24).sqrt().view(g, n, m, q)


def attend(weights: Tensor, context: Tensor) -> Tensor:
    """Attended vectors, not normalised, as precise as the weights. (g,N,k,M,q), (g,N,k,D) -> (g,N,M,q,D)."""
    g, n, k, m, q = weights.shape
    context = context.to(weights.dtype).flatten(0, 1)
    return torch.bmm(weights.reshape(g * n, k, m * q).mT, context).view(g, n, m, q, -1)
