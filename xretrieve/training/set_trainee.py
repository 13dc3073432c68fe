"""What one training step on query sets runs: encode the sentences of all sets flat, join them, score, loss."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor

from xretrieve.heads.fusion import combine_rounds
from xretrieve.tokens import Prepared, Tokens
from xretrieve.training.losses import Stats
from xretrieve.training.trainee import Trainee, hide_tokens


class SetTrainee(Trainee):
    """As :class:`Trainee`, for query sets.

    A :class:`~xretrieve.heads.multi.MultiQueryHead` has its own loss over the rounds. For any other head, and where
    ``combine`` names a simple combination, the loss is the mean over the rounds of the recipe's loss: on the running
    mean of the sentences' scores, or (``rank_fusion``, ``paragraph``) on the scores of each text alone.
    """

    def __init__(self, *parts: Any, combine: str = "head") -> None:
        super().__init__(*parts)
        self.combine = combine

    def forward(
        self, images: Any, texts: tuple[Any, Tensor], duplicates: Tensor, hide: tuple[float, float] = (0.0, 0.0)
    ) -> tuple[Tensor, Stats]:
        """Loss () and numbers to log of one block.

        Args:
            images: as :meth:`Trainee.forward`.
            texts: the sentences of this process's n sets, set after set, and the sizes (n,) of the sets.
            duplicates: (T, P, P) bool over the whole batch, for each round the pairs that must not be negatives.
            hide: shares of image and text tokens to hide.
        """
        said, sizes = texts
        image_tokens = images if isinstance(images, Tokens) else self.image(images)
        text_tokens = said if isinstance(said, Tokens) else self.text(said)
        own = self.head.prepare_gallery(hide_tokens(image_tokens, hide[0]))
        queries = self.head.prepare_queries(hide_tokens(text_tokens, hide[1]))
        gallery = self.gather.tokens(own)
        if self.combine == "head" and (stage := self.head.set_stage) is not None:
            # padded to the rounds of the whole batch: every process must then join as many matrices
            sets = self.head.combine_sets(queries, sizes).pad_to(len(duplicates))
            take = partial(self._taken, self.loss, duplicates=duplicates[-1:])
            return stage.training_loss(sets, gallery, take, rows=self.gather.rows, own=own)
        return self._rounds(queries, gallery, sizes, duplicates)

    def _rounds(self, queries: Prepared, gallery: Prepared, sizes: Tensor, duplicates: Tensor) -> tuple[Tensor, Stats]:
        """The mean of the rounds' losses, and the numbers of the last round."""
        alone = self.head.score(queries, gallery).float()  # (S,P)
        each = self.combine in ("rank_fusion", "paragraph")
        rounds = combine_rounds(alone, sizes, "paragraph" if each else "mean_similarity")  # (T,P,n)
        found = [
            self._taken(self.loss, rounds[min(turn, len(rounds) - 1)].T, same[None])
            for turn, same in enumerate(duplicates)
        ]
        return torch.stack([loss for loss, _ in found]).mean(), found[-1][1]
