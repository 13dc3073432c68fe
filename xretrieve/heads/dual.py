"""The dual encoder: each side becomes one vector of a joint space, the score is their cosine.

In the spirit of VSE++ (Faghri et al., BMVC 2018) and VSE-infinity (Chen et al., CVPR 2021): a linear projection per
token, a pooling over the tokens, unit length. Everything is one-sided, so an index answers it.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor, nn

from xretrieve.errors import XRetrieveError, unknown
from xretrieve.heads.base import Head, l2
from xretrieve.heads.pooling import create_pooling
from xretrieve.tokens import Prepared, Tokens
from xretrieve.utils.dropout import Dropout

Source = Literal["local", "pooled"]


class Side(nn.Module):
    """One side of the dual encoder: (standardise), project, pool, unit length.

    Args:
        width: F, width of the incoming tokens.
        dim: D, width of the joint space.
        pool: see :func:`xretrieve.heads.pooling.create_pooling`; unused when the backbone's pooled vector is read.
        source: read the backbone's `local` tokens or its `pooled` vector.
        project: False keeps the tokens as they are (F must be D): for text encoders that already end in D.
        hidden: width of a residual two-layer perceptron beside the projection, 0 for none (VSE-infinity's image side).
        dropout: on the incoming features, training only.
        norm: LayerNorm of the incoming tokens (frozen CNN features have very uneven scales).
    """

    def __init__(
        self, width: int, dim: int, pool: str, source: Source, project: bool, hidden: int, dropout: float, norm: bool
    ) -> None:
        super().__init__()
        if source not in ("local", "pooled"):
            raise unknown("source", source, ("local", "pooled"))
        if not project and width != dim:
            raise XRetrieveError(
                f"head 'dual' without projection needs dim={width} (the backbone's width), got dim={dim}"
            )
        self.source = source
        self.norm = nn.LayerNorm(width) if norm else nn.Identity()
        self.drop = Dropout(dropout)
        self.linear = nn.Linear(width, dim) if project else nn.Identity()
        self.residual = nn.Sequential(nn.Linear(width, hidden), nn.ReLU(), nn.Linear(hidden, dim)) if hidden else None
        self.pool = create_pooling(pool, dim) if source == "local" else None
        for module in self.modules():
            if isinstance(module, nn.Linear) and module.weight.any():  # the zero start of attention pooling stays
                nn.init.xavier_uniform_(module.weight)
                nn.init.zeros_(module.bias) if module.bias is not None else None

    def forward(self, tokens: Tokens) -> Tensor:
        """Unit vectors (N, D)."""
        return l2(self.raw(tokens))

    def raw(self, tokens: Tokens) -> Tensor:
        """The same before they get unit length (N, D), float32."""
        if self.source == "local" and not tokens.local.shape[1]:
            raise XRetrieveError(
                "head 'dual' reads local tokens, but the backbone gives none: set its source to 'pooled'"
            )
        # padded places may hold anything, NaN included: zero them on entry
        x = torch.where(tokens.mask[..., None], tokens.local, 0) if self.source == "local" else tokens.pooled
        x = self.drop(self.norm(x))  # (N,L,F) or (N,F)
        y = self.linear(x)  # (N,L,D) or (N,D)
        if self.residual is not None:
            y = y + self.residual(x)
        if self.pool is not None:
            y = self.pool(y, tokens.mask)  # (N,D)
        return y.float()


class DualEncoder(Head):
    """Two :class:`Side` s and nothing between them.

    Args:
        image_dim, text_dim: widths of the two backbones' tokens.
        dim: D, width of the joint space.
        image_pool, text_pool: pooling over local tokens (`mean`, `max`, `meanmax`, `attention`, `gpo`).
        image_source, text_source: `local` tokens or the backbone's `pooled` vector.
        image_hidden, text_hidden: width of the residual perceptron, 0 for none.
        image_dropout, text_dropout: dropout on the incoming features.
        image_norm, text_norm: LayerNorm of the incoming features.
        text_project: False when the text backbone already ends in ``dim``.

    Prepared tokens hold no local part; ``pooled`` is the unit vector (N, D).
    """

    name = "dual"
    tasks = ("image_text", "multi_query", "composed")

    def __init__(
        self,
        image_dim: int,
        text_dim: int,
        dim: int = 512,
        image_pool: str = "mean",
        text_pool: str = "mean",
        image_source: Source = "local",
        text_source: Source = "local",
        image_hidden: int = 0,
        text_hidden: int = 0,
        image_dropout: float = 0.0,
        text_dropout: float = 0.0,
        image_norm: bool = True,
        text_norm: bool = False,
        text_project: bool = True,
    ) -> None:
        config: dict[str, Any] = {k: v for k, v in locals().items() if k not in ("self", "__class__")}
        super().__init__(config)
        self.image = Side(image_dim, dim, image_pool, image_source, True, image_hidden, image_dropout, image_norm)
        self.text = Side(text_dim, dim, text_pool, text_source, text_project, text_hidden, text_dropout, text_norm)

    @classmethod
    def reads(cls, side: str, options: dict[str, Any]) -> Source:
        """Which part of the backbone's tokens a side reads (see :meth:`Head.reads`)."""
        return options.get(f"{side}_source", "local")

    def prepare_queries(self, tokens: Tokens) -> Prepared:
        """Unit vectors of the texts (Q, D)."""
        return Prepared.from_pooled(self.text(tokens))

    def prepare_gallery(self, tokens: Tokens) -> Prepared:
        """Unit vectors of the images (G, D)."""
        return Prepared.from_pooled(self.image(tokens))
