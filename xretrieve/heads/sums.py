"""Baselines without learned composition: one modality alone, the sums, and a constant weight."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from xretrieve.errors import XRetrieveError
from xretrieve.heads.composed import Composed, ComposedHead, raw_of, unit
from xretrieve.tokens import Prepared


class ImageOnly(ComposedHead):
    """The reference image is the query; the text is ignored.

    Args:
        image_dim, text_dim: widths of what the backbones give.
        dim: D, width of the joint space; 0 where the backbones share one.
        sides: how the backbones come into it, keys of :class:`~xretrieve.heads.sides.SideOptions`.
        scale: see :class:`~xretrieve.heads.composed.ComposedHead`.
    """

    name = "image_only"
    share = 1.0

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

    def compose(self, image: Prepared, text: Prepared) -> Composed:
        """q = u, or q = s."""
        own = image if self.share else text
        return Composed(own.pooled, image.pooled.new_tensor([self.share, 1 - self.share]).expand(len(image), 2))


class TextOnly(ImageOnly):
    """The text is the query; the reference image is ignored. Arguments as for :class:`ImageOnly`."""

    name = "text_only"
    share = 0.0


class Sum(ComposedHead):
    """The normalised sum of image and text.

    Args:
        image_dim, text_dim, dim, sides, scale: as for :class:`ImageOnly`.
        raw: add raw vectors, so that the longer one dominates (CLIP4Cir's baseline, ``sum_raw``), not unit vectors.
    """

    name = "sum"

    def __init__(
        self,
        image_dim: int,
        text_dim: int,
        dim: int = 0,
        sides: dict[str, Any] | None = None,
        scale: float | str = "learned",
        raw: bool = False,
    ) -> None:
        super().__init__({"image_dim": image_dim, "text_dim": text_dim, "dim": dim, "sides": sides, "scale": scale,
                          "raw": raw}, scale)  # fmt: skip
        self.raw = raw

    def compose(self, image: Prepared, text: Prepared) -> Composed:
        """q = N(u + s), or N(i + t)."""
        if not self.raw:
            half = image.pooled.new_full((len(image), 2), 0.5)
            return Composed(unit(image.pooled + text.pooled), half)
        i, t = raw_of(image), raw_of(text)  # (B,D)
        lengths = torch.stack([i.norm(dim=1), t.norm(dim=1)], 1)  # (B,2): their part in the sum
        return Composed(unit(i + t), lengths / lengths.sum(1, keepdim=True).clamp(min=1e-12))


class Constant(ComposedHead):
    """One weight for all queries: q = N(v u + (1 - v) s), v chosen on validation (:meth:`choices`).

    Args:
        image_dim, text_dim, dim, sides, scale: as for :class:`ImageOnly`.
        weight: v until it is chosen, the weight of the image.
    """

    name = "constant"

    def __init__(
        self,
        image_dim: int,
        text_dim: int,
        dim: int = 0,
        sides: dict[str, Any] | None = None,
        scale: float | str = "learned",
        weight: float = 0.5,
    ) -> None:
        super().__init__({"image_dim": image_dim, "text_dim": text_dim, "dim": dim, "sides": sides, "scale": scale,
                          "weight": weight}, scale)  # fmt: skip
        self.register_buffer("weight", check_weight(weight))
        self.weight: Tensor

    def choices(self) -> list[float]:
        """The values of v that validation tries, best first among equals: nearest to 0.5, then the smaller."""
        return choices()

    def compose(self, image: Prepared, text: Prepared) -> Composed:
        """q = N(v u + (1 - v) s)."""
        query = unit(self.weight * image.pooled + (1 - self.weight) * text.pooled)
        return Composed(query, torch.stack([self.weight, 1 - self.weight]).expand(len(image), 2))


def choices() -> list[float]:
    """0, 0.05, ..., 1 in the order of preference among equals.

    >>> choices()[:4], len(choices())
    ([0.5, 0.45, 0.55, 0.4], 21)
    """
    return [v / 20 for v in sorted(range(21), key=lambda v: (abs(v - 10), v))]


def check_weight(weight: float) -> Tensor:
    """A weight of the image as a tensor (); outside 0 to 1 is an error."""
    if not 0 <= weight <= 1:
        raise XRetrieveError(f"head option weight is {weight}; the weight of the image lies between 0 and 1")
    return torch.tensor(float(weight))
