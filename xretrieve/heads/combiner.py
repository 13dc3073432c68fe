"""The Combiner of CLIP4Cir (Baldrati et al., CVPR Workshops 2022; github.com/ABaldrati/CLIP4Cir).

Text and image are projected, a gate mixes their raw vectors, and a residual is learned beside. Text comes first in the
concatenation, and the gate multiplies the text.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from xretrieve.heads.composed import Composed, ComposedHead, raw_of, unit
from xretrieve.tokens import Prepared
from xretrieve.utils.dropout import Dropout


class CombinerNetwork(nn.Module):
    """The published module; parameter names are those of its checkpoints.

    Args:
        dim: D, width of the features.
        projection: P, width of the two projections.
        hidden: H, width of the hidden layers.
        dropout: at four places, training only.
    """

    def __init__(self, dim: int, projection: int, hidden: int, dropout: float = 0.5) -> None:
        super().__init__()
        self.text_projection_layer = nn.Linear(dim, projection)
        self.image_projection_layer = nn.Linear(dim, projection)
        self.combiner_layer = nn.Linear(2 * projection, hidden)
        self.output_layer = nn.Linear(hidden, dim)
        self.dynamic_scalar = nn.Sequential(
            nn.Linear(2 * projection, hidden), nn.ReLU(), Dropout(dropout), nn.Linear(hidden, 1), nn.Sigmoid()
        )
        self.drops = nn.ModuleList([Dropout(dropout) for _ in range(3)])

    def forward(self, image: Tensor, text: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Queries (B, D) of unit length and the arrays between, from raw features (B, D)."""
        projected_text = self.drops[0](self.text_projection_layer(text).relu())  # (B,P)
        projected_image = self.drops[1](self.image_projection_layer(image).relu())  # (B,P)
        h = torch.cat([projected_text, projected_image], -1)  # (B,2P)
        hidden = self.drops[2](self.combiner_layer(h).relu())  # (B,H)
        residual = self.output_layer(hidden)  # (B,D)
        gate = self.dynamic_scalar(h)  # (B,1)
        query = unit(residual + gate * text + (1 - gate) * image)  # (B,D)
        return query, {"text_projected": projected_text, "image_projected": projected_image, "hidden": hidden,
                       "residual": residual, "gate": gate}  # fmt: skip


class Combiner(ComposedHead):
    """:class:`CombinerNetwork` over two backbones.

    Args:
        image_dim, text_dim: widths of what the backbones give.
        dim: D, width of the joint space; 0 where the backbones share one.
        sides: how the backbones come into it, keys of :class:`~xretrieve.heads.sides.SideOptions`.
        scale: of the logits; the published runs fix 100.
        projection: P, 0 for 4 D.
        hidden: H, 0 for 8 D.
        dropout: training only.
    """

    name = "combiner"

    def __init__(
        self,
        image_dim: int,
        text_dim: int,
        dim: int = 0,
        sides: dict[str, Any] | None = None,
        scale: float | str = 100.0,
        projection: int = 0,
        hidden: int = 0,
        dropout: float = 0.5,
    ) -> None:
        super().__init__({"image_dim": image_dim, "text_dim": text_dim, "dim": dim, "sides": sides, "scale": scale,
                          "projection": projection, "hidden": hidden, "dropout": dropout}, scale)  # fmt: skip
        self.network = CombinerNetwork(self.dim, projection or 4 * self.dim, hidden or 8 * self.dim, dropout)

    def compose(self, image: Prepared, text: Prepared) -> Composed:
        """The weights are (1 - gate, gate)."""
        query, trace = self.network(raw_of(image), raw_of(text))
        gate = trace["gate"]  # (B,1)
        return Composed(query, torch.cat([1 - gate, gate], 1), trace=trace)
