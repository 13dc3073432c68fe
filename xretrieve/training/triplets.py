"""Training on composed queries: the blocks of both kinds of stage, and validation by the protocol's headline."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from xretrieve.data.base import RetrievalDataset
from xretrieve.data.triplets import rows_of
from xretrieve.errors import XRetrieveError
from xretrieve.evaluation.composed_protocols import ComposedProtocol
from xretrieve.evaluation.protocols import get_protocol
from xretrieve.heads.composed import ComposedHead
from xretrieve.matcher import Matcher
from xretrieve.training.build import Split
from xretrieve.training.composed_trainee import Attributes, CompositionTrainee, DomainTrainee, flip_and_crop
from xretrieve.training.losses import find_duplicates
from xretrieve.training.recipe import Recipe, StageConfig
from xretrieve.training.samplers import BatchSampler, shard
from xretrieve.training.triplet_data import Tags, TripletTexts, items_of, triplet_duplicates, with_texts
from xretrieve.training.validate import encode_feed, recalls, score_split
from xretrieve.training.work import Block, PairWork

FAILED = -2.0  # score of an image that could not be read: below every cosine


def protocol_of(recipe: Recipe) -> ComposedProtocol:
    """The recipe's protocol; one of another task is an error."""
    protocol = get_protocol(recipe.protocol)
    if not isinstance(protocol, ComposedProtocol):
        raise XRetrieveError(f"recipe key 'protocol': {protocol.name!r} is of task {protocol.task}, not composed")
    return protocol


def training_mode(recipe: Recipe) -> str:
    """The caption mode that training draws from: that of the last composition stage, else the protocol's."""
    said = [stage.composition.texts for stage in recipe.stages if stage.composition is not None]
    mode = protocol_of(recipe).mode
    return next((texts for texts in reversed(said) if texts), "and-random" if mode == "and" else mode)


def fill_attributes(recipe: Recipe, data: RetrievalDataset) -> Recipe:
    """The recipe with the values of the attributes that its head reads, from the tags of the training pictures."""
    assert recipe.head is not None
    wanted = recipe.head.options.get("attributes")
    if not isinstance(wanted, list):
        return recipe
    values = Tags.of(data).values(wanted)
    return replace(recipe, head=replace(recipe.head, options={**recipe.head.options, "attributes": values}))


def triplet_data(recipe: Recipe, data: Sequence[RetrievalDataset]) -> list[TripletTexts]:
    """Train and validation split with the texts of their triplets among the captions."""
    return [with_texts(split, training_mode(recipe), protocol_of(recipe).mode) for split in data]


class CompositionWork(PairWork):
    """Stage 3. An item is a triplet; one whose photos cannot be read, or whose target is its reference, is left out."""

    def __init__(self, recipe: Recipe, splits: Sequence[Split]) -> None:
        super().__init__(recipe, splits)
        self.protocol = protocol_of(recipe)
        data = self.train.dataset
        assert isinstance(data, TripletTexts)
        self.data, (self.reference, self.target) = data, rows_of(data.triplets)
        read = np.zeros(len(data), bool)
        read[self.train.images.kept] = True
        self.usable = read[self.reference] & read[self.target] & (self.reference != self.target)
        self.tags: Tags | None = None

    def modules(self, head: ComposedHead) -> dict[str, nn.Module]:
        """What learns in this stage only: nothing. A head that reads attributes gets the tags of the pictures."""
        wanted = self.stage.composition is not None and self.stage.composition.attribute_weight > 0
        if wanted and head.reading is None:
            raise XRetrieveError(
                f"recipe key 'composition.attribute_weight': head {head.name!r} reads no attributes; leave it out, or "
                "give head 'progressive' the option attributes"
            )
        self.tags = Tags.of(self.data) if wanted else None
        return {}

    def sampler(self, stage: StageConfig, number: int, world: int, vectors: Any = None) -> BatchSampler:
        """The order of the triplets in stage ``number``."""
        return BatchSampler(np.arange(len(self.usable)), stage.batch_size, "captions", 1, self.recipe.seed, number,
                            world, self.usable)  # fmt: skip

    def trainee(self, *parts: Any) -> Any:
        """The module whose forward is one step; arguments as for :class:`Trainee`."""
        assert self.stage.composition is not None
        tags = self.tags.names if self.tags is not None else []
        return CompositionTrainee(*parts, config=self.stage.composition, tags=tags, chunk=self.stage.chunk)

    def block(self, stage: StageConfig, batch: np.ndarray, rng: np.random.Generator, rank: int, world: int) -> Block:
        """One block of triplets as tensors on the CPU; see :meth:`CompositionTrainee.forward`. ``batch`` (1, P)."""
        rows = shard(batch, rank, world)[0]
        both = np.concatenate([self.reference[rows], self.target[rows]])  # (2n,)
        distinct, place = np.unique(both, return_inverse=True)
        said = np.array([rng.choice(self.data.asked[row]) for row in rows])
        same = stage.composition.same if stage.composition is not None else []
        texts = self.train.texts.take(said, rng, stage.word_dropout)
        images: tuple[Any, ...] = (self.train.images.take(distinct), torch.from_numpy(place.reshape(-1)))
        if self.tags is not None:
            images += (torch.from_numpy(self.tags.value[distinct]), torch.from_numpy(self.tags.known[distinct]))
        return images, texts, triplet_duplicates(self.data, batch[0], same)

    @torch.no_grad()
    def validate(self, matcher: Matcher, trainee: Any, stage: StageConfig, device: Any) -> dict[str, float]:
        """The protocol's headline (``headline``) and a few more of its metrics on the validation split.

        A head with a constant weight first takes the value with the best headline (``weight_image``).
        """
        head = matcher.head
        assert isinstance(head, ComposedHead)
        found = ComposedScores(self.val, self.protocol, head, device)
        weight = found.choose_weight()
        metrics = found.metrics()
        shown = {name: metrics[name] for name in ("mean_strict_r10", "same_model_strict_r10") if name in metrics}
        return {"headline": metrics[self.protocol.headline], **shown, **weight}


