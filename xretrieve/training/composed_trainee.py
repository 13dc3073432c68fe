"""What a training step on composed queries runs: triplets (stage 3), or single modalities of the domain (stage 2)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from xretrieve.heads.composed import ComposedHead, raw_of
from xretrieve.tokens import Prepared, Tokens
from xretrieve.training.chunked import encode_chunked
from xretrieve.training.losses import SoftTriplet, Stats
from xretrieve.training.recipe import CompositionConfig, DomainConfig
from xretrieve.training.trainee import Trainee, hide_tokens
from xretrieve.training.weight_labels import label_losses, weight_labels

Hide = tuple[float, float]


class ComposedTrainee(Trainee):
    """Encodes both sides, in chunks where asked for."""

    head: ComposedHead
    chunk = 0

    def side(self, name: str, given: Any, hide: float) -> Prepared:
        """Prepared items of a side from their tokens, or from a prepared batch for its backbone."""
        backbone = getattr(self, name)
        tokens = given if isinstance(given, Tokens) else encode_chunked(backbone, given, self.chunk)
        tokens = hide_tokens(tokens, hide)
        return self.head.prepare_gallery(tokens) if name == "image" else self.head.prepare_queries(tokens)

    def matched(self, query: Tensor, target: Tensor, duplicates: Tensor, single: bool) -> tuple[Tensor, Stats]:
        """The recipe's loss of n queries and their n targets (unit vectors) of this process, over the whole batch."""
        goals = self.gather.rows(target)  # (P,D)
        if isinstance(self.loss, SoftTriplet):
            length = (self.head.scale() if single else self.head.match_scale()).abs().sqrt()
            return self.loss.of(length * self.gather.rows(query), length * goals, duplicates)
        make = self.head.single_logits if single else self.head.logits
        return self.loss(self.gather.rows(make(query, goals)), duplicates=duplicates)

    @property
    def masks(self) -> bool:
        """Whether duplicates are left out of the softmaxes."""
        return getattr(self.loss, "mask_duplicates", True)


class CompositionTrainee(ComposedTrainee):
    """Composed queries against their targets, and labels for the weights.

    Args:
        parts: as for :class:`Trainee`.
        config: of the stage.
        tags: names of the tags that pictures come with, where their attributes are read.
        chunk: items encoded at a time, 0 for all.
    """

    def __init__(self, *parts: Any, config: CompositionConfig, tags: Sequence[str] = (), chunk: int = 0) -> None:
        super().__init__(*parts)
        self.config, self.chunk = config, chunk
        self.tags = tags

    def forward(
        self, images: tuple[Any, ...], texts: Any, duplicates: Tensor, hide: Hide = (0.0, 0.0)
    ) -> tuple[Tensor, Stats]:
        """Loss () and numbers to log of one block.

        Args:
            images: the distinct pictures of this process's n triplets, and (2n,) which of them are the references, then
                the targets; where attributes are read also tags (N, A) bool and which of them are known (N, A) bool.
            texts: n modification texts.
            duplicates: (P, P) bool over the whole batch, see
                :func:`~xretrieve.training.triplet_data.triplet_duplicates`.
            hide: shares of image and text tokens to hide.
        """
        given, place, *told = images
        pictures, text = self.side("image", given, hide[0]), self.side("text", texts, hide[1])
        reference, target = pictures[place[: len(text)]], pictures[place[len(text) :]]
        made = self.head.compose(reference, text)
        loss, logged = self.matched(made.query, target.pooled, duplicates, single=False)
        if made.weights is not None:
            share = made.weights[:, 0].detach()
            logged |= {"weight_image": share.mean(), "weight_spread": share.std(correction=0)}
        config = self.config
        if config.label != "none" and config.label_weight and made.log_weights is not None:
            u, s = self.head.alone("image", reference), self.head.alone("text", text)
            taught = self._taught(u, s, target.pooled, made.log_weights, duplicates)
            loss = loss + config.label_weight * taught
            logged["label_loss"] = taught.detach()
        if told:
            assert self.head.reading is not None
            read = self.head.reading.loss(raw_of(pictures), self.tags, *told, join=self.gather.rows)
            loss = loss + config.attribute_weight * read
            logged["attribute_loss"] = read.detach()
        return loss, logged

    def _taught(self, u: Tensor, s: Tensor, g: Tensor, log_weights: Tensor, duplicates: Tensor) -> Tensor:
        """Mean divergence from the labels over the rows of the whole batch that have one; 0 without any."""
        rows, config = self.gather.rows, self.config
        label, known = weight_labels(
            rows(u), rows(s), rows(g), config.label, duplicates if self.masks else None, config.label_tau,
            config.label_kappa,
        )  # fmt: skip
        found = label_losses(rows(log_weights).float(), label) * known
        return found.sum() / known.sum().clamp(min=1)


