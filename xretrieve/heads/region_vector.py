"""The image's global vector for any number of regions: attention pooling whose BatchNorm sees present regions only."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from xretrieve.errors import XRetrieveError, unknown
from xretrieve.heads.attention import LOW
from xretrieve.heads.base import l2
from xretrieve.heads.pooling import masked_mean
from xretrieve.heads.similarity import GlobalVector
from xretrieve.utils.tracing import all_true

RegionNorm = Literal["index", "feature", "none"]
NORMS = ("index", "feature", "none")


class RegionBatchNorm(nn.BatchNorm1d):
    """BatchNorm of (N,R,D) over present regions.

    Args:
        channels: of them.
        axis: ``index`` has a channel per region index (R of them, as published: position n always uses channel n);
            ``feature`` one per feature (D).

    In training a channel without an entry in the batch keeps its running pair.
    """

    def __init__(self, channels: int, axis: str) -> None:
        super().__init__(channels)
        self.axis = axis

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:  # type: ignore[override]
        """(N,R,D), (N,R) -> (N,R,D); what absent regions become is not to be read."""
        used = x.shape[1] if self.axis == "index" else self.num_features

        def spread(channels: Tensor) -> Tensor:  # of the channels in use, over (N,R,D)
            return channels[:used, None] if self.axis == "index" else channels

        if self.training:
            mean, variance = self._measure(x, mask)
        else:
            mean, variance = self.running_mean, self.running_var
        scale = self.weight[:used] * torch.rsqrt(variance[:used] + self.eps)
        return (x - spread(mean)) * spread(scale) + spread(self.bias)

    def _measure(self, x: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and biased variance of the channels in use; moves the running pair."""
        over = (0, 2) if self.axis == "index" else (0, 1)
        real = mask[..., None].to(x.dtype)
        count = real.expand(x.shape).sum(over)  # (channels,)
        mean = (x * real).sum(over) / count.clamp(min=1)
        centred = (x - (mean[:, None] if self.axis == "index" else mean)) * real
        variance = centred.square().sum(over) / count.clamp(min=1)
        with torch.no_grad():
            seen = count > 0
            unbiased = variance * count / (count - 1).clamp(min=1)
            for running, now in ((self.running_mean, mean), (self.running_var, unbiased)):
                own = running[: len(now)]
                own.copy_(torch.where(seen, own + self.momentum * (now - own), own))
            self.num_batches_tracked += 1
        return mean, variance


class RegionVector(GlobalVector):
    """:class:`GlobalVector` of an image, with BatchNorm by ``norm``, masks, and holes in the masks.

    Args:
        dim: D.
        dropout: after each tanh, training only.
        norm: ``index`` (published; at most ``regions`` regions), ``feature`` (any number) or ``none``: neither this
            BatchNorm nor the one of the mean's channels.
        regions: channels of ``index``.
    """

    def __init__(self, dim: int, dropout: float, norm: RegionNorm, regions: int) -> None:
        if norm not in NORMS:
            raise unknown("region_norm", str(norm), NORMS)
        super().__init__(dim, dropout)
        if norm != "none":
            near, far = self.embedding_local, self.embedding_global
            over_regions = RegionBatchNorm(regions if norm == "index" else dim, norm)
            self.embedding_local = nn.Sequential(near[0], over_regions, near[1], near[2])
            self.embedding_global = nn.Sequential(far[0], nn.BatchNorm1d(dim), far[1], far[2])
        self.norm, self.most = norm, regions

    def forward(self, local: Tensor, mask: Tensor) -> Tensor:
        """(N,R,D) unit vectors, zero where absent, and (N,R) -> (N,D)."""
        if self.norm == "index" and local.shape[1] > self.most:
            raise XRetrieveError(
                f"region_norm=index was trained with {self.most} regions per image, found {local.shape[1]}; use "
                "region_norm=feature or region_norm=none"
            )
        if not all_true(mask.any(1)):
            row = int((~mask.any(1)).nonzero()[0])
            raise XRetrieveError(f"image {row} of the batch has no region at all; leave it out")
        near = self.embedding_local[0](local)  # (N,R,D)
        if self.norm != "none":
            near = self.embedding_local[1](near, mask)
        near = self.embedding_local[-2:](near)
        mean = self.embedding_global(masked_mean(local, mask))  # (N,D)
        logits = self.embedding_common(near * mean[:, None]).squeeze(-1).float()  # (N,R)
        weights = logits.masked_fill(~mask, LOW).softmax(1)
        return l2((weights[..., None] * local).sum(1))
