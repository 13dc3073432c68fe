"""SAF: similarity attention filtration (Diao et al., AAAI 2021, arXiv 2101.01368): weigh the nodes, add them up."""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn

from xretrieve.errors import unknown
from xretrieve.heads.base import l2
from xretrieve.heads.precise import Affine, full
from xretrieve.heads.scoring import TRAINING_MEMORY, Items
from xretrieve.heads.similarity import RegionNorm, xavier
from xretrieve.heads.streams import Stream, StreamHead, Trace, TrainOn, captions_first
from xretrieve.tokens import Prepared

SafNorm = Literal["caption", "batch"]


class Moments(NamedTuple):
    """Statistics of the node logits of each caption: mean, biased variance and number of nodes, (g,C) each."""

    mean: Tensor
    variance: Tensor
    count: Tensor


class Filtration(nn.Module):
    """``z = l2(sum_n beta_n x_n)``, ``beta = l1(sigmoid(BN_1(w . x_n + b)))`` over the real nodes.

    Args:
        dim: S.
        norm: what BN_1 takes its training statistics from: one ``caption`` against all images of the batch (the
            published training walks caption by caption), or the whole ``batch``.
    """

    def __init__(self, dim: int, norm: SafNorm = "caption") -> None:
        super().__init__()
        if norm not in ("caption", "batch"):
            raise unknown("saf_norm", str(norm), ("caption", "batch"))
        self.norm = norm
        self.attn_sim_w = nn.Linear(dim, 1)
        self.bn = nn.BatchNorm1d(1)
        xavier(self.attn_sim_w)

    def forward(
        self, x: Tensor, mask: Tensor | None, stream: str, given: Moments | None = None
    ) -> tuple[Tensor, Tensor, Moments | None]:
        """Filtered vector (g,N,M,S), the weights (g,N,M,n), and in training the captions' moments.

        x (g,N,M,n,S), mask (g,1,M,n); ``given`` (1,1) moments replace the captions' own (``norm="batch"``).
        """
        weight, bias = (p.to(x.dtype) for p in (self.attn_sim_w.weight, self.attn_sim_w.bias))
        h = full(nn.functional.linear(x, weight, bias)).squeeze(-1)  # (g,N,M,n)
        moments = None
        if self.training:
            caption_axis = 2 if stream == "t2i" else 1
            moments = self._moments(h, mask, caption_axis)
            used = given if given is not None else moments
            shape = [h.shape[0], 1, 1, 1]
            shape[caption_axis] = -1
            mean, variance = used.mean.reshape(shape), used.variance.reshape(shape)
        else:
            mean, variance = self.bn.running_mean, self.bn.running_var
        h = (h - mean) * torch.rsqrt(variance + self.bn.eps) * self.bn.weight + self.bn.bias
        beta = torch.sigmoid(h)
        if mask is not None:
            beta = beta * mask
        beta = beta / (beta.sum(-1, keepdim=True) + 1e-8)  # positive: l1 is the sum
        z = torch.matmul(beta[..., None, :].to(x.dtype), x).squeeze(-2)  # (g,N,M,S)
        return l2(full(z)), beta, moments

    @staticmethod
    def _moments(h: Tensor, mask: Tensor | None, caption_axis: int) -> Moments:
        over = (1, 3) if caption_axis == 2 else (2, 3)
        real = torch.ones_like(h) if mask is None else mask.expand(h.shape).to(h.dtype)
        count = real.sum(over)  # (g,C)
        mean = (h * real).sum(over) / count
        deviation = (h - mean.unsqueeze(over[0]).unsqueeze(3)) * real
        return Moments(mean, deviation.square().sum(over) / count, count)

    @torch.no_grad()
    def update(self, moments: Moments) -> None:
        """Move the running pair by the captions' moments (C,), in their order, as that many steps would."""
        bn, c = self.bn, len(moments.mean)
        unbiased = moments.variance * moments.count / (moments.count - 1).clamp(min=1)
        keep = 1 - bn.momentum
        shares = bn.momentum * keep ** torch.arange(c - 1, -1, -1, device=unbiased.device)  # the last counts most
        bn.running_mean.mul_(keep**c).add_((shares * moments.mean).sum())
        bn.running_var.mul_(keep**c).add_((shares * unbiased).sum())
        bn.num_batches_tracked += c


def pool_moments(moments: Moments) -> Moments:
    """Moments of all captions together, from those of each: (C,) -> (1,)."""
    count = moments.count.sum()
    mean = (moments.mean * moments.count).sum() / count
    spread = moments.variance + (moments.mean - mean).square()
    return Moments(mean[None], ((spread * moments.count).sum() / count)[None], count[None])


