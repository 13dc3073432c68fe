"""TIRG, "text image residual gating" (Vo et al., CVPR 2019; github.com/google/tirg).

A sigmoid gate keeps channels of the image, a residual writes the change. Image comes first in the concatenation. The
original text side is an embedding with an LSTM; here the backbone's text vector takes its place.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from xretrieve.errors import XRetrieveError
from xretrieve.heads.composed import Composed, ComposedHead, raw_of, unit
from xretrieve.tokens import Prepared


class Scale(nn.Module):
    """The published normalisation layer: its one number c."""

    def __init__(self, start: float = 4.0) -> None:
        super().__init__()
        self.norm_s = nn.Parameter(torch.tensor([start]))


class TIRGNetwork(nn.Module):
    """The published module; parameter names are those of its checkpoints.

    Args:
        dim: D, width of the features.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.a = nn.Parameter(torch.tensor([1.0, 10.0, 1.0, 1.0]))  # the last two are never read, as published
        self.normalization_layer = Scale()
        self.gated_feature_composer = nn.Sequential(
            nn.Identity(), nn.BatchNorm1d(2 * dim), nn.ReLU(), nn.Linear(2 * dim, dim)
        )
        self.res_info_composer = nn.Sequential(
            nn.Identity(), nn.BatchNorm1d(2 * dim), nn.ReLU(), nn.Linear(2 * dim, 2 * dim), nn.ReLU(),
            nn.Linear(2 * dim, dim),
        )  # fmt: skip

    def forward(self, image: Tensor, text: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Composed vectors (B, D), not normalised, and the arrays between, from raw features (B, D)."""
        if self.training and len(image) < 2:
            raise XRetrieveError(
                "head 'tirg' needs at least two queries in training mode: its batch norms take the batch's statistics; "
                "call eval() for a single query"
            )
        x = torch.cat([image, text], -1)  # (B,2D)
        gate = self.gated_feature_composer(x)  # (B,D)
        residual = self.res_info_composer(x)  # (B,D)
        composed = self.a[0] * gate.sigmoid() * image + self.a[1] * residual
        return composed, {"gate_logits": gate, "residual": residual, "composed": composed}


class TIRG(ComposedHead):
    """:class:`TIRGNetwork` over two backbones.

    Args:
        image_dim, text_dim: widths of what the backbones give.
        dim: D, width of the joint space; 0 where the backbones share one.
        sides: how the backbones come into it, keys of :class:`~xretrieve.heads.sides.SideOptions`.
        scale: of the logits of stage 2; stage 3 has c squared, c learned from 4.
    """

    name = "tirg"

    def __init__(
        self,
        image_dim: int,
        text_dim: int,
        dim: int = 0,
        sides: dict[str, Any] | None = None,
        scale: float | str = "learned",
    ) -> None:
        super().__init__({"image_dim": image_dim, "text_dim": text_dim, "dim": dim, "sides": sides, "scale": scale},
                         scale)  # fmt: skip
        self.network = TIRGNetwork(self.dim)

    def match_scale(self) -> Tensor:
        """c squared (1,): both vectors have length c."""
        return self.network.normalization_layer.norm_s.square()

    def compose(self, image: Prepared, text: Prepared) -> Composed:
        """The weight of the image is the mean of its gate over the channels."""
        composed, trace = self.network(raw_of(image), raw_of(text))
        gate = trace["gate_logits"].sigmoid().mean(1, keepdim=True)  # (B,1)
        return Composed(unit(composed), torch.cat([gate, 1 - gate], 1), trace=trace)
