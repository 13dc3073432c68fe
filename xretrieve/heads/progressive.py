"""The progressive composer, inspired by Zhao, Song and Jin, "Progressive Learning for Image Retrieval with
Hybrid-Modality Queries" (SIGIR 2022, arXiv 2204.11212).

The paper's abstract fixes three learning stages and self-supervised adaptive weights of image and text for each query;
every equation, width and start value here is this project's own reading.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor, nn

from xretrieve.errors import unknown
from xretrieve.heads.composed import Composed, ComposedHead, unit
from xretrieve.heads.sums import check_weight, choices
from xretrieve.tokens import Prepared
from xretrieve.utils.dropout import Dropout

WEIGHTS = ("half", "constant", "adaptive")


class Progressive(ComposedHead):
    """Weights of image and text for each query, and a residual beside the weighted sum.

    A new head is the normalised sum of unit vectors exactly: the last layer of the weights and rho start at zero.

    Args:
        image_dim, text_dim: widths of what the backbones give.
        dim: D, width of the joint space; 0 where the backbones share one.
        sides: how the backbones come into it, keys of :class:`~xretrieve.heads.sides.SideOptions`.
        scale: of the logits in training, ``learned`` or a number.
        weights: ``adaptive`` (for each query), ``constant`` (one for all, chosen on validation) or ``half``.
        channels: adaptive weights for each of the D channels; the weights that are shown and taught are their means.
        residual: learn a correction beside the weighted sum.
        hidden: width of the hidden layers, 0 for 2 D.
        dropout: in the hidden layers, training only.
    """

    name = "progressive"

    def __init__(
        self,
        image_dim: int,
        text_dim: int,
        dim: int = 0,
        sides: dict[str, Any] | None = None,
        scale: float | str = "learned",
        weights: Literal["half", "constant", "adaptive"] = "adaptive",
        channels: bool = False,
        residual: bool = True,
        hidden: int = 0,
        dropout: float = 0.5,
    ) -> None:
        config: dict[str, Any] = {k: v for k, v in locals().items() if k not in ("self", "__class__")}
        super().__init__(config, scale)
        if weights not in WEIGHTS:
            raise unknown("weights", str(weights), WEIGHTS)
        both, width = 2 * self.dim, hidden or 2 * self.dim
        self.how, self.channels = weights, self.dim if channels else 1
        self.weigh: nn.Sequential | None = None
        if weights == "adaptive":
            last = nn.Linear(width, 2 * self.channels)
            nn.init.zeros_(last.weight), nn.init.zeros_(last.bias)
            self.weigh = nn.Sequential(nn.Linear(both, width), nn.ReLU(), Dropout(dropout), last)
        else:
            self.register_buffer("weight", check_weight(0.5))
        self.correct: nn.Sequential | None = None
        if residual:
            layers = nn.Linear(both, width), nn.ReLU(), Dropout(dropout), nn.Linear(width, self.dim)
            self.correct = nn.Sequential(*layers)
            self.rho = nn.Parameter(torch.zeros(()))

    def choices(self) -> list[float]:
        """Values of a constant weight that validation tries; none for other weights."""
        return choices() if self.how == "constant" else []

    def compose(self, image: Prepared, text: Prepared) -> Composed:
        """q = N(w_I u + w_T s + rho r([u; s]))."""
        u, s = image.pooled, text.pooled  # (B,D)
        h = torch.cat([u, s], -1)  # (B,2D), image first
        weights, log_weights = self._weigh(h)  # (B,2,C)
        query = weights[:, 0] * u + weights[:, 1] * s  # (B,D)
        if self.correct is not None:
            query = query + self.rho * self.correct(h)
        mean = weights.mean(-1)  # (B,2)
        if log_weights is not None:
            log_weights = log_weights[..., 0] if self.channels == 1 else mean.log()
        return Composed(unit(query), mean, log_weights)

    def _weigh(self, h: Tensor) -> tuple[Tensor, Tensor | None]:
        """Weights (B, 2, C) with C = 1 or D, and their logarithms where they are learned."""
        if self.weigh is None:
            return torch.stack([self.weight, 1 - self.weight])[None, :, None].expand(len(h), 2, 1), None
        logs = self.weigh(h).view(len(h), 2, self.channels).log_softmax(1)  # (B,2,C)
        return logs.exp(), logs
