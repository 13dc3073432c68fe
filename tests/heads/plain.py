"""The equations of one pair, written as the papers write them: the slow reference of the heads' tests."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import leaky_relu, linear

from xretrieve.heads.base import l2
from xretrieve.heads.local import LocalHead
from xretrieve.tokens import Tokens

Pair = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]


def all_pairs(head: LocalHead, queries: Tokens, gallery: Tokens, score: Pair) -> Tensor:
    """``score(v, t, V, T)`` of every pair of unpadded items, (C,B)."""
    texts, images = head.prepare_queries(queries), head.prepare_gallery(gallery)
    rows = []
    for c in range(len(texts)):
        t = texts.local[c][texts.mask[c]]
        rows.append([score(images.local[b][images.mask[b]], t, images.pooled[b], texts.pooled[c])
                     for b in range(len(images))])  # fmt: skip
    return torch.stack([torch.stack(row) for row in rows])


def attended(query: Tensor, context: Tensor, temperature: float) -> Tensor:
    """Attended vectors (q,D), not normalised."""
    a = leaky_relu(query @ context.T, 0.1)  # (q,k)
    a = a / (a.square().sum(0, keepdim=True).clamp(min=1e-24).sqrt() + 1e-8)
    return (temperature * a).softmax(1) @ context


def nodes(head, loc, stream: str, v: Tensor, t: Tensor, V: Tensor, T: Tensor) -> Tensor:
    """Similarity nodes (1+q,S), the global one first."""
    query, context = (t, v) if stream == "t2i" else (v, t)
    c = l2(attended(query, context, head.temperatures[stream]))
    return torch.cat([l2(head.sim_tranglo_w((V - T).square()))[None], l2(loc((c - query).square()))])


def sgr_step(x: Tensor, step) -> tuple[Tensor, Tensor, Tensor]:
    """Q, local interaction E X, and the step's result, all rows."""
    q, k = step.graph_query_w(x), step.graph_key_w(x)
    y = (q @ k.T).softmax(1) @ x
    return q, y, step.sim_graph_w(y).relu()


def level(x: Tensor, own) -> Tensor:
    """One level of TSHSR in the four steps of its definition."""
    q, y, alone = sgr_step(x, own)
    if own.gate_w is None:
        return alone
    if own.context_assign_w is None:
        z = l2(x.mean(0))[None]
    else:
        z = l2(own.context_assign_w(x).softmax(0).T @ x)  # (M,S)
    if own.context_key_w is None:
        context = z.expand(len(x), -1)
    else:
        context = (q @ own.context_key_w(z).T).softmax(1) @ z
    g = torch.sigmoid(linear(torch.cat([y, context], 1), own.gate_w.weight, own.gate_w.bias))
    return own.sim_graph_w(g * y + (1 - g) * context).relu()


def filtered(x: Tensor, own, h: Tensor) -> Tensor:
    """SAF's vector (S,) from nodes and normalised node logits."""
    beta = torch.sigmoid(h)
    return l2((beta / (beta.sum() + 1e-8)) @ x)
