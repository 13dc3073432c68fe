"""SGR: similarity graph reasoning (Diao et al., AAAI 2021, arXiv 2101.01368).

A pair becomes a small graph: one node compares the global vectors, one node per word (or region) compares it with what
it attends to. Three steps of attention among the nodes, then the global node is the pair's logit.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from xretrieve.errors import XRetrieveError
from xretrieve.heads.base import set_learning
from xretrieve.heads.graph import StepWeights, reason, step
from xretrieve.heads.precise import Affine, Weight, full
from xretrieve.heads.scoring import Items
from xretrieve.heads.similarity import RegionNorm, xavier
from xretrieve.heads.streams import Stream, StreamHead, Trace, TrainOn, captions_first


class Folded(NamedTuple):
    """Query and key projections merged: ``logits = (X weight' + bias) X'``."""

    weight: Tensor
    bias: Tensor


def merge(query: nn.Linear, key: nn.Linear) -> Folded:
    """``q_i . k_j`` is ``x_i' Wq' Wk x_j + bq' Wk x_j`` and terms that do not depend on j: a softmax over j drops them.

    The key's bias is such a term: it is kept to load and save checkpoints, and learns nothing.
    """
    with torch.autocast(query.weight.device.type, enabled=False):
        return Folded(key.weight.T @ query.weight, key.weight.T @ query.bias)


class GraphStep(nn.Module):
    """One step: ``X <- ReLU((softmax(Q K') X) Wr' + br)``; S x S matrices, no scaling, no residual."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.graph_query_w = nn.Linear(dim, dim)
        self.graph_key_w = nn.Linear(dim, dim)
        self.sim_graph_w = nn.Linear(dim, dim)
        set_learning(self)

    def constants(self) -> list[nn.Parameter]:
        """The key's bias cancels in the softmax: see :func:`merge`."""
        return [self.graph_key_w.bias]

    def fold(self) -> Folded:
        """The merged query and key of this step."""
        return merge(self.graph_query_w, self.graph_key_w)

    def weights(self) -> StepWeights:
        """What the pair stage multiplies with."""
        mix = self.sim_graph_w
        return StepWeights(*(Weight(w) for w in (*self.fold(), mix.weight, mix.bias)))


class SGR(StreamHead):
    """Similarity graph reasoning on one stream.

    Args:
        image_dim, text_dim: F of the two backbones' local tokens.
        stream: ``t2i`` (a node per word, as published) or ``i2t`` (a node per region).
        steps: of reasoning, each with its own weights.
        temperature: lambda of the cross-attention; default 9 for t2i and 4 for i2t.
        dim, sim_dim: D of the joint space, S of the similarity nodes.
        region_norm: ``index`` is the published BatchNorm over the region index (needs exactly ``regions`` regions per
            image); ``none`` works for any number.
        dropout: in the global vectors.
        image_project, text_project: a Linear to D; the text's default is to have one only where its width is not D.
        image_norm, text_norm, image_dropout, text_dropout: on the incoming tokens.
        train_on: what the loss reads: the ``probability`` (as published, with the hinge), or the ``logit``: a softmax
            over probabilities saturates, so InfoNCE wants logits (at temperature 1 to begin with).
        coarse: whether the cosine of the global vectors is trained too; a recipe sets it by its `coarse_loss`.
        residual: null, or a temperature: the cosine of the global vectors, divided by it, is added to the logit, so the
            reasoning corrects the coarse score and does not have to reproduce it (not part of the published models).
        use_pooled: join V and T with projections of the backbones' own pooled vectors: the coarse cosine is then the
            mean of both cosines. The global node reads V and T alone (not part of the published models).
        text_hidden: width of a residual perceptron in the projection of the text's pooled vector, 0 for none.

    Scores are logits.
    """

    name = "sgr"

    def __init__(
        self, image_dim: int, text_dim: int, stream: Stream = "t2i", steps: int = 3, temperature: float | None = None,
        dim: int = 1024, sim_dim: int = 256, region_norm: RegionNorm = "none", regions: int = 36, dropout: float = 0.4,
        image_project: bool = True, text_project: bool | None = None, image_norm: bool = False,
        text_norm: bool = False, image_dropout: float = 0.0, text_dropout: float = 0.0,
        train_on: TrainOn = "probability", coarse: bool = False, residual: float | None = None,
        use_pooled: bool = False, text_hidden: int = 0,
    ) -> None:  # fmt: skip
        super().__init__({k: v for k, v in locals().items() if k not in ("self", "__class__")})
        if steps < 1:
            raise XRetrieveError(f"head 'sgr': steps must be at least 1, got {steps}")
        self.single_stream(stream, temperature)
        self.steps, self.node_arrays_grad = steps, 7 + 3 * steps
        self.SGR_module = nn.ModuleList(GraphStep(sim_dim) for _ in range(steps))
        self.sim_eval_w = nn.Linear(sim_dim, 1)
        xavier(self.SGR_module)
        self.read_out(self.sim_eval_w)

    def fold(self) -> dict[str, Any]:
        """Merged weights, made once per call and not once per pair."""
        steps = [step.weights() for step in self.SGR_module]  # type: ignore[operator]
        return super().fold() | {self.stream: Affine(self.sim_tranloc_w), "steps": steps}

    def pairs(self, texts: Items, images: Items, folded: Any, trace: Trace) -> dict[str, Tensor]:
        """``score`` (g,C,B), logits."""
        x, mask = self.nodes(texts, images, folded, trace)[self.stream]  # (g,N,M,n,S), (g,1,M,n)
        if trace is None:
            x = reason(x, mask, folded["steps"], first_row=True)  # only the global node is read after the last step
        else:
            for k, weights in enumerate(folded["steps"]):
                x = trace[f"{self.stream}_nodes_step{k + 1}"] = step(x, mask, weights, first_row=False)
        z = x[..., 0, :]  # (g,N,M,S)
        if trace is not None:
            trace[f"{self.stream}_vec"] = z
        logits = captions_first(self.sim_eval_w(full(z)).squeeze(-1), self.stream)
        return {"score": self.add_residual(logits, texts, images)}
