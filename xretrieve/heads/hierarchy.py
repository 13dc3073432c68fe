"""One level of TSHSR: nodes extract contexts, ask each other and the contexts, and a gate joins the two answers.

This project's own equations between the ideas of arXiv 2203.05349 (see :mod:`xretrieve.heads.tshsr`). With the gate at
1, or without context, it is a step of SGR.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from xretrieve.errors import unknown
from xretrieve.heads.attention import LOW
from xretrieve.heads.base import l2, set_learning
from xretrieve.heads.sgr import Folded, merge, node_attention

Context = Literal["cluster", "mean", "none"]
Gate = Literal["vector", "scalar"]


class FoldedLevel(NamedTuple):
    """Merged weights of a level: among the nodes, and from nodes to contexts (where there are several)."""

    nodes: Folded
    contexts: Folded | None


class Level(nn.Module):
    """X (...,n,S) to the next level's X.

    Args:
        dim: S.
        clusters: M, contexts that the level extracts.
        context: ``cluster``: M learned clusters spread their weight over the nodes; ``mean``: one context, the mean
            node; ``none``: no context.
        gate: one number per channel (``vector``) or per node (``scalar``).
    """

    def __init__(self, dim: int, clusters: int, context: Context = "cluster", gate: Gate = "vector") -> None:
        super().__init__()
        if context not in ("cluster", "mean", "none"):
            raise unknown("context", str(context), ("cluster", "mean", "none"))
        if gate not in ("vector", "scalar"):
            raise unknown("gate", str(gate), ("vector", "scalar"))
        self.context = context
        self.graph_query_w = nn.Linear(dim, dim)
        self.graph_key_w = nn.Linear(dim, dim)
        self.sim_graph_w = nn.Linear(dim, dim)
        self.context_assign_w = nn.Linear(dim, clusters) if context == "cluster" else None
        self.context_key_w = nn.Linear(dim, dim) if context == "cluster" and clusters > 1 else None
        self.gate_w = nn.Linear(2 * dim, dim if gate == "vector" else 1) if context != "none" else None
        set_learning(self)

    def constants(self) -> list[nn.Parameter]:
        """The biases of the keys cancel in the softmax: see :func:`xretrieve.heads.sgr.merge`."""
        return [layer.bias for layer in (self.graph_key_w, self.context_key_w) if layer is not None]

    def fold(self) -> FoldedLevel:
        """The merged query and key products."""
        contexts = None if self.context_key_w is None else merge(self.graph_query_w, self.context_key_w)
        return FoldedLevel(merge(self.graph_query_w, self.graph_key_w), contexts)

    def forward(
        self, x: Tensor, mask: Tensor | None, folded: FoldedLevel, first_row: bool,
        trace: dict[str, Tensor] | None = None, prefix: str = "{}",
    ) -> Tensor:  # fmt: skip
        """x (...,n,S), mask (...,n) -> (...,n,S), or (...,1,S) when only the first row is read."""
        asking = x[..., :1, :] if first_row else x  # (...,r,S)
        y = torch.matmul(node_attention(x, asking, folded.nodes, mask).to(x.dtype), x)  # local interaction (...,r,S)
        if self.gate_w is not None:
            z = self.extract(x, mask, trace, prefix)  # (...,M,S)
            y = self.join(asking, y, z, folded.contexts, trace, prefix)
        return self.sim_graph_w(y).relu()

    def extract(self, x: Tensor, mask: Tensor | None, trace: dict[str, Tensor] | None, prefix: str) -> Tensor:
        """Contexts of the nodes, unit vectors. (...,n,S) -> (...,M,S)."""
        if self.context_assign_w is None:  # the mean's direction is the sum's
            real = x if mask is None else x * mask[..., None]
            count = x.shape[-2] if mask is None else mask.sum(-1)[..., None, None]
            mean = real.sum(-2, keepdim=True).float() / count
            return l2(mean).to(x.dtype)
        logits = self.context_assign_w(x).float()  # (...,n,M)
        if mask is not None:
            logits = logits.masked_fill(~mask[..., None], LOW)
        shares = logits.softmax(-2)  # each cluster's weights over the nodes
        if trace is not None:
            trace[prefix.format("assign")] = shares
        return l2(torch.matmul(shares.to(x.dtype).mT, x).float()).to(x.dtype)

    def join(
        self, asking: Tensor, y: Tensor, z: Tensor, folded: Folded | None, trace: dict[str, Tensor] | None, prefix: str
    ) -> Tensor:
        """Gate between what the nodes said, y (...,r,S), and what the contexts z (...,M,S) say to ``asking``."""
        s = z.shape[-1]
        weight, bias = self.gate_w.weight, self.gate_w.bias
        from_contexts = linear(z, weight[:, s:])  # (...,M,S or 1): over the M contexts, not over the nodes
        if folded is None:  # one context: every node gets it whole
            context = z  # (...,1,S), broadcast over the nodes
        else:
            # (Q Z' Wk'') with the products merged onto the few contexts: their keys need no pass over the nodes
            keys = linear(z, folded.weight.T)  # (...,M,S): rows z A'
            shift = linear(z, folded.bias[None])  # (...,M,1)
            e = (torch.matmul(asking, keys.mT) + shift.mT).float().softmax(-1).to(z.dtype)  # (...,r,M)
            context, from_contexts = torch.matmul(e, z), torch.matmul(e, from_contexts)
        logits = linear(y, weight[:, :s], bias) + from_contexts  # (...,r,S or 1)
        if trace is not None:
            trace[prefix.format("gate")] = torch.sigmoid(logits)
        # g y + (1 - g) context, written so that a gate of 1 leaves y exactly as it is
        return torch.addcmul(y, torch.sigmoid(-logits), context - y)
