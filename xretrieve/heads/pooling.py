"""From local tokens to one vector: the poolings of dual encoders, all masked."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from xretrieve.errors import XRetrieveError, unknown
from xretrieve.utils.recurrent import run_gru


def masked_mean(x: Tensor, mask: Tensor) -> Tensor:
    """Mean over the real tokens. x (N,L,D), mask (N,L) -> (N,D)."""
    return x.masked_fill(~mask[..., None], 0).sum(1) / mask.sum(1, keepdim=True).clamp(min=1).to(x.dtype)


def masked_max(x: Tensor, mask: Tensor) -> Tensor:
    """Maximum over the real tokens, per dimension; 0 where an item has none. x (N,L,D), mask (N,L) -> (N,D)."""
    top = x.masked_fill(~mask[..., None], -torch.inf).amax(1)
    return torch.where(mask.any(1, keepdim=True), top, torch.zeros_like(top))


class Mean(nn.Module):
    """Mean over the real tokens."""

    def __init__(self, dim: int) -> None:
        super().__init__()

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """(N,L,D), (N,L) -> (N,D)."""
        return masked_mean(x, mask)


class Max(nn.Module):
    """Maximum over the real tokens."""

    def __init__(self, dim: int) -> None:
        super().__init__()

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """(N,L,D), (N,L) -> (N,D)."""
        return masked_max(x, mask)


class MeanMax(nn.Module):
    """Mean plus maximum: the two ends of generalised pooling, without its sorting network."""

    def __init__(self, dim: int) -> None:
        super().__init__()

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """(N,L,D), (N,L) -> (N,D)."""
        return masked_mean(x, mask) + masked_max(x, mask)


class Attention(nn.Module):
    """Several learned queries attend over the tokens; the results are concatenated per slice of D."""

    def __init__(self, dim: int, heads: int = 8) -> None:
        super().__init__()
        if dim % heads:
            raise XRetrieveError(
                f"pooling 'attention' cuts the width into {heads} slices; {dim} is no multiple of {heads}"
            )
        self.heads = heads
        self.logits = nn.Linear(dim, heads)
        nn.init.zeros_(self.logits.weight)  # starts as the mean
        nn.init.zeros_(self.logits.bias)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """(N,L,D), (N,L) -> (N,D)."""
        n, length, d = x.shape
        # finfo.min, not -inf: an item without any real token must not become NaN
        weights = self.logits(x).masked_fill(~mask[..., None], torch.finfo(x.dtype).min).softmax(1)  # (N,L,H)
        # `where` and not masked_fill, which takes twice as long forward and backward for the same values
        slices = torch.where(mask[..., None], x, 0).view(n, length, self.heads, d // self.heads)  # (N,L,H,D/H)
        return (weights[..., None] * slices).sum(1).reshape(n, d)


class GPO(nn.Module):
    """Generalised pooling operator: per dimension, a learned weighted sum of the sorted token values.

    The weight of rank k among L tokens comes from a small BiGRU over sinusoidal rank encodings, so any L works.
    Source: Chen et al., "Learning the Best Pooling Strategy for Visual Semantic Embedding" (VSE-infinity, CVPR 2021).
    """

    def __init__(self, dim: int, width: int = 32) -> None:
        super().__init__()
        self.width = width
        self.gru = nn.GRU(width, width, batch_first=True, bidirectional=True)
        self.out = nn.Linear(width, 1, bias=False)

    def _weights(self, lengths: Tensor, longest: int) -> Tensor:
        # one weight row per distinct length: (N,L), softmax over the real ranks
        distinct, back = lengths.clamp(min=1), torch.arange(len(lengths), device=lengths.device)
        if not torch.compiler.is_compiling():  # how many are distinct is no matter of shapes
            distinct, back = distinct.unique(return_inverse=True)
        rank = torch.arange(longest, device=lengths.device, dtype=torch.float32)[:, None]
        rate = torch.exp(torch.arange(0, self.width, 2, device=lengths.device) * (-math.log(10000.0) / self.width))
        code = torch.stack([(rank * rate).sin(), (rank * rate).cos()], -1).flatten(1)  # (L,width)
        states = run_gru(self.gru, code.expand(len(distinct), -1, -1), distinct)  # (distinct,L,2 width)
        states = (states[..., : self.width] + states[..., self.width :]) / 2
        logits = self.out(states).squeeze(-1).float() / 0.1
        real = torch.arange(longest, device=lengths.device) < distinct[:, None]
        return logits.masked_fill(~real, torch.finfo(logits.dtype).min).softmax(-1)[back]

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """(N,L,D), (N,L) -> (N,D)."""
        ranked = x.masked_fill(~mask[..., None], torch.finfo(x.dtype).min).sort(1, descending=True).values
        real = torch.arange(x.shape[1], device=x.device) < mask.sum(1, keepdim=True)  # sorted: real ones first
        ranked = ranked.masked_fill(~real[..., None], 0)
        return torch.einsum("nl,nld->nd", self._weights(mask.sum(1), x.shape[1]).to(x.dtype), ranked)


_POOLINGS = {"mean": Mean, "max": Max, "meanmax": MeanMax, "attention": Attention, "gpo": GPO}


def create_pooling(name: str, dim: int) -> nn.Module:
    """One of `mean`, `max`, `meanmax`, `attention`, `gpo`: a module (N,L,D), (N,L) -> (N,D)."""
    if name not in _POOLINGS:
        raise unknown("pooling", name, _POOLINGS)
    return _POOLINGS[name](dim)
