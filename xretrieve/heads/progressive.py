"""The progressive composer, inspired by Zhao, Song and Jin, "Progressive Learning for Image Retrieval with
Hybrid-Modality Queries" (SIGIR 2022, arXiv 2204.11212).

The paper's abstract fixes three learning stages and self-supervised adaptive weights of image and text for each query;
every equation, width and start value here is this project's own reading.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import Any, Literal

import torch
from torch import Tensor, nn

from xretrieve.config import from_dict
from xretrieve.errors import XRetrieveError, unknown
from xretrieve.heads.attribute_reading import AttributeReading, ReadingOptions, checked_values
from xretrieve.heads.composed import Composed, ComposedHead, cosines, raw_of, unit
from xretrieve.heads.sums import check_weight, choices
from xretrieve.tokens import Prepared, Tokens
from xretrieve.utils.dropout import Dropout

WEIGHTS = ("half", "constant", "adaptive")


class Progressive(ComposedHead):
    """Weights of image and text for each query, and a residual beside the weighted sum.

    A new head is the normalised sum of unit vectors exactly: the last layer of the weights and rho start at zero.

    With ``attributes`` the weights are chosen for each attribute: both sides are read for its values, the query and
    the gallery vectors hold them beside the D channels (see :class:`~xretrieve.heads.attribute_reading.
    AttributeReading`), and the weights that are shown and taught are the means over the attributes. There is no
    residual then: it would have to guess what the readings already say.

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
        attributes: attribute -> its values; in a recipe a list of attributes, filled from the dataset's tags.
        reading: of the attributes, keys of :class:`~xretrieve.heads.attribute_reading.ReadingOptions`.
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
        attributes: dict[str, list[str]] | None = None,
        reading: dict[str, Any] | None = None,
    ) -> None:
        config: dict[str, Any] = {k: v for k, v in locals().items() if k not in ("self", "__class__")}
        super().__init__(config, scale)
        if weights not in WEIGHTS:
            raise unknown("weights", str(weights), WEIGHTS)
        both, width = 2 * self.dim, hidden or 2 * self.dim
        self.how, self.channels = weights, self.dim if channels else 1
        self.weigh: nn.Sequential | None = None
        self.correct: nn.Sequential | None = None
        if attributes:
            self._read(checked_values(attributes), reading, width, dropout)
            return
        if reading:
            raise XRetrieveError("head option 'reading' is of 'attributes', and there are none; leave it out")
        if weights == "adaptive":
            last = nn.Linear(width, 2 * self.channels)
            nn.init.zeros_(last.weight), nn.init.zeros_(last.bias)
            self.weigh = nn.Sequential(nn.Linear(both, width), nn.ReLU(), Dropout(dropout), last)
        else:
            self.register_buffer("weight", check_weight(0.5))
        if residual:
            layers = nn.Linear(both, width), nn.ReLU(), Dropout(dropout), nn.Linear(width, self.dim)
            self.correct = nn.Sequential(*layers)
            self.rho = nn.Parameter(torch.zeros(()))

    def _read(self, values: dict[str, list[str]], options: Any, width: int, dropout: float) -> None:
        config = self.config
        if config["weights"] != "adaptive" or config["residual"] or config["channels"]:
            raise XRetrieveError("head option 'attributes' goes with weights: adaptive, residual: false and channels: "
                                 "false: the weights are those of the attributes")  # fmt: skip
        told = from_dict(ReadingOptions, options or {}, "head option reading")
        self.config["reading"] = asdict(told)
        self.reading = AttributeReading(config["image_dim"], config["text_dim"], self.dim, values, told, width, dropout)

    # one side, read for attributes -------------------------------------------------------------------------------

    def prepare_queries(self, tokens: Tokens) -> Prepared:
        """As for every head of composed queries; read for attributes, ``local`` is (Q, 1, D + A)."""
        made = super().prepare_queries(tokens)
        if self.reading is None:
            return made
        raw = torch.cat([raw_of(made), self.reading.text(tokens.pooled)], 1)
        return Prepared(raw[:, None], made.mask, self.reading.alone(raw, text=True))

    def prepare_gallery(self, tokens: Tokens) -> Prepared:
        """As for every head of composed queries; read for attributes, ``local`` is (G, 1, D + A)."""
        made = super().prepare_gallery(tokens)
        if self.reading is None:
            return made
        raw = torch.cat([raw_of(made), self.reading.image(tokens.pooled)], 1)
        return Prepared(raw[:, None], made.mask, self.reading.gallery(raw))

    def image_query(self, image: Prepared) -> Prepared:
        """A picture as the whole query: what looks like it, and has its attributes."""
        if self.reading is None or not image.local.shape[1]:
            return super().image_query(image)
        with self.graph(image):
            return Prepared.from_pooled(self.reading.alone(raw_of(image), text=False))

    def attribute_weights(self, image: Prepared, text: Prepared) -> dict[str, Tensor]:
        """Attribute -> (B, 2), how much of the image and of the text; ``other`` is what no attribute says."""
        if self.reading is None:
            return {}
        each = self._made(image, text).trace["attribute_weights"]  # (B,2,1+K)
        return dict(zip(["other", *self.reading.names], each.unbind(-1), strict=True))

    def alone(self, side: str, prepared: Prepared) -> Tensor:
        """Queries (N, D') that ask with one side only (weight labels compare them)."""
        if self.reading is None:
            return super().alone(side, prepared)
        return self.reading.alone(raw_of(prepared), side == "text")

    def logits(self, query: Tensor, target: Tensor) -> Tensor:
        """Logits of composed queries and targets, read for attributes with a scale of their own."""
        return super().logits(query, target) if self.reading is None else self.reading.logits(query, target)

    def single_logits(self, query: Tensor, target: Tensor) -> Tensor:
        """Logits of stage 2; read for attributes, those of the D channels: attributes have a loss of their own."""
        if self.reading is None:
            return super().single_logits(query, target)
        return self.scale() * cosines(unit(query[:, : self.dim]), unit(target[:, : self.dim]))

    # the query ---------------------------------------------------------------------------------------------------

    def choices(self) -> list[float]:
        """Values of a constant weight that validation tries; none for other weights."""
        return choices() if self.how == "constant" else []

    def compose(self, image: Prepared, text: Prepared) -> Composed:
        """q = N(w_I u + w_T s + rho r([u; s])); read for attributes as :class:`AttributeReading` says."""
        if self.reading is not None:
            query, each = self.reading.compose(raw_of(image), raw_of(text))
            told = each.mean(-1)  # (B,2)
            return Composed(query, told, told.log(), {"attribute_weights": each})
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
