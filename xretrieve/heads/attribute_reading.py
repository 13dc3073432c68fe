"""Attributes that both sides of a composed query are read for, so that each can be kept or changed by itself.

This project's own reading of the progressive learner's adaptive weights (see :mod:`xretrieve.heads.progressive`): the
second stage teaches how likely each value of each attribute is, and the weights of image and text are chosen for each
attribute: of "the same in red" the text gives the colour and the image everything else.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from xretrieve.errors import XRetrieveError, unknown
from xretrieve.heads.sides import Perceptron, unit
from xretrieve.utils.dropout import Dropout


@dataclass
class ReadingOptions:
    """How attributes are read.

    Args:
        image_hidden, text_hidden: widths between the two layers of the readers.
        image_dropout, text_dropout: after the ReLU.
        image_input_dropout: on the incoming image features.
        image_standardise: bring each incoming image feature to mean 0 and variance 1 over the training pictures.
        smoothing: label smoothing where the readers learn from tags.
        floor: probability added before the logarithm of the gallery side; a value that a picture cannot have costs no
            more than its logarithm.
        own: attributes that a reader of their own reads off pictures, from all image features.
        own_hidden: width between the two layers of such a reader.
        image_features: the other attributes are read off the first so many image features; 0: off all.
    """

    image_hidden: int = 512
    text_hidden: int = 256
    image_dropout: float = 0.5
    text_dropout: float = 0.1
    image_input_dropout: float = 0.3
    image_standardise: bool = True
    smoothing: float = 0.05
    floor: float = 0.001
    own: list[str] = field(default_factory=list)
    own_hidden: int = 256
    image_features: int = 0

    def __post_init__(self) -> None:
        for key, least, most in (("image_hidden", 1, math.inf), ("text_hidden", 1, math.inf), ("smoothing", 0, 1),
                                 ("own_hidden", 1, math.inf), ("image_features", 0, math.inf)):  # fmt: skip
            if not least <= getattr(self, key) <= most:
                raise XRetrieveError(f"head option reading.{key} is {getattr(self, key)}; it is from {least} to {most}")
        if not 0 < self.floor < 1:
            raise XRetrieveError(f"head option reading.floor is {self.floor}; it is above 0 and below 1")


class ImageReaders(nn.Module):
    """One perceptron for most attributes, off the first image features, and one for each of some, off all features.

    Features that say much about one attribute are noise for another: histograms of colours taught a reader of all
    attributes to read colours better, and articles worse.

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


