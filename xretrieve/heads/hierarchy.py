"""One level of TSHSR: nodes extract contexts, ask each other and the contexts, and a gate joins the two answers.

This project's own equations between the ideas of arXiv 2203.05349 (see :mod:`xretrieve.heads.tshsr`). With the gate at
1, or without context, it is a step of SGR.
"""

from __future__ import annotations

from typing import Literal

from torch import Tensor, nn

from xretrieve.errors import unknown
from xretrieve.heads.base import set_learning
from xretrieve.heads.graph import StepWeights
from xretrieve.heads.precise import Weight
from xretrieve.heads.sgr import merge

Context = Literal["cluster", "mean", "none"]
Gate = Literal["vector", "scalar"]


class Level(nn.Module):
    """The weights of one level; :func:`xretrieve.heads.graph.step` computes with them.

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

    def weights(self) -> StepWeights:
        """What the pair stage multiplies with: query and keys merged, the gate cut into its two inputs and negated."""
        mix, assign, gate = self.sim_graph_w, self.context_assign_w, self.gate_w
        made: dict[str, Tensor] = {"mix": mix.weight, "mix_bias": mix.bias}
        made["ask"], made["ask_bias"] = merge(self.graph_query_w, self.graph_key_w)
        if assign is not None:
            made |= {"share": assign.weight, "share_bias": assign.bias}
        if self.context_key_w is not None:
            key, made["key_bias"] = merge(self.graph_query_w, self.context_key_w)
            made["key"] = key.T  # their keys need no pass over the nodes
        if gate is not None:
            s = mix.in_features
            made |= {"gate": -gate.weight[:, :s], "gate_context": -gate.weight[:, s:], "gate_bias": -gate.bias}
        return StepWeights(**{name: Weight(value) for name, value in made.items()})
