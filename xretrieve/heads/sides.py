"""One side of a composed query: what a backbone gives becomes one raw vector of the joint space.

"Raw" is before unit length: TIRG and the Combiner read lengths too, so nothing is normalised early.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, Protocol

import torch.nn.functional as F
from torch import Tensor, nn

from xretrieve.errors import XRetrieveError, unknown
from xretrieve.heads.dual import Side, Source
from xretrieve.tokens import Tokens
from xretrieve.utils.dropout import Dropout

PROJECTIONS = ("none", "linear", "perceptron", "dual")


def unit(x: Tensor) -> Tensor:
    """``x / max(||x||, 1e-12)`` row by row; a zero row stays zero. (..., D)."""
    return F.normalize(x, dim=-1, eps=1e-12)


class RawSide(Protocol):
    """Gives raw vectors (N, D)."""

    def raw(self, tokens: Tokens) -> Tensor:
        """Of tokens (N, L, F) with pooled (N, F)."""


@dataclass
class SideOptions:
    """How the two backbones come into one space, and what of them is read.

    Args:
        projection: ``none`` (both backbones end in one space already), ``linear`` (one bias-free map per side, normal
            with std width^-0.5), ``perceptron`` (two layers with ReLU and dropout), or ``dual`` (the sides of head
            ``dual``, under the same names: a run of that head can be the start).
        image_source, text_source: the backbone's ``pooled`` vector, or its ``local`` tokens, pooled here (``dual``).
        image_pool, text_pool: with ``local``: how (see :mod:`xretrieve.heads.pooling`).
        image_hidden, text_hidden: with ``perceptron``: width between the layers, 0 for twice the joint width; with
            ``dual`` that of its residual perceptron, 0 for none.
        image_dropout, text_dropout: with ``perceptron`` after the ReLU, with ``dual`` on the incoming features.
        image_norm, text_norm: LayerNorm of the incoming features (``dual``).
        image_standardise: with ``perceptron``: bring each incoming image feature to mean 0 and variance 1 over the
            training pictures (features of several layers have very uneven scales).
        image_input_dropout: with ``perceptron``: dropout on the incoming image features.
        text_project: with ``dual``: False when the text backbone already ends in the joint width.
    """

    projection: str = "linear"
    image_source: Literal["pooled", "local"] = "pooled"
    text_source: Literal["pooled", "local"] = "pooled"
    image_pool: str = "mean"
    text_pool: str = "mean"
    image_hidden: int = 0
    text_hidden: int = 0
    image_dropout: float = 0.0
    text_dropout: float = 0.0
    image_norm: bool = True
    text_norm: bool = False
    image_standardise: bool = False
    image_input_dropout: float = 0.0
    text_project: bool = True

    def __post_init__(self) -> None:
        if self.projection not in PROJECTIONS:
            raise unknown("projection", str(self.projection), PROJECTIONS)
        for side in ("image", "text"):
            if self.projection != "dual" and self.source(side) != "pooled":
                raise XRetrieveError(
                    f"head option 'sides.{side}_source' is {self.source(side)!r}: projection {self.projection!r} reads "
                    "pooled vectors; take projection 'dual', which pools local tokens"
                )

    def source(self, side: str) -> Source:
        """What is read of the backbone of ``side``."""
        return getattr(self, f"{side}_source")

    def build(self, side: str, width: int, dim: int) -> nn.Module:
        """The module of one side, from ``width`` to ``dim``."""
        own: dict[str, Any] = {key: getattr(self, f"{side}_{key}") for key in ("hidden", "dropout")}
        if self.projection == "none":
            return Shared()
        if self.projection == "linear":
            return Linear(width, dim)
        if self.projection == "perceptron":
            incoming = (self.image_standardise, self.image_input_dropout) if side == "image" else ()
            return Perceptron(width, own["hidden"] or 2 * dim, dim, own["dropout"], *incoming)
        project = side == "image" or self.text_project
        pool, norm = getattr(self, f"{side}_pool"), getattr(self, f"{side}_norm")
        return Side(width, dim, pool, self.source(side), project, norm=norm, **own)


class Shared(nn.Module):
    """The backbone's own pooled vector."""

    def raw(self, tokens: Tokens) -> Tensor:
        """(N, D) float32."""
        return tokens.pooled.float()


class Linear(nn.Module):
    """A bias-free map that keeps the length of a random vector on average."""

    def __init__(self, width: int, dim: int) -> None:
        super().__init__()
        self.map = nn.Linear(width, dim, bias=False)
        nn.init.normal_(self.map.weight, std=width**-0.5)

    def raw(self, tokens: Tokens) -> Tensor:
        """(N, D) float32."""
        return self.map(tokens.pooled).float()


class Perceptron(nn.Module):
    """Two layers.

    Args:
        width, hidden, dim: of the incoming features, between the layers, and of the outcome.
        dropout: after the ReLU.
        standardise: bring each incoming feature to mean 0 and variance 1, measured in training (batch norm without
            learned numbers).
        input_dropout: on the incoming features.
    """

    def __init__(self, width: int, hidden: int, dim: int, dropout: float, standardise: bool = False,
                 input_dropout: float = 0.0) -> None:  # fmt: skip
        super().__init__()
        self.incoming = nn.Sequential(
            nn.BatchNorm1d(width, affine=False) if standardise else nn.Identity(), Dropout(input_dropout)
        )
        self.layers = nn.Sequential(nn.Linear(width, hidden), nn.ReLU(), Dropout(dropout), nn.Linear(hidden, dim))

    def raw(self, tokens: Tokens) -> Tensor:
        """(N, D) float32."""
        return self(tokens.pooled)

    def forward(self, features: Tensor) -> Tensor:
        """(N, D) float32 from (N, F)."""
        return self.layers(self.incoming(features)).float()
