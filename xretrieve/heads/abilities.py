"""What a head may be able to do beyond its scores.

Each is declared by a property of :class:`xretrieve.heads.base.Head`, which is the head itself where it can and None
where it cannot, so that nobody has to probe for methods.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from torch import Tensor

from xretrieve.tokens import Prepared

# ability: the method that is enough to have it
ABILITIES = {"pair_stage": "run", "pair_losses": "training_scores",
             "group_losses": "run_groups", "set_stage": "score_rounds", "bounds": "cheap",
             "looks": "attention"}  # fmt: skip


class PairStage(Protocol):
    """Scores token by token: a pair costs work of its own."""

    def run(
        self, queries: Prepared, gallery: Prepared, memory: int | None = None, folded: Any = None
    ) -> dict[str, Tensor]:
        """The pair stage over everything, block by block; ``score`` among what comes out."""
        ...


class PairLosses(Protocol):
    """Has losses of its own on the pairs of a batch."""

    def training_scores(self, queries: Prepared, gallery: Prepared) -> dict[str, Tensor]:
        """The matrices (Q,G) that the loss is taken on."""
        ...


class GroupLosses(Protocol):
    """Has losses of its own on groups of a batch."""

    def run_groups(self, queries: Prepared, gallery: Prepared, groups: int) -> dict[str, Tensor]:
        """The pair stage within groups only, as (groups,c,b) tensors."""
        ...

    def matrices(self, outputs: dict[str, Tensor]) -> dict[str, Tensor]:
        """The matrices that the loss is taken on, from what :meth:`run_groups` gave."""
        ...


class SetStage(PairStage, Protocol):
    """Reads the sentences of a query set together, round by round."""

    def score_rounds(self, queries: Prepared, gallery: Prepared, memory: int | None = None) -> Tensor:
        """Scores (T,N,M) of every round."""
        ...

    def training_loss(
        self, sets: Prepared, gallery: Prepared, take: Any, rows: Any = None, own: Prepared | None = None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss over the rounds, and numbers to show."""
        ...

    def explain(self, sets: Prepared, gallery: Prepared) -> dict[str, Tensor]:
        """What made the scores of the last round."""
        ...

    def glance(self, sets: Prepared, gallery: Prepared, before: Tensor | None = None) -> Tensor:
        """What the last sentence of one set adds to the cheap part of every image's score."""
        ...

    def from_glances(self, glances: Sequence[Tensor], sets: Prepared, gallery: Prepared) -> tuple[Tensor, float]:
        """A lower bound (N,) of every image's score, and how far the score may lie above it."""
        ...


class Bounds(Protocol):
    """Knows bounds of its scores that cost little (:mod:`xretrieve.heads.bound`)."""

    def cheap(self, queries: Prepared, gallery: Prepared, memory: int | None = None) -> tuple[Tensor, Tensor]:
        """A lower bound of each score, and how far the score may lie above it."""
        ...


class Attention(Protocol):
    """Can tell who looks where."""

    def attention(self, text: Prepared, image: Prepared) -> dict[str, Tensor]:
        """By stream the weights (C,B,queries,context), of words over regions or the reverse."""
        ...
