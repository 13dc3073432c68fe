"""The convex gate of DQU-CIR (Wen et al., SIGIR 2024; github.com/haokunwen/DQU-CIR), without its rewriting of queries.

Text comes first in the concatenation, and the gate multiplies the text; both sides have unit length.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from xretrieve.heads.composed import Composed, ComposedHead, unit
from xretrieve.tokens import Prepared
from xretrieve.utils.dropout import Dropout


class DQUNetwork(nn.Module):
    """The published module; parameter names are those of its checkpoints.

    Args:
        dim: D, width of the features.
        dropout: training only.
    """

    def __init__(self, dim: int, dropout: float = 0.5) -> None:
        super().__init__()
        self.loss_weight = nn.Parameter(torch.tensor([10.0]))  # c: not exponentiated, not clamped
        self.combiner_fc = nn.Sequential(nn.Linear(2 * dim, dim), nn.ReLU())
        self.scaler_fc = nn.Sequential(
            nn.Linear(dim, dim), nn.ReLU(), Dropout(dropout), nn.Linear(dim, 1), nn.Sigmoid()
        )
        self.drop = Dropout(dropout)

    def forward(self, image: Tensor, text: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Queries (B, D) of unit length and the arrays between, from unit vectors (B, D)."""
        hidden = self.combiner_fc(torch.cat([text, image], -1))  # (B,D)
        gate = self.scaler_fc(self.drop(hidden))  # (B,1)
        return unit(gate * text + (1 - gate) * image), {"hidden": hidden, "gate": gate}


class DQU(ComposedHead):
    """:class:`DQUNetwork` over two backbones.

    Args:
        image_dim, text_dim: widths of what the backbones give.
        dim: D, width of the joint space; 0 where the backbones share one.
        sides: how the backbones come into it, keys of :class:`~xretrieve.heads.sides.SideOptions`.
        scale: of the logits of stage 2; stage 3 has its own, learned from 10.
        dropout: training only.
    """

    name = "dqu"

    def __init__(
        self,
        image_dim: int,
        text_dim: int,
        dim: int = 0,
        sides: dict[str, Any] | None = None,
        scale: float | str = "learned",
        dropout: float = 0.5,
    ) -> None:
        super().__init__({"image_dim": image_dim, "text_dim": text_dim, "dim": dim, "sides": sides, "scale": scale,
                          "dropout": dropout}, scale)  # fmt: skip
        self.network = DQUNetwork(self.dim, dropout)

    def match_scale(self) -> Tensor:
        """c (1,)."""
        return self.network.loss_weight

    def compose(self, image: Prepared, text: Prepared) -> Composed:
        """The weights are (1 - gate, gate)."""
        query, trace = self.network(image.pooled, text.pooled)
        gate = trace["gate"]  # (B,1)
        return Composed(query, torch.cat([1 - gate, gate], 1), trace=trace)
