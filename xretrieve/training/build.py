"""From a recipe to the things it names: datasets, backbones, head, matcher, feeds."""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from inspect import signature
from threading import Event
from typing import Any

import numpy as np
import torch

from xretrieve.backbones import create_backbone
from xretrieve.backbones.base import Backbone
from xretrieve.data.base import RetrievalDataset
from xretrieve.data.cache import Add, FeatureCache, Step, bars
from xretrieve.errors import XRetrieveError
from xretrieve.heads import head_class
from xretrieve.loading import load
from xretrieve.matcher import Matcher, build_head
from xretrieve.training.feeds import CachedFeed, Feed, LiveFeed
from xretrieve.training.recipe import BackboneConfig, DatasetConfig, Recipe
from xretrieve.training.recipes import find_weights

FILES = ("vectors", "vocab")  # backbone options that name a file: found like weights, as given or under the data root


def load_split(config: DatasetConfig, split: str) -> RetrievalDataset:
    """One split of the recipe's dataset."""
    from xretrieve.data import datasets

    return datasets.load(config.name, root=config.root, split=split, layout=config.layout, **config.options)


def test_split(config: DatasetConfig) -> RetrievalDataset:
    """The split that a run is measured on: test; val where the test split's targets are not public."""
    from xretrieve.data.datasets import info

    card = info(config.name)
    return load_split(config, card.scored if card else "test")


def build_matcher(recipe: Recipe, captions: list[str]) -> Matcher:
    """Backbones and head with their start weights; torch's generator must have been seeded.

    Args:
        recipe: the recipe.
        captions: of train and validation, from which the `words` backbone makes its vocabulary.
    """
    assert recipe.image is not None and recipe.text is not None and recipe.head is not None, "an ensemble has members"
    image = _backbone(recipe.image, "image", recipe, {})
    learned = recipe.text.backbone in ("words", "sentences")  # their vocabulary is that of the captions
    builds = learned and "vocab" not in recipe.text.options and recipe.text.weights is None
    text = _backbone(recipe.text, "text", recipe, {"captions": captions} if builds else {})
    head = build_head(recipe.head.name, image, text, **head_options(recipe))
    matcher = Matcher(image, text, head, name=recipe.name)
    if recipe.start is not None:
        start_from(matcher, recipe.start, by_word=recipe.task == "composed")
    return matcher


def start_from(matcher: Matcher, folder: str, by_word: bool = False) -> dict[str, int]:
    """Copy the weights of a run wherever a tensor's name and shape agree; returns how many matrices of each part.

    A text side of another vocabulary is an error (the same row would be another word), unless ``by_word`` copies word
    by word; and so is a run of which nothing fits. Frozen backbones keep what the recipe gives them.
    """
    given = load(folder)
    if not isinstance(given, Matcher):
        raise XRetrieveError(f"recipe key 'start': {folder} is an ensemble; name the run of one model")
    copied = {}
    for part in ("image", "text", "head"):
        own, other = getattr(matcher, part), getattr(given, part)
        if part != "head" and own.frozen:
            continue
        theirs = other.state_dict()
        if part == "text" and own.preprocessing() != other.preprocessing():
            moved = _by_word(own, other) if by_word else {}
            if not moved:
                raise XRetrieveError(
                    f"recipe key 'start': the text side of {folder} has another vocabulary or preprocessing; train on "
                    "the same captions with the same text.options"
                )
            theirs |= moved
        mine = own.state_dict()
        fits = {k: v for k, v in theirs.items() if k in mine and mine[k].shape == v.shape}
        own.load_state_dict({**mine, **fits})
        copied[part] = sum(v.ndim > 1 for v in fits.values())  # a bias of one number fits anywhere
    if not any(copied.values()):
        raise XRetrieveError(
            f"recipe key 'start': no weight of {folder} (head {given.head.name!r}) fits this recipe (head "
            f"{matcher.head.name!r}); the start must be a run with the same backbones, or of the same family and widths"
        )
    return copied


def _by_word(own: Any, other: Any) -> dict[str, Any]:
    """Our word vectors with those of the other text side in place of ours for every word that both know."""
    ours, theirs = (getattr(side, "vocabulary", None) for side in (own, other))
    if ours is None or theirs is None or own.embed.weight.shape[1] != other.embed.weight.shape[1]:
        return {}
    both = [word for word in ours.words if word in theirs.numbers]
    weight = own.embed.weight.detach().clone()
    weight[[ours.numbers[word] for word in both]] = other.embed.weight.detach()[[theirs.numbers[w] for w in both]]
    return {"embed.weight": weight}