class ComposedScores:
    """A validation split, encoded once; its metrics for the head as it is.

    Args:
        split: with its feeds.
        protocol: what is measured.
        head: in evaluation mode.
        device: where it runs.
    """

    def __init__(self, split: Split, protocol: ComposedProtocol, head: ComposedHead, device: Any) -> None:
        from xretrieve.evaluation.composed_vectors import asked

        data = split.dataset
        assert isinstance(data, TripletTexts)
        self.data, self.protocol, self.head, self.asked = data, protocol, head, asked(data, protocol.mode)
        self.kept = split.images.kept
        self.place = np.full(len(data), 0)
        self.place[self.kept] = np.arange(len(self.kept))
        self.images = encode_feed(split.images, self.kept, head.prepare_gallery, device)
        rows = np.array([data.place[text] for text in self.asked.texts])
        distinct, where = np.unique(rows, return_inverse=True)
        texts = encode_feed(split.texts, distinct, head.prepare_queries, device)
        self.texts, self.where = texts, torch.from_numpy(where.reshape(-1))

    def choose_weight(self) -> dict[str, float]:
        """Give a head with a constant weight the one with the best headline (``weight_image``); others stay."""
        choices = self.head.choices()
        if not choices:
            return {}
        headlines = []
        for weight in choices:
            self.head.weight.fill_(weight)
            headlines.append(self.metrics()[self.protocol.headline])
        best = choices[int(np.argmax(headlines))]  # the first of equals: the choices stand in their order of preference
        self.head.weight.fill_(best)
        return {"weight_image": best}

    def metrics(self) -> dict[str, float]:
        """All metrics of the protocol."""
        from xretrieve.evaluation.composed import composed_metrics

        columns = [self._queries(torch.from_numpy(column.copy())) for column in self.asked.text_rows.T]
        query = columns[0] if len(columns) == 1 else nn.functional.normalize(torch.stack(columns).mean(0), dim=-1)
        scores = np.full((len(query), len(self.data)), FAILED, np.float32)
        scores[:, self.kept] = (query @ self.images.pooled.float().T).cpu().numpy()
        read = np.zeros(len(self.data), bool)
        read[self.kept] = True
        scores[~read[self.asked.reference]] = FAILED  # no query without its reference
        return composed_metrics(scores, self.data, self.protocol)

    def _queries(self, rows: Tensor, block: int = 2048) -> Tensor:
        reference = torch.from_numpy(self.place[self.asked.reference])
        made = []
        for start in range(0, len(rows), block):
            part = slice(start, start + block)
            image, text = self.images[reference[part]], self.texts[self.where[rows[part]]]
            made.append(self.head.combine_image_text(image, text).pooled.float())
        return torch.cat(made)


