"""Readers of the attributes of pictures that do not all see the same features.

Features that say much about one attribute are noise for another: histograms of colours taught a reader of all
attributes to read colours better, and articles worse.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from xretrieve.errors import XRetrieveError, unknown
from xretrieve.heads.sides import Perceptron

if TYPE_CHECKING:
    from xretrieve.heads.attribute_reading import ReadingOptions


class ImageReaders(nn.Module):
    """One perceptron for most attributes, off the first image features, and one for each of some, off all features.

    Args:
        width: F, of the image features.
        names: of the attributes.
        sizes: how many values each has.
        options: which attributes have a reader of their own (``own``), and what the others see (``image_features``).
    """

    def __init__(self, width: int, names: Sequence[str], sizes: Sequence[int], options: ReadingOptions) -> None:
        super().__init__()
        for name in options.own:
            if name not in names:
                raise unknown("head option reading.own", name, names)
        if options.image_features > width:
            raise XRetrieveError(f"head option reading.image_features is {options.image_features}; the image backbone "
                                 f"gives {width} features")  # fmt: skip
        self.alone = [name in options.own for name in names]
        self.first = options.image_features or width
        self.rest = [size for size, alone in zip(sizes, self.alone, strict=True) if not alone]
        tail = options.image_dropout, options.image_standardise, options.image_input_dropout
        self.shared = Perceptron(self.first, options.image_hidden, sum(self.rest), *tail) if self.rest else None
        self.own = nn.ModuleList(
            Perceptron(width, options.own_hidden, size, *tail)
            for size, alone in zip(sizes, self.alone, strict=True) if alone
        )  # fmt: skip

    def forward(self, features: Tensor) -> Tensor:
        """Logits (N, A) float32 of all values, in the order of the attributes, from features (N, F)."""
        shared = iter(self.shared(features[:, : self.first]).split(self.rest, 1) if self.shared is not None else ())
        own = iter(self.own)
        return torch.cat([next(own)(features) if alone else next(shared) for alone in self.alone], 1)