class SAF(StreamHead):
    """Similarity attention filtration on one stream.

    Args:
        image_dim, text_dim: F of the two backbones' local tokens.
        stream: ``t2i`` (a node per word, as published) or ``i2t`` (a node per region).
        saf_norm: ``caption`` (published) or ``batch``, see :class:`Filtration`. ``batch`` computes every pair twice in
            training.
        temperature: lambda of the cross-attention; default 9 for t2i and 4 for i2t.
        dim, sim_dim, region_norm, regions, dropout, image_project, text_project: as in
            :class:`xretrieve.heads.sgr.SGR`.
        image_norm, text_norm, image_dropout, text_dropout, train_on, coarse: the same.
        residual, use_pooled, text_hidden: the same.

    Scores are logits.
    """

    name = "saf"

    def __init__(
        self, image_dim: int, text_dim: int, stream: Stream = "t2i", saf_norm: SafNorm = "caption",
        temperature: float | None = None, dim: int = 1024, sim_dim: int = 256, region_norm: RegionNorm = "none",
        regions: int = 36, dropout: float = 0.4, image_project: bool = True, text_project: bool | None = None,
        image_norm: bool = False, text_norm: bool = False, image_dropout: float = 0.0, text_dropout: float = 0.0,
        train_on: TrainOn = "probability", coarse: bool = False, residual: float | None = None,
        use_pooled: bool = False, text_hidden: int = 0,
    ) -> None:  # fmt: skip
        super().__init__({k: v for k, v in locals().items() if k not in ("self", "__class__")})
        self.single_stream(stream, temperature)
        self.SAF_module = Filtration(sim_dim, saf_norm)
        self.sim_eval_w = nn.Linear(sim_dim, 1)
        self.read_out(self.sim_eval_w)

    @property
    def whole_rows(self) -> bool:
        """A caption's statistics run over all images."""
        return True

    def fold(self) -> dict[str, Any]:
        """The projections; a pass over the batch may add its moments."""
        return super().fold() | {self.stream: Affine(self.sim_tranloc_w)}

    def pairs(self, texts: Items, images: Items, folded: Any, trace: Trace) -> dict[str, Tensor]:
        """``score`` (g,C,B), logits; in training also the captions' moments (g,C)."""
        x, mask = self.nodes(texts, images, folded, trace)[self.stream]
        z, beta, moments = self.SAF_module(x, mask, self.stream, folded.get(f"{self.stream}_moments"))
        if trace is not None:
            trace[f"{self.stream}_saf_weights"], trace[f"{self.stream}_vec"] = beta, z
        score = self.add_residual(captions_first(self.sim_eval_w(z).squeeze(-1), self.stream), texts, images)
        return {"score": score, **pack(self.stream, moments)}

    def run(
        self, queries: Prepared, gallery: Prepared, memory: int | None = None, folded: Any = None
    ) -> dict[str, Tensor]:
        """As in the base class; training also moves the running statistics, once."""
        return run_with_moments(self, super().run, {self.stream: self.SAF_module}, queries, gallery, memory)


def pack(stream: str, moments: Moments | None) -> dict[str, Tensor]:
    """Moments as named tensors, so that blocks can be joined."""
    return {} if moments is None else {f"{stream}_{k}": v for k, v in moments._asdict().items()}


def run_with_moments(
    head: StreamHead, run: Any, filtrations: dict[str, Filtration], queries: Prepared, gallery: Prepared,
    memory: int | None,
) -> dict[str, Tensor]:  # fmt: skip
    """One pass over the pairs; two in training where the statistics are those of the whole batch.

    Nodes are added up with weights that depend on the logits of every node of the batch. Those logits come from the
    nodes of all pairs, which are far too many to keep from a first look to a second; so they are made twice, and what
    either pass keeps for the backward pass takes half of the memory.
    """

    def measured(outputs: dict[str, Tensor], stream: str) -> Moments:
        return Moments(*(outputs[f"{stream}_{k}"] for k in Moments._fields))

    folded = head.folded()
    if head.training and any(f.norm == "batch" for f in filtrations.values()):
        memory = (memory or head.memory or TRAINING_MEMORY) // 2
    outputs = run(queries, gallery, memory, folded)
    if not head.training:
        return outputs
    batch = {s: pool_moments(measured(outputs, s)) for s, f in filtrations.items() if f.norm == "batch"}
    if batch:
        outputs = run(queries, gallery, memory, folded | {f"{s}_moments": m for s, m in batch.items()})
    for stream, filtration in filtrations.items():
        filtration.update(batch.get(stream) or measured(outputs, stream))
    return outputs
