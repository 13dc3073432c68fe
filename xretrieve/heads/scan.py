"""SCAN: stacked cross-attention (Lee et al., ECCV 2018, arXiv 1803.08024), both directions, all poolings.

No vector as wide as D is ever made for a pair: with the cosines ``a`` and the Gram matrix ``G`` of what is attended to,
``query . c = sum_j P_j a_j`` and ``||c||^2 = P' G P``.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor

from xretrieve.errors import unknown
from xretrieve.heads.attention import (
    FEATURE_NORMS,
    LOW,
    affinities,
    attend,
    attended_norm,
    attention_weights,
    swap_roles,
)
from xretrieve.heads.base import l2
from xretrieve.heads.local import TEMPERATURES, LocalHead, Trace, captions_first, check_stream, roles
from xretrieve.heads.pooling import masked_mean
from xretrieve.heads.scoring import Items
from xretrieve.heads.streams import Stream

Pooling = Literal["LogSumExp", "Mean", "Max", "Sum"]
FeatureNorm = Literal["clipped_l2norm", "l2norm", "clipped", "no_norm", "softmax"]


def pool_relevance(r: Tensor, mask: Tensor | None, pooling: str, lambda_lse: float) -> Tensor:
    """One score per pair from one per query token. r (g,N,M,q), mask (g,M,q) -> (g,N,M)."""
    real = None if mask is None else mask[:, None]  # (g,1,M,q)
    if pooling in ("LogSumExp", "Max"):
        scale = lambda_lse if pooling == "LogSumExp" else 1.0
        r = r * scale if real is None else (r * scale).masked_fill(~real, LOW)
        return (r.logsumexp(-1) if pooling == "LogSumExp" else r.amax(-1)) / scale
    total = r.sum(-1) if real is None else (r * real).sum(-1)
    if pooling == "Sum":
        return total
    return total / (r.shape[-1] if real is None else real.sum(-1).clamp(min=1))


class SCAN(LocalHead):
    """Stacked cross-attention; no parameters beyond the projections.

    Args:
        image_dim, text_dim: F of the two backbones' local tokens.
        stream: ``t2i`` (every word looks at the regions) or ``i2t`` (every region looks at the words).
        pooling: of the query tokens' cosines: ``LogSumExp``, ``Mean``, ``Max`` or ``Sum``.
        feature_norm: how the cosines are normalised before the softmax
            (:func:`xretrieve.heads.attention.attention_weights`).
        temperature: lambda of the cross-attention; default 9 for t2i and 4 for i2t.
        lambda_lse: of LogSumExp; default 6 for t2i and 5 for i2t.
        dim: D of the joint space.
        image_project, text_project, image_norm, text_norm, image_dropout, text_dropout, coarse: as in
            :class:`xretrieve.heads.sgr.SGR`.

    Scores are cosines pooled over the query tokens, and are trained on as they are; LogSumExp may exceed 1.
    """

    name = "scan"

    def __init__(
        self, image_dim: int, text_dim: int, stream: Stream = "t2i", pooling: Pooling = "LogSumExp",
        feature_norm: FeatureNorm = "clipped_l2norm", temperature: float | None = None, lambda_lse: float | None = None,
        dim: int = 1024, image_project: bool = True, text_project: bool | None = None, image_norm: bool = False,
        text_norm: bool = False, image_dropout: float = 0.0, text_dropout: float = 0.0, coarse: bool = False,
    ) -> None:  # fmt: skip
        super().__init__({k: v for k, v in locals().items() if k not in ("self", "__class__")})
        if pooling not in ("LogSumExp", "Mean", "Max", "Sum"):
            raise unknown("pooling", str(pooling), ("LogSumExp", "Mean", "Max", "Sum"))
        if feature_norm not in FEATURE_NORMS:
            raise unknown("feature_norm", str(feature_norm), FEATURE_NORMS)
        self.stream, self.pooling, self.feature_norm = check_stream(stream), pooling, feature_norm
        self.streams = (stream,)
        self.temperature = TEMPERATURES[stream] if temperature is None else temperature
        self.lambda_lse = {"t2i": 6.0, "i2t": 5.0}[stream] if lambda_lse is None else lambda_lse

    def image_vector(self, local: Tensor, mask: Tensor) -> Tensor:
        """The mean region, unit length (B,D)."""
        return l2(masked_mean(local, mask))

    def text_vector(self, local: Tensor, mask: Tensor) -> Tensor:
        """The mean word, unit length (C,D)."""
        return l2(masked_mean(local, mask))

    def pairs(self, texts: Items, images: Items, folded: Any, trace: Trace) -> dict[str, Tensor]:
        """``score`` (g,C,B)."""
        context, query = roles(self.stream, texts, images)
        cosines = affinities(images.local, texts.local)  # (g,B,R,C,L)
        if self.stream == "i2t":
            cosines = swap_roles(cosines)  # (g,N,k,M,q) from here on
        weights = attention_weights(cosines, self.temperature, context.mask, query.mask, self.feature_norm)
        length = attended_norm(weights, context.extra["gram"])  # (g,N,M,q)
        squared = query.local.float().square().sum(-1)  # (g,M,q)
        own = squared.clamp(min=1e-24).sqrt()[:, None]  # 1, or 0 where padded
        r = (weights * cosines).sum(2) / (own * length).clamp(min=1e-8)  # (g,N,M,q)
        if trace is not None:
            trace[f"{self.stream}_attention"] = weights.permute(0, 1, 3, 4, 2)  # (g,N,M,q,k)
            trace[f"{self.stream}_context"] = attend(weights, context.local)
        score = pool_relevance(r, query.mask, self.pooling, self.lambda_lse)
        return {"score": captions_first(score, self.stream)}

    def pair_bytes(self, words: int, regions: int) -> int:
        """Cosines, weights and what is made of them, in float32."""
        return 4 * (words * regions * (16 if torch.is_grad_enabled() else 6) + (words + regions) * 4)
