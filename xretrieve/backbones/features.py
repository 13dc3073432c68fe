"""``features``: raw feature vectors that were computed elsewhere, for pictures or for texts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from xretrieve.backbones.base import Backbone
from xretrieve.data.base import FeatureRow
from xretrieve.errors import XRetrieveError
from xretrieve.tokens import Tokens
from xretrieve.utils.arrays import load_npy


class Features(Backbone):
    """An item is a vector of ``dim`` numbers (array, tensor or list), or a row of an ``.npy`` file.

    Args:
        modality: which side of a matcher it stands on.
        dim: length of the vectors.
    """

    cacheable = False

    def __init__(self, modality: str, dim: int) -> None:
        super().__init__("features", modality, {"dim": dim})
        self.local_dim = self.pooled_dim = dim

    def prepare(self, items: Sequence[Any]) -> Tensor:
        """(N, dim) float32; an item of another kind or length is an error that names its place."""
        return torch.stack([self._read(place, item) for place, item in enumerate(items)])

    def example(self, items: int, tokens: int) -> Tensor:
        """Random vectors."""
        return torch.rand(items, self.pooled_dim, generator=torch.Generator().manual_seed(0))

    def _read(self, place: int, item: Any) -> Tensor:
        if isinstance(item, FeatureRow):
            item = load_npy(item.path, mmap_mode="r")[item.row]
        try:
            vector = torch.as_tensor(np.array(item, dtype=np.float32))
        except (TypeError, ValueError):
            vector = torch.zeros(())
        if vector.shape != (self.pooled_dim,):
            shown = type(item).__name__ if vector.ndim == 0 else f"array of shape {tuple(vector.shape)}"
            raise XRetrieveError(
                f"features: item {place} of the {self.modality}s is a {shown}, expected {self.pooled_dim} numbers: "
                "this matcher reads vectors that were computed elsewhere, no raw pictures or texts"
            )
        return vector

    def forward(self, batch: Tensor) -> Tokens:
        """The vectors as they are, pooled (N, dim)."""
        return Tokens.from_pooled(batch)


def create(
    rest: str = "", *, modality: str | None = None, weights: Any = None, assets: Any = None, dim: int = 512
) -> Features:
    """The ``features`` backbone of one side."""
    if rest:
        raise XRetrieveError(f"features:{rest}: write features, it has no variants")
    if modality not in ("image", "text"):
        raise XRetrieveError("features: say modality='image' or modality='text'")
    return Features(modality, dim)


def names() -> list[str]:
    """One name, ``features``."""
    return [""]