def head_options(recipe: Recipe) -> dict[str, Any]:
    """The head's options; a stage with a ``coarse_loss`` tells the head that its coarse vectors are trained."""
    assert recipe.head is not None, "an ensemble has members"
    name, options, known = recipe.head.name, dict(recipe.head.options), signature(head_class(recipe.head.name))
    key = next((k for k in ("coarse_loss", "freeze_coarse") if any(getattr(s, k) for s in recipe.stages)), None)
    wanted = key is not None
    if wanted and "coarse" not in known.parameters:
        raise XRetrieveError(
            f"recipe key {key!r}: head {name!r} has none; it is for heads over local tokens (scan, sgr, saf, tshsr)"
        )
    if options.get("coarse", wanted) != wanted:
        raise XRetrieveError(
            f"recipe key 'head.options.coarse' is {options['coarse']}, but {'a' if wanted else 'no'} stage has a "
            "coarse_loss or freezes the coarse vectors; leave the option out, the stages decide"
        )
    return {**options, "coarse": True} if wanted else options


def _backbone(config: BackboneConfig, modality: str, recipe: Recipe, more: dict[str, Any]) -> Any:
    weights = find_weights(config.weights, recipe.dataset.root) if config.weights else None
    named = {k: v for k, v in config.options.items() if k in FILES and isinstance(v, str)}
    files = {k: find_weights(v, recipe.dataset.root) for k, v in named.items()}
    options = {**config.options, **files, **more}
    return create_backbone(config.backbone, modality=modality, weights=weights, frozen=config.frozen, **options)


@dataclass
class Split:
    """A split and where its two sides come from."""

    dataset: RetrievalDataset
    images: Feed
    texts: Feed

    @property
    def usable(self) -> np.ndarray:
        """(C,) bool: captions whose own tokens and whose image's tokens are there."""
        image = np.zeros(len(self.dataset), bool)
        image[self.images.kept] = True
        text = np.zeros(len(self.dataset.captions), bool)
        text[self.texts.kept] = True
        return image[self.dataset.owner] & text


def make_splits(
    datasets: Sequence[RetrievalDataset], matcher: Matcher, learns: list[str], cache: FeatureCache, progress: bool
) -> list[Split]:
    """Feeds of splits: cached tokens for a side that does not learn, raw items for one that does.

    Where torch leaves cores idle, pictures and texts are encoded at the same time. A picture that cannot be read is
    left out with its captions; a split with none left is an error.
    """
    stopped = Event()

    def images(add: Add) -> list[Feed]:
        return [_feed(matcher, "image", data.images, data.image_ids, learns, cache, add) for data in datasets]

    def texts(add: Add) -> list[Feed]:
        return [_feed(matcher, "text", data.captions, data.caption_ids, learns, cache, add) for data in datasets]

    def watched(total: int, said: str) -> Step:
        step = add(total, said)

        def further(steps: int) -> None:
            if stopped.is_set():
                raise KeyboardInterrupt
            step(steps)

        return further

    with bars(progress) as add:
        if matcher.image.device.type != "cpu" or torch.get_num_threads() >= (os.cpu_count() or 1):
            sides = images(add), texts(add)
        else:
            with ThreadPoolExecutor(1) as beside:
                coming = beside.submit(texts, watched)
                try:
                    sides = images(add), coming.result()
                except BaseException:
                    stopped.set()  # after its batch, and what it has encoded is kept
                    raise
    return [_split(*three) for three in zip(datasets, *sides, strict=True)]


def _feed(
    matcher: Matcher, side: str, items: Sequence[Any], ids: list[str], learns: list[str], cache: FeatureCache, add: Add
) -> Feed:
    backbone: Backbone = getattr(matcher, side)
    if side in learns:
        return LiveFeed(backbone, items)
    stored = cache.encode(backbone, items, ids=ids, progress=add, on_error="skip")
    return CachedFeed(stored, len(items), pooled_only=matcher.reads(side) == "pooled")


def _split(dataset: RetrievalDataset, images: Feed, texts: Feed) -> Split:
    if not len(images.kept):
        reason = f" (first: {images.failed[0][0]}: {images.failed[0][1]})" if images.failed else ""
        raise XRetrieveError(
            f"{dataset.name}/{dataset.split}: no picture could be read{reason}; "
            f"run `xretrieve data check {dataset.name}`"
        )
    return Split(dataset, images, texts)