class DomainWork(CompositionWork):
    """Stage 2. An item is a description with its picture, or a picture; see :class:`DomainConfig`."""

    def __init__(self, recipe: Recipe, splits: Sequence[Split], stage: StageConfig) -> None:
        super().__init__(recipe, splits)
        assert stage.domain is not None
        self.config, self.items = stage.domain, items_of(self.data)
        self.attributes: Attributes | None = None
        self.tags = Tags.of(self.data) if "attributes" in self.config.tasks or self.config.shared_tags else None
        if "t2i" in self.config.tasks and not self.data.described:
            raise XRetrieveError(
                f"{self.data.name}/{self.data.split} has no descriptions of single pictures; leave 't2i' out of "
                "domain.tasks"
            )
        self.described = np.zeros(len(self.data.captions), bool)
        self.described[: self.data.described] = True
        self.described &= self.train.usable
        self.read = np.zeros(len(self.data), bool)
        self.read[self.train.images.kept] = True
        order = np.argsort(self.items, kind="stable")
        order = order[self.read[order]]
        ends = np.searchsorted(self.items[order], np.arange(int(self.items.max())), side="right")
        self.views = np.split(order, ends)  # readable photos of each item

    @property
    def by_text(self) -> bool:
        """Whether an item is a description (else a picture)."""
        return "t2i" in self.config.tasks

    def sampler(self, stage: StageConfig, number: int, world: int, vectors: Any = None) -> BatchSampler:
        """The order of the descriptions, or of the pictures."""
        owner, usable = (self.data.owner, self.described) if self.by_text else (np.arange(len(self.data)), self.read)
        batching = stage.batching if self.by_text else "captions"
        return BatchSampler(owner, stage.batch_size, batching, 1, self.recipe.seed, number, world, usable)

    def modules(self, head: ComposedHead) -> dict[str, nn.Module]:
        """What learns in this stage only."""
        if "attributes" not in self.config.tasks or head.reading is not None:
            return {}
        assert self.tags is not None
        self.attributes = Attributes(head.dim, len(self.tags.names))
        return {"attributes": self.attributes}

    def trainee(self, *parts: Any) -> Any:
        """The module whose forward is one step; arguments as for :class:`Trainee`."""
        tags = self.tags.names if self.tags is not None else []
        return DomainTrainee(*parts, config=self.config, attributes=self.attributes, tags=tags,
                             chunk=self.stage.chunk)  # fmt: skip

    def block(self, stage: StageConfig, batch: np.ndarray, rng: np.random.Generator, rank: int, world: int) -> Block:
        """One block of items as tensors on the CPU; see :meth:`DomainTrainee.forward`. ``batch`` (1, P)."""
        captions, every = shard(batch, rank, world)[0], batch[0]
        rows, everyone = (self.data.owner[captions], self.data.owner[every]) if self.by_text else (captions, every)
        items = self.items[everyone].tolist()
        said = [self.data.captions[c].casefold() for c in every] if self.by_text else [str(i) for i in items]
        duplicates = (find_duplicates(items, said), find_duplicates(items, [str(i) for i in items]))
        images: tuple[Any, ...] = (self._pictures(rows, rng),)
        if "attributes" in self.config.tasks:
            assert self.tags is not None
            images += (torch.from_numpy(self.tags.value[rows]), torch.from_numpy(self.tags.known[rows]))
        texts = self.train.texts.take(captions, rng, stage.word_dropout) if self.by_text else ()
        return images, texts, duplicates

    def _pictures(self, rows: np.ndarray, rng: np.random.Generator) -> Any:
        """The items' pictures, with ``i2i`` followed by their second views."""
        if "i2i" not in self.config.tasks:
            return self.train.images.take(rows)
        second = np.array([self._view(row, rng) for row in rows])
        taken = self.train.images.take(np.concatenate([rows, second]))
        alone = np.flatnonzero(second == rows)
        if self.train.images.live and isinstance(taken, Tensor) and taken.ndim == 4 and len(alone):
            both = torch.from_numpy(np.concatenate([alone, alone + len(rows)]))
            taken[both] = flip_and_crop(taken[both], rng)
        return taken

    def _view(self, row: int, rng: np.random.Generator) -> int:
        """Another photo of the row's item, or of one with enough tags in common; else the row itself."""
        others = self.views[self.items[row]]
        others = others[others != row]
        if not len(others) and self.config.shared_tags:
            assert self.tags is not None
            shared = (self.tags.value & self.tags.value[row]).sum(1)
            others = np.flatnonzero((shared >= self.config.shared_tags) & self.read)
            others = others[others != row]
        return int(rng.choice(others)) if len(others) else int(row)

    @torch.no_grad()
    def validate(self, matcher: Matcher, trainee: Any, stage: StageConfig, device: Any) -> dict[str, float]:
        """Recalls of descriptions and pictures and their sum ``rsum``; without descriptions the protocol's headline.

        A constant weight is chosen by the headline here too.
        """
        data, head = self.val.dataset, matcher.head
        assert isinstance(data, TripletTexts) and isinstance(head, ComposedHead)
        if not data.described:
            return super().validate(matcher, trainee, stage, device)
        found = recalls(*score_split(head, self.val.images, self.val.texts, data.descriptions(), device))
        if head.choices():
            found |= ComposedScores(self.val, self.protocol, head, device).choose_weight()
        return found
