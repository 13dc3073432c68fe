"""What every head does. A head knows no files and no backbones: it sees `Tokens` only."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from xretrieve.tokens import Prepared, Tokens

EPS = 1e-8


def l2(x: Tensor, eps: float = EPS) -> Tensor:
    """``x / (||x|| + eps)`` along the last axis, with a finite gradient at zero rows.

    The sum of squares is clamped at 1e-24 before the root: that changes no float32 value, and a padded (all-zero)
    row gets gradient 0 instead of 0 x inf = NaN.
    """
    return x / (x.square().sum(-1, keepdim=True).clamp(min=1e-24).sqrt() + eps)


class Head(nn.Module, ABC):
    """One task's model: one-sided preparation, and the scores of prepared queries against a prepared gallery.

    ``config`` holds the keyword arguments that rebuild the head (:func:`xretrieve.heads.create_head`); ``tasks`` says
    which front doors list it (:mod:`xretrieve.image_text`). ``indexable``: the inner product of the coarse vectors is
    the score, so an index of them answers queries. ``logits``: scores are logits of a probability. ``loss_weights``:
    weight in the loss of a matrix of ``training_scores``, by name, 1 where none is given.
    """

    name: str = ""
    tasks: tuple[str, ...] = ("image_text",)
    indexable: bool = True
    logits: bool = False
    loss_weights: Mapping[str, float] = {}

    def __init__(self, config: dict[str, Any]) -> None:
        super().__init__()
        self.config = config

    @classmethod
    def reads(cls, side: str, options: dict[str, Any]) -> str:
        """What this head takes from the backbone of ``side`` (`image` or `text`): its `local` tokens or its `pooled`
        vector. It decides which width the head is built with."""
        return "local"

    @property
    def coarse(self) -> bool:
        """Whether the cosine of the coarse vectors has been trained, so that it can pick candidates for this head."""
        return self.indexable

    @abstractmethod
    def prepare_queries(self, tokens: Tokens) -> Prepared:
        """All work that depends on the queries only; ``pooled`` of the result is the coarse vector (Q, D)."""

    @abstractmethod
    def prepare_gallery(self, tokens: Tokens) -> Prepared:
        """All work that depends on the gallery only; ``pooled`` of the result is the coarse vector (G, D)."""

    def pair(self, queries: Prepared, gallery: Prepared) -> Tensor:
        """The work that needs both sides: scores (Q, G). The default is the inner product of the coarse vectors."""
        return queries.pooled @ gallery.pooled.T

    def score(self, queries: Tokens, gallery: Tokens) -> Tensor:
        """Scores (Q, G); either side may be raw `Tokens` or already `Prepared`."""
        if not isinstance(queries, Prepared):
            queries = self.prepare_queries(queries)
        if not isinstance(gallery, Prepared):
            gallery = self.prepare_gallery(gallery)
        return self.pair(queries, gallery)

    def coarse_scores(self, queries: Prepared, gallery: Prepared) -> Tensor:
        """Inner products of the coarse vectors (Q, G), float32 whatever precision is in force."""
        with torch.autocast(queries.pooled.device.type, enabled=False):
            return queries.pooled.float() @ gallery.pooled.float().T

    def forward(self, queries: Tokens, gallery: Tokens) -> Tensor:
        """The same as :meth:`score` (what a distributed wrapper calls)."""
        return self.score(queries, gallery)

    def restore_gallery(self, local: Tensor, mask: Tensor, pooled: Tensor) -> Prepared:
        """What :meth:`prepare_gallery` gave, from what a gallery on disk keeps of it: (N,L,D), (N,L), (N,P). A head
        with extras makes them again."""
        return Prepared(local, mask, pooled)

    def image_query(self, image: Prepared) -> Prepared:
        """A picture (1 row of gallery items) becomes a query; the default looks for what is like it."""
        return image

    def combine_texts(self, texts: Prepared) -> Prepared:
        """Several prepared texts (T rows) become one query.

        The default averages the coarse vectors without renormalising: the score is then exactly the mean of the
        texts' own scores (the `mean_similarity` baseline).
        """
        return Prepared.from_pooled(texts.pooled.mean(0, keepdim=True))

    def combine_image_text(self, image: Prepared, text: Prepared) -> Prepared:
        """A reference image (1 row) and a text (1 row) become one query; the default is the normalised sum."""
        return Prepared.from_pooled(torch.nn.functional.normalize(image.pooled + text.pooled, dim=-1))
