"""What heads over query sets share. A query set is several sentences about one image, said one after the other.

The text backbone encodes the sentences of all sets flat; ``prepare_queries`` makes one row of each, and
``combine_sets`` joins the rows of a set. Arrays over pairs are (T,N,M): rounds, images, sets; round r scores an image
with the first r sentences, and a set of fewer sentences repeats its last round.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from xretrieve.errors import XRetrieveError
from xretrieve.heads.base import Head, pad_sets
from xretrieve.heads.scoring import MEMORY, TRAINING_MEMORY
from xretrieve.heads.similarity import Projection
from xretrieve.tokens import Prepared, Tokens

Stats = dict[str, Tensor]
Take = Callable[[Tensor], tuple[Tensor, Stats]]  # the recipe's loss of a matrix (sets, images), and numbers to log
Rows = Callable[[Tensor], Tensor]


def unchanged(rows: Tensor) -> Tensor:
    """Rows of a single process are those of the whole batch."""
    return rows


class MultiQueryHead(Head):
    """Base of HMRN and Drill-down.

    A sentence is one vector (``reads`` says `pooled` for the text side). What ``prepare_queries`` gives is at once N
    sentences and N sets of one sentence each. ``memory`` (bytes) bounds the working arrays of a block of pairs.
    """

    tasks = ("multi_query",)
    indexable = False
    block_memory = MEMORY

    def __init__(self, config: dict[str, Any]) -> None:
        if config.get("text_project") is None:
            config["text_project"] = config["text_dim"] != config["dim"]
        super().__init__(config)
        self.dim = config["dim"]
        self.memory: int | None = None
        self.image, self.text = (
            Projection(side, config[f"{side}_dim"], config["dim"], config[f"{side}_project"], config[f"{side}_norm"],
                       config[f"{side}_dropout"])
            for side in ("image", "text")
        )  # fmt: skip

    @classmethod
    def reads(cls, side: str, options: dict[str, Any]) -> str:
        """The regions of an image, the one vector of a sentence."""
        return "local" if side == "image" else "pooled"

    def sentences(self, pooled: Tensor) -> Tensor:
        """Sentence vectors of the joint space, unit length. (N,F) -> (N,D)."""
        return self.text(Tokens.from_local(pooled[:, None]))[:, 0]

    def prepare_queries(self, tokens: Tokens) -> Prepared:
        """One row per sentence: ``pooled`` (N,D) is its vector, ``local`` (N,1,D) the same as a set of one."""
        vectors = self.sentences(tokens.pooled)
        mask = torch.ones(len(vectors), 1, dtype=torch.bool, device=vectors.device)
        return Prepared(vectors[:, None], mask, vectors)

    def combine_sets(self, texts: Prepared, sizes: Sequence[int] | Tensor) -> Prepared:
        """Sets of prepared sentences: ``local`` (M,T,D) in order, ``mask`` (M,T), ``pooled`` (M,D) of the full set."""
        local, mask = pad_sets(texts.pooled, sizes)
        return Prepared(local, mask, self.set_vector(local, mask))

    def combine_texts(self, texts: Prepared) -> Prepared:
        """All sentences become one set."""
        return self.combine_sets(texts, [len(texts)])

    def image_query(self, image: Prepared) -> Prepared:
        """Not a query these heads can answer, unless by the coarse vector alone: regions are no sentences."""
        self.only_coarse("matches sentences with pictures; it takes no query of a picture", image)
        return super().image_query(image)

    def combine_image_text(self, image: Prepared, text: Prepared) -> Prepared:
        """Not a query these heads can answer, unless by the coarse vectors alone."""
        self.only_coarse("matches sentences with pictures; it takes no query of a picture and a text", image, text)
        return super().combine_image_text(image, text)

    def cut(self, sets: Prepared, rounds: int) -> Prepared:
        """The sets as they were after some rounds: their first sentences only."""
        local, mask = sets.local[:, :rounds], sets.mask[:, :rounds]
        return Prepared(local, mask, self.set_vector(local, mask))

    @abstractmethod
    def set_vector(self, local: Tensor, mask: Tensor) -> Tensor:
        """The coarse vectors of sets. (M,T,D), (M,T) -> (M,D)."""

    @abstractmethod
    def run(
        self, queries: Prepared, gallery: Prepared, memory: int | None = None, folded: Any = None
    ) -> dict[str, Tensor]:
        """The pair stage block by block; ``score`` (M,N) is that of the last round."""

    @abstractmethod
    def score_rounds(self, queries: Prepared, gallery: Prepared, memory: int | None = None) -> Tensor:
        """Scores after every round, (T,N,M) float32: round, image, set."""

    @abstractmethod
    def training_loss(
        self, sets: Prepared, gallery: Prepared, take: Take, rows: Rows = unchanged, own: Prepared | None = None
    ) -> tuple[Tensor, Stats]:
        """Loss () and numbers to log of one block.

        Args:
            sets: K n sets of this process: K blocks, set i of each belongs to its image i.
            gallery: the P images of the whole batch.
            take: the recipe's loss of a matrix (K n, P), duplicates and the other processes' rows included.
            rows: joins values per set (K n, ...) of all processes.
            own: this process's n images; None when they are the gallery.
        """

    @abstractmethod
    def explain(self, sets: Prepared, gallery: Prepared) -> dict[str, Tensor]:
        """What made the scores of the last round, for a few pairs at a time.

        Returns:
            ``regions`` (M,N,T,R): where each sentence looks, weights that sum to 1. ``sentences`` (M,N,T): what each
            finds there, a mean of cosines. ``score`` (M,N), and what else the head knows of it.
        """

    def attention(self, text: Prepared, image: Prepared) -> dict[str, Tensor]:
        """Where sentences look, as :meth:`xretrieve.heads.local.LocalHead.attention` gives it: ``t2i`` (M,N,T,R)."""
        return {"t2i": self.explain(text, image)["regions"]}

    @abstractmethod
    def glance(self, sets: Prepared, gallery: Prepared, before: Tensor | None = None) -> Tensor:
        """What the last sentence of one set adds to the cheap part of every image's score: (N,...).

        With the glances of the sentences before it, that part need not be computed again
        (:class:`xretrieve.heads.turns.Turns`).

        Args:
            sets: one set.
            gallery: N images.
            before: the glance of the sentence before the last, None for the first one.
        """

    @abstractmethod
    def from_glances(self, glances: Sequence[Tensor], sets: Prepared, gallery: Prepared) -> tuple[Tensor, float]:
        """``c`` (N,) and ``l`` of one set from the glances of its sentences: ``c <= score <= c + l``."""

    def pair(self, queries: Prepared, gallery: Prepared) -> Tensor:
        """Scores of the last round, (M,N) float32."""
        return self.run(queries, gallery)["score"]

    def budget(self, memory: int | None) -> int:
        """Bytes of a block: what is asked for, the head's own, or the default of scoring or training."""
        return memory or self.memory or (TRAINING_MEMORY if torch.is_grad_enabled() else self.block_memory)

    def check_sides(self, queries: Prepared, gallery: Prepared) -> None:
        """An error when a side holds no local tokens, or a set no sentence."""
        for side, what in ((queries, "sentences"), (gallery, "regions")):
            if not side.local.shape[1]:
                raise XRetrieveError(
                    f"head {self.name!r} scores {what}, but these prepared items hold none; prepare them with this "
                    "head and keep their local tokens"
                )
        if not bool(queries.mask[:, 0].all()):
            row = int((~queries.mask[:, 0]).nonzero()[0])
            raise XRetrieveError(f"query set {row} has no first sentence; sentences start at the first place")


def hold_last(scores: Tensor, turns: int) -> Tensor:
    """(..., T) as (..., turns), the last round repeated where a block of short sets had fewer."""
    more = turns - scores.shape[-1]
    return torch.cat([scores, scores[..., -1:].expand(*scores.shape[:-1], more)], -1) if more else scores
