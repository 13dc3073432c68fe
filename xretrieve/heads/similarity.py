"""From tokens to similarity nodes: the projection of a side, its global vector, and the nodes of a pair.

Source: SGRAF, "Similarity Reasoning and Filtration for Image-Text Matching" (Diao et al., AAAI 2021, arXiv 2101.01368).
Module names (`embedding_local`, ...) are those of the published checkpoints.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from xretrieve.errors import XRetrieveError, unknown
from xretrieve.heads.attention import LOW
from xretrieve.heads.base import l2, set_learning
from xretrieve.heads.pooling import masked_mean
from xretrieve.tokens import Tokens
from xretrieve.utils.dropout import Dropout
from xretrieve.utils.tracing import all_true

RegionNorm = Literal["none", "index"]


def xavier(module: nn.Module) -> None:
    """Every Linear inside: Xavier-uniform weights, zero bias."""
    for part in module.modules():
        if isinstance(part, nn.Linear):
            nn.init.xavier_uniform_(part.weight)
            nn.init.zeros_(part.bias)


class Projection(nn.Module):
    """One side's tokens to unit vectors of the joint space; zeros where a token is padded.

    Args:
        width: F of the incoming tokens.
        dim: D of the joint space.
        project: a Linear F -> D; False takes the tokens as they are (F must be D): an encoder that already ends there.
        norm: LayerNorm of the incoming tokens (frozen CNN features have uneven scales; off in the published models).
        dropout: on the incoming tokens, training only.
    """

    def __init__(self, side: str, width: int, dim: int, project: bool, norm: bool, dropout: float) -> None:
        super().__init__()
        if not project and width != dim:
            raise XRetrieveError(
                f"{side}_project=false needs dim={width}, the width of the {side} backbone; it is {dim}"
            )
        self.side = side
        self.norm = nn.LayerNorm(width) if norm else nn.Identity()
        self.drop = Dropout(dropout)
        self.fc = nn.Linear(width, dim) if project else nn.Identity()
        xavier(self)

    def forward(self, tokens: Tokens) -> Tensor:
        """(N,L,F) -> (N,L,D) float32."""
        if not tokens.local.shape[1]:
            raise XRetrieveError(
                f"this head reads local tokens, but the {self.side} side has none; choose a backbone that gives "
                "regions, grid cells, patches or words"
            )
        padded = ~tokens.mask[..., None]
        x = tokens.local.masked_fill(padded, 0)  # padded places may hold anything, NaN included
        y = self.fc(self.drop(self.norm(x))).float()  # (N,L,D)
        return l2(y.masked_fill(padded, 0))


class GlobalVector(nn.Module):
    """Attention pooling of unit vectors with their mean as the query; the result is a unit vector.

    ``V = l2(sum_r w_r v_r)``, ``w = softmax_r(p . (tanh(P_l v_r) * tanh(P_g mean)))``.

    Args:
        dim: D.
        dropout: after each tanh, training only.
        regions: R when the published image side is wanted: BatchNorm over the region *index* and over the mean's
            channels; 0 leaves both out, and R may then vary and be padded.
    """

    def __init__(self, dim: int, dropout: float, regions: int = 0) -> None:
        super().__init__()
        self.regions = regions
        over_regions, over_channels = ([nn.BatchNorm1d(regions)], [nn.BatchNorm1d(dim)]) if regions else ([], [])
        self.embedding_local = nn.Sequential(nn.Linear(dim, dim), *over_regions, nn.Tanh(), Dropout(dropout))
        self.embedding_global = nn.Sequential(nn.Linear(dim, dim), *over_channels, nn.Tanh(), Dropout(dropout))
        self.embedding_common = nn.Sequential(nn.Linear(dim, 1))
        xavier(self)
        set_learning(self)

    def constants(self) -> list[nn.Parameter]:
        """A softmax follows: this bias cannot matter."""
        return [self.embedding_common[0].get_parameter("bias")]

    def forward(self, local: Tensor, mask: Tensor) -> Tensor:
        """(N,L,D), (N,L) -> (N,D)."""
        if self.regions and (local.shape[1] != self.regions or not all_true(mask)):
            raise XRetrieveError(
                f"region_norm=index needs exactly {self.regions} real regions in every image (option regions), found "
                f"{local.shape[1]}{'' if mask.all() else ', some padded or hidden'}; use region_norm=none"
            )
        near = self.embedding_local(local)  # (N,L,D)
        mean = self.embedding_global(masked_mean(local, mask))  # (N,D)
        logits = self.embedding_common(near * mean[:, None]).squeeze(-1).float()  # (N,L)
        weights = logits.masked_fill(~mask, LOW).softmax(1)
        return l2((weights[..., None] * local).sum(1))


def region_count(region_norm: str, regions: int) -> int:
    """What :class:`GlobalVector` of the image side is built with: R for ``index``, 0 for ``none``."""
    if region_norm not in ("none", "index"):
        raise unknown("region_norm", region_norm, ("none", "index"))
    return regions if region_norm == "index" else 0


def node_mask(query_mask: Tensor | None) -> Tensor | None:
    """Which nodes are real, the global one first: (g,M,q) -> (g,1,M,1+q); None when all are."""
    if query_mask is None:
        return None
    return torch.nn.functional.pad(query_mask, (1, 0), value=True)[:, None]
