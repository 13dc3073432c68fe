"""What of training depends on the task: the items of an epoch, a block of them, and how they are validated."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from xretrieve.matcher import Matcher
from xretrieve.training.build import Split
from xretrieve.training.groups import CoarseVectors, GroupSampler
from xretrieve.training.losses import find_duplicates
from xretrieve.training.recipe import Recipe, StageConfig
from xretrieve.training.samplers import BatchSampler, shard
from xretrieve.training.trainee import Trainee
from xretrieve.training.validate import recalls, score_split

Block = tuple[Any, Any, Tensor]  # what the trainee's forward takes: images, texts, duplicates


class PairWork:
    """Image-text matching: an item is a caption with its image, or an image with one or more captions.

    Args:
        recipe: what to do.
        splits: train and validation, with their feeds.
    """

    stage: StageConfig
    precision = "32"
    """what the stage's scores are validated in: 32, bf16 or fp16"""

    def __init__(self, recipe: Recipe, splits: Sequence[Split]) -> None:
        self.recipe = recipe
        self.train, self.val = splits

    def sampler(self, stage: StageConfig, number: int, world: int, vectors: CoarseVectors | None = None) -> Any:
        """The order of the items in stage ``number``; with ``vectors``, in groups that are near in the coarse space."""
        base = BatchSampler(self.train.dataset.owner, stage.batch_size, stage.batching, stage.captions_per_image,
                            self.recipe.seed, number, world, self.train.usable)  # fmt: skip
        return base if vectors is None else GroupSampler(base, vectors, stage.group, stage.group_pool)

    def modules(self, head: Any) -> dict[str, Any]:
        """What learns in this stage only, beside the losses."""
        return {}

    def trainee(self, *parts: Any) -> Trainee:
        """The module whose forward is one step; arguments as for :class:`Trainee`."""
        return Trainee(*parts)

    def block(self, stage: StageConfig, batch: np.ndarray, rng: np.random.Generator, rank: int, world: int) -> Block:
        """One block of items as tensors on the CPU.

        This process's images (n) and texts (K n, one set of captions after the other), and the duplicates of the whole
        block (K, P, P).
        """
        data = self.train.dataset
        rows = shard(batch, rank, world)
        owners = data.owner[batch[0]].tolist()  # the same in each of the K sets
        duplicates = torch.stack([find_duplicates(owners, [data.captions[c] for c in texts]) for texts in batch])
        texts = self.train.texts.take(rows.ravel(), rng, stage.word_dropout)
        return self.train.images.take(data.owner[rows[0]]), texts, duplicates

    def validate(self, matcher: Matcher, trainee: Trainee, stage: StageConfig, device: Any) -> dict[str, float]:
        """Recalls of both directions on the validation split, and their sum ``rsum``."""
        return recalls(*score_split(matcher.head, self.val.images, self.val.texts, self.val.dataset, device,
                                    coarse=stage.loss is None, precision=self.precision))  # fmt: skip


def live_sides(recipe: Recipe) -> list[str]:
    """Sides that are encoded in the step though they may not learn: texts that are joined anew in each epoch."""
    return ["text"] if recipe.task == "multi_query" and recipe.combine == "paragraph" else []