class AttributeReading(nn.Module):
    """K attributes of A values in all, beside a vector of D channels that holds the rest.

    A gallery vector (G, D + A + 1) is [u ; log(1 + p_1 / floor) ; ... ; log(1 + p_K / floor) ; r] / length: u the unit
    vector of the picture, p_k the probabilities of its values of attribute k. r >= 0 brings all vectors to one length,
    which inner products with queries do not see (Bachrach et al., RecSys 2014), so they are cosines and any index fits.
    A query is [a_0 q_0 ; a_1 (w_I1 p_1 + w_T1 t_1) ; ... ; 0], of unit length: p of the reference picture, t of the
    text, a learned importances. Its score for attribute k is the expected log-probability of the value that is asked
    for: what the weights leave of the reference's values, and what they take of the text's.

    Args:
        image_dim, text_dim: widths of the backbones' pooled vectors.
        dim: D.
        values: attribute -> its values.
        options: of the readers.
        hidden: width of the hidden layer of the weights.
        dropout: there.
    """

    def __init__(self, image_dim: int, text_dim: int, dim: int, values: Mapping[str, Sequence[str]],
                 options: ReadingOptions, hidden: int, dropout: float) -> None:  # fmt: skip
        super().__init__()
        self.dim, self.options = dim, options
        self.names, self.sizes = list(values), [len(known) for known in values.values()]
        total = sum(self.sizes)
        self.image: nn.Module
        if options.own or options.image_features:
            self.image = ImageReaders(image_dim, self.names, self.sizes, options)
        else:
            self.image = Perceptron(image_dim, options.image_hidden, total, options.image_dropout,
                                    options.image_standardise, options.image_input_dropout)  # fmt: skip
        self.text = Perceptron(text_dim, options.text_hidden, total, options.text_dropout)
        groups = 1 + len(self.sizes)
        last = nn.Linear(hidden, 2 * groups)
        nn.init.zeros_(last.weight), nn.init.zeros_(last.bias)
        self.weigh = nn.Sequential(nn.Linear(dim + total, hidden), nn.ReLU(), Dropout(dropout), last)
        self.importance = nn.Parameter(torch.zeros(groups))
        self.log_scale = nn.Parameter(torch.tensor(math.log(7.0)))
        self.length = math.sqrt(1 + sum(longest(size, options.floor) for size in self.sizes))

    @property
    def width(self) -> int:
        """Of gallery vectors and queries."""
        return self.dim + sum(self.sizes) + 1

    def split(self, raw: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Raw vectors (N, D + A) to unit vectors (N, D) and the probabilities (N, A_k) of each attribute."""
        free, *logits = raw.float().split([self.dim, *self.sizes], 1)
        return unit(free), [each.softmax(1) for each in logits]

    def gallery(self, raw: Tensor) -> Tensor:
        """Gallery vectors (G, D + A + 1) of unit length, from raw ones (G, D + A)."""
        free, read = self.split(raw)
        inner = torch.cat([free, *(torch.log1p(p / self.options.floor) for p in read)], 1)
        rest = (self.length**2 - inner.square().sum(1, keepdim=True)).clamp(min=0).sqrt()
        return torch.cat([inner, rest], 1) / self.length

    def alone(self, raw: Tensor, text: bool) -> Tensor:
        """The query (N, D + A + 1) of one side alone. A text that describes a picture is its vector only: what it does
        not say has no value."""
        free, read = self.split(raw)
        a = self.importance.exp()
        parts = [torch.zeros_like(p) if text else a[k + 1] * p for k, p in enumerate(read)]
        return unit(torch.cat([a[0] * free, *parts, free.new_zeros(len(free), 1)], 1))

    def compose(self, image: Tensor, text: Tensor) -> tuple[Tensor, Tensor]:
        """Queries (B, D + A + 1), and the weights (B, 2, 1 + K) of image and text: of the vector, then each attribute.

        Args:
            image, text: raw vectors (B, D + A).
        """
        (u, read), (s, said) = self.split(image), self.split(text)
        h = torch.cat([s, *said], 1)  # (B,D+A): which attributes a text changes does not depend on the picture
        w = self.weigh(h).float().view(len(h), 2, -1).softmax(1)  # (B,2,1+K)
        a = self.importance.float().exp()
        parts = [a[0] * (w[:, 0, :1] * u + w[:, 1, :1] * s)]
        for k, (p, t) in enumerate(zip(read, said, strict=True), start=1):
            parts.append(a[k] * (w[:, 0, k, None] * p + w[:, 1, k, None] * t))
        return unit(torch.cat([*parts, u.new_zeros(len(u), 1)], 1)), w

    def logits(self, query: Tensor, target: Tensor) -> Tensor:
        """Training logits (B, P) of queries (B, D + A + 1) and gallery vectors (P, D + A + 1)."""
        with torch.autocast(query.device.type, enabled=False):
            return self.log_scale.exp() * self.length * query.float() @ target.float().T

    def loss(
        self, raw: Tensor, tags: Sequence[str], value: Tensor, known: Tensor,
        join: Callable[[Tensor], Tensor] = lambda part: part,
    ) -> Tensor:  # fmt: skip
        """How badly the values of pictures are read: cross-entropy, a mean over the known ones of each attribute, the
        sum over the attributes ().

        Args:
            raw: (N, D + A).
            tags: ``attribute=value`` of each column of the next two, those of an attribute in the order of its values.
            value, known: (N, T) bool, see :class:`~xretrieve.training.triplet_data.Tags`.
            join: rows of this process to those of all, with gradients: the means are then over all of them.
        """
        logits = raw.float().split([self.dim, *self.sizes], 1)[1:]
        total = raw.new_zeros((), dtype=torch.float32)
        for name, given in zip(self.names, logits, strict=True):
            own = [i for i, tag in enumerate(tags) if tag.startswith(f"{name}=")]
            here = known[:, own].all(1) & value[:, own].any(1)  # (N,)
            right = value[:, own].int().argmax(1)
            each = F.cross_entropy(given, right, label_smoothing=self.options.smoothing, reduction="none")
            wrong, count = join((each * here).sum()[None]), join(here.sum()[None].float())
            total = total + wrong.sum() / count.sum().clamp(min=1)
        return total


def longest(size: int, floor: float) -> float:
    """The largest squared length of log(1 + p / floor) over all probabilities of ``size`` values.

    Its square is convex near 0 and concave above, so at the maximum the probability is even over some m values, and the
    maximum over real m in [1, size] is a bound for all of them.

    >>> round(longest(1, 0.001), 4) == round(float(np.log1p(1000) ** 2), 4)
    True
    """
    m = np.linspace(1, size, 100_000)
    return float((m * np.log1p(1 / (m * floor)) ** 2).max()) * (1 + 1e-6)


def checked_values(given: Any) -> dict[str, list[str]]:
    """Head option ``attributes`` as attribute -> values; one that is not filled in is an error."""
    if not isinstance(given, Mapping) or not all(isinstance(v, (list, tuple)) and len(v) > 1 for v in given.values()):
        raise XRetrieveError(
            f"head option 'attributes' is {given!r}; a head needs each attribute with at least two values. In a recipe "
            "it is a list of attributes, whose values training takes from the dataset's tags"
        )
    return {str(name): [str(v) for v in values] for name, values in given.items()}
