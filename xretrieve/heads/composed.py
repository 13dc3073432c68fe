"""What heads for composed queries share: raw vectors of both sides, one composed vector, and the logit scale.

A composed query is one vector of unit length, and gallery vectors do not depend on it, so any index answers.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, nn

from xretrieve.config import from_dict
from xretrieve.errors import XRetrieveError
from xretrieve.heads.base import Head
from xretrieve.heads.sides import RawSide, SideOptions, unit
from xretrieve.tokens import Prepared, Tokens

if TYPE_CHECKING:
    from xretrieve.heads.attribute_reading import AttributeReading

LARGEST = 100.0  # of the logit scale, as in CLIP


@dataclass
class Composed:
    """What a head made of B reference images and texts.

    Args:
        query: (B, D), unit length.
        weights: (B, 2), how much of the image and of the text is in it; they sum to 1. None where nothing says so.
        log_weights: (B, 2), their logarithms where they are learned (weight labels teach them).
        trace: intermediate arrays by their published names.
    """

    query: Tensor
    weights: Tensor | None = None
    log_weights: Tensor | None = None
    trace: dict[str, Tensor] = field(default_factory=dict)


class ComposedHead(Head):
    """Reference image and modification text become one vector.

    Args:
        config: the keyword arguments of the head.
        scale: of the logits in training: a number, or ``learned`` from 1 / 0.07, at most 100. It is carried from stage
            to stage; rankings do not depend on it.

    Prepared tokens hold the unit vector in ``pooled`` (N, D) and the raw one in ``local`` (N, 1, D). ``reading`` is
    what a head reads attributes with, None where it reads none.
    """

    tasks = ("composed",)

    def __init__(self, config: dict[str, Any], scale: float | str = "learned") -> None:
        super().__init__(config)
        self.reading: AttributeReading | None = None
        sides, dims = self.sides(config), (config["image_dim"], config["text_dim"])
        if not config["dim"] and dims[0] != dims[1]:
            raise XRetrieveError(
                f"head {self.name!r} without 'dim' needs backbones that share a space; the image side gives {dims[0]} "
                f"and the text side {dims[1]} dimensions. Give dim, the width of a space that both are projected into"
            )
        self.dim: int = config["dim"] or dims[0]
        self.image, self.text = (sides.build(s, d, self.dim) for s, d in zip(("image", "text"), dims, strict=True))
        if scale != "learned" and not (isinstance(scale, (int, float)) and 0 < scale < math.inf):
            raise XRetrieveError(f"head {self.name!r}: option scale is {scale!r}; write 'learned' or a number above 0")
        self.fixed_scale = None if scale == "learned" else float(scale)
        self.log_scale = nn.Parameter(torch.tensor(math.log(self.fixed_scale or 1 / 0.07)))
        self.log_scale.requires_grad_(self.fixed_scale is None)

    @staticmethod
    def sides(options: dict[str, Any]) -> SideOptions:
        """Options of the two sides; without ``dim`` nothing is projected."""
        given = dict(options.get("sides") or {})
        if not options.get("dim"):
            wrong = given.pop("projection", "none")
            if wrong != "none":
                raise XRetrieveError(f"head option 'sides.projection' is {wrong!r}, but no 'dim' says to what width")
            given["projection"] = "none"
        elif given.get("projection") == "none":
            raise XRetrieveError("head option 'dim' is for backbones that are projected; leave it out, or the "
                                 "projection 'none'")  # fmt: skip
        return from_dict(SideOptions, given, "head option sides")

    @classmethod
    def reads(cls, side: str, options: dict[str, Any]) -> str:
        """Which part of the backbone's tokens a side reads (see :meth:`Head.reads`)."""
        return cls.sides(options).source(side)

    def constants(self) -> Iterable[nn.Parameter]:
        """A fixed scale never learns."""
        return [] if self.fixed_scale is None else [self.log_scale]

    # one side ----------------------------------------------------------------------------------------------------

    def prepare_queries(self, tokens: Tokens) -> Prepared:
        """Unit vectors of texts (Q, D), with the raw ones."""
        return with_raw(cast(RawSide, self.text).raw(tokens))

    def prepare_gallery(self, tokens: Tokens) -> Prepared:
        """Unit vectors of images (G, D), with the raw ones."""
        return with_raw(cast(RawSide, self.image).raw(tokens))

    # the query ---------------------------------------------------------------------------------------------------

    @abstractmethod
    def compose(self, image: Prepared, text: Prepared) -> Composed:
        """Row i of both sides becomes query i. Both (B, ...)."""

    def combine_image_text(self, image: Prepared, text: Prepared) -> Prepared:
        """Reference images (B rows) and texts (B rows) become B queries."""
        return Prepared.from_pooled(self._made(image, text).query)

    def query_weights(self, image: Prepared, text: Prepared) -> Tensor | None:
        """(B, 2): how much of the image and of the text is in each query; None where the head has no weights."""
        return self._made(image, text).weights

    def alone(self, side: str, prepared: Prepared) -> Tensor:
        """Queries (N, D) that ask with one side only, ``image`` or ``text``: its unit vectors."""
        return prepared.pooled

    def _made(self, image: Prepared, text: Prepared) -> Composed:
        self.check_sides(image, text)
        with self.graph(image, text):
            return self.compose(image, text)

    @staticmethod
    def graph(*sides: Prepared) -> Any:
        """A context that records no gradients where what is prepared comes from a matcher (inference mode)."""
        stored = any(side.pooled.is_inference() for side in sides)
        return torch.set_grad_enabled(torch.is_grad_enabled() and not stored)

    def check_sides(self, image: Prepared, text: Prepared) -> None:
        """An error when a side lost its raw vectors, or the rows do not pair up."""
        if not (image.local.shape[1] and text.local.shape[1]):
            raise XRetrieveError(
                f"head {self.name!r} composes raw vectors, but these prepared items hold none; prepare them with this "
                "head and keep their local tokens"
            )
        if len(image) != len(text):
            raise XRetrieveError(f"head {self.name!r}: {len(image)} reference images and {len(text)} texts; row i of "
                                 "both makes query i")  # fmt: skip

    # training ----------------------------------------------------------------------------------------------------

    def scale(self) -> Tensor:
        """k (), the logit scale of all stages."""
        with torch.no_grad():  # not inside the graph: a clamp there would stop the gradient at the limit for good
            self.log_scale.clamp_(max=math.log(max(LARGEST, self.fixed_scale or 0)))
        return self.log_scale.exp()

    def match_scale(self) -> Tensor:
        """What cosines of composed queries and targets are multiplied by (); TIRG and DQU bring their own."""
        return self.scale()

    def logits(self, query: Tensor, target: Tensor) -> Tensor:
        """Logits of composed queries (B, D) and targets (P, D), both of unit length."""
        return self.match_scale() * cosines(query, target)

    def single_logits(self, query: Tensor, target: Tensor) -> Tensor:
        """Logits of single-modality queries (B, D) and targets (P, D), both of unit length (stage 2)."""
        return self.scale() * cosines(query, target)


def cosines(a: Tensor, b: Tensor) -> Tensor:
    """Inner products (B, P) of rows of unit length, float32 whatever precision is in force."""
    with torch.autocast(a.device.type, enabled=False):
        return a.float() @ b.float().T


def with_raw(raw: Tensor) -> Prepared:
    """Raw vectors (N, D) with their unit vectors."""
    return Prepared(raw[:, None], raw.new_ones(len(raw), 1, dtype=torch.bool), unit(raw))


def raw_of(prepared: Prepared) -> Tensor:
    """The raw vectors (N, D) of :func:`with_raw`."""
    return prepared.local[:, 0]