class Attributes(nn.Module):
    """Tags read off an image's raw vector: one logit each.

    Args:
        dim: D.
        tags: A.
    """

    def __init__(self, dim: int, tags: int) -> None:
        super().__init__()
        self.read = nn.Linear(dim, tags)

    def set_epoch(self, epoch: int) -> None:
        """The same in every epoch."""

    def forward(
        self, raw: Tensor, value: Tensor, known: Tensor, join: Callable[[Tensor], Tensor] = lambda part: part
    ) -> Tensor:
        """Binary cross-entropy over the known entries (), 0 without any. (n,D), (n,A) and (n,A) bool.

        ``join``: rows of this process to those of all, with gradients: the mean is then over all of them.
        """
        each = F.binary_cross_entropy_with_logits(self.read(raw).float(), value.float(), reduction="none")
        wrong, count = join((each * known).sum()[None]), join(known.sum()[None].float())
        return wrong.sum() / count.sum().clamp(min=1)


class DomainTrainee(ComposedTrainee):
    """Descriptions and pictures of the domain.

    Args:
        parts: as for :class:`Trainee`.
        config: of the stage.
        attributes: reads tags, where that task is asked for and the head does not read them itself.
        tags: names of the tags.
        chunk: items encoded at a time, 0 for all.
    """

    def __init__(self, *parts: Any, config: DomainConfig, attributes: Attributes | None = None,
                 tags: Sequence[str] = (), chunk: int = 0) -> None:  # fmt: skip
        super().__init__(*parts)
        self.config, self.attributes, self.tags, self.chunk = config, attributes, tags, chunk

    def forward(
        self, images: tuple[Any, ...], texts: Any, duplicates: tuple[Tensor, ...], hide: Hide = (0.0, 0.0)
    ) -> tuple[Tensor, Stats]:
        """Loss () and numbers to log of one block.

        Args:
            images: the pictures of this process's n items, with ``i2i`` followed by n second views (2n in all); with
                ``attributes`` also tags (n, A) bool and which of them are known (n, A) bool.
            texts: n descriptions; empty without ``t2i``.
            duplicates: (P, P) bool over the whole batch for t2i, then for i2i: what is no wrong answer.
            hide: shares of image and text tokens to hide.
        """
        pictures, tasks = self.side("image", images[0], hide[0]), self.config.tasks
        count = len(pictures) // 2 if "i2i" in tasks else len(pictures)
        own, total, logged = pictures[:count], pictures.pooled.new_zeros(()), {}
        if "t2i" in tasks:
            text = self.side("text", texts, hide[1])
            loss, logged = self.matched(text.pooled, own.pooled, duplicates[0], single=True)
            total, logged = total + loss, logged | {"t2i_loss": loss.detach()}
            if self.head.reading is not None and "attributes" in self.config.tasks:  # words for values, too
                read = self.head.reading.loss(raw_of(text), self.tags, *images[1:], join=self.gather.rows)
                total, logged = total + self.config.attribute_weight * read, logged | {"text_loss": read.detach()}
        if "i2i" in tasks:
            loss, stats = self.matched(pictures[count:].pooled, own.pooled, duplicates[1], single=True)
            total, logged = total + self.config.i2i_weight * loss, {**stats, **logged, "i2i_loss": loss.detach()}
        if "attributes" in self.config.tasks:
            raw, told, join = raw_of(own), images[1:], self.gather.rows
            reading = self.head.reading
            if reading is None:
                loss = self.attributes(raw, *told, join=join)
            else:
                loss = reading.loss(raw, self.tags, *told, join=join)
            total = total + self.config.attribute_weight * loss
            logged["attribute_loss"] = loss.detach()
        return total, logged


def flip_and_crop(pictures: Tensor, rng: np.random.Generator, smallest: float = 0.6) -> Tensor:
    """Each picture mirrored half of the time, and cut to a random part resized back. (N,3,H,W).

    No colour changes: colour is what texts talk about.

    Args:
        pictures: prepared pictures, whole numbers or floats.
        rng: draws (not torch's global generator: blocks are prepared in a thread).
        smallest: share of the area that a part has at least.
    """
    n = len(pictures)
    side = np.sqrt(smallest + (1 - smallest) * rng.random(n))  # of each part
    mirror, shift = 1.0 - 2 * (rng.random(n) < 0.5), (1 - side)[:, None] * (2 * rng.random((n, 2)) - 1)
    zero = np.zeros(n)
    rows = np.stack([mirror * side, zero, shift[:, 0]], 1), np.stack([zero, side, shift[:, 1]], 1)
    theta = torch.from_numpy(np.stack(rows, 1)).float()  # (N,2,3)
    grid = F.affine_grid(theta, list(pictures.shape), align_corners=False)
    seen = F.grid_sample(pictures.float(), grid, mode="bilinear", padding_mode="reflection", align_corners=False)
    return seen.to(pictures.dtype) if pictures.is_floating_point() else seen.round().to(pictures.dtype)
