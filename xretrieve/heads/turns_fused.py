"""Growing query sets for heads that score single texts: the simple baselines, turn by turn (`heads/fusion.py`)."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

from xretrieve.errors import XRetrieveError
from xretrieve.heads.base import Head
from xretrieve.heads.bound import TopK, best
from xretrieve.heads.fusion import JOINT, check_combine, ranks_of_all
from xretrieve.heads.scoring import score_matrix
from xretrieve.heads.turns import Images, Turns
from xretrieve.tokens import Prepared


class Growing(Protocol):
    """What answers after every sentence: :class:`xretrieve.heads.turns.Turns` and the classes below."""

    def add(self, text: Prepared) -> None:
        """One more sentence (for ``paragraph`` all of them joined), one row of ``head.prepare_queries``."""

    def undo(self) -> None:
        """Take the last one back."""

    def scores(self) -> Tensor:
        """The score of every image (N,), float32."""

    def top_k(self, k: int, *, bounded: bool = True) -> TopK:
        """The K best images."""


class Alone:
    """Every sentence is scored alone, by any head; a set is the mean of the scores, or of the ranks, of its sentences.

    Args:
        head, images: what scores, and what is scored.
        ranks: minus the mean of the expected ranks (`rank_fusion`); else the mean of the scores.
        dtype: as in :func:`xretrieve.heads.scoring.score_matrix`.
    """

    def __init__(self, head: Head, images: Images, ranks: bool = False, dtype: torch.dtype | None = None) -> None:
        self.head, self.images, self.ranks, self.dtype = head, images, ranks, dtype
        self._found: list[Tensor] = []

    @torch.inference_mode()
    def add(self, text: Prepared) -> None:
        """One more sentence."""
        scores = torch.cat([score_matrix(self.head, text, piece, dtype=self.dtype) for piece in self.images.read()], 1)
        self._found.append(-ranks_of_all(scores)[0] if self.ranks else scores[0])

    def undo(self) -> None:
        """Take the last sentence back."""
        if not self._found:
            raise XRetrieveError("there is no sentence to take back")
        self._found.pop()

    def scores(self) -> Tensor:
        """The score of every image (N,), float32."""
        if not self._found:
            raise XRetrieveError("nothing has been said yet; add a sentence first")
        return torch.stack(self._found).mean(0)

    def top_k(self, k: int, *, bounded: bool = True) -> TopK:
        """The K best images; every image has been scored in full."""
        return TopK(*best(self.scores()[None], None, min(k, len(self.images))), 1.0)


class Paragraph:
    """All sentences so far joined into one text, which the head scores as such."""

    def __init__(self, head: Head, images: Images, dtype: torch.dtype | None = None) -> None:
        self.head, self.images, self.dtype = head, images, dtype
        self._said: list[Growing] = []

    def add(self, text: Prepared) -> None:
        """The sentences so far as one text."""
        whole = self.head.set_stage is not None or self.head.indexable
        one: Growing = growing("head" if whole else "mean_similarity", self.head, self.images, self.dtype)
        one.add(text)
        self._said.append(one)

    def undo(self) -> None:
        """Take the last sentence back."""
        if not self._said:
            raise XRetrieveError("there is no sentence to take back")
        self._said.pop()

    @property
    def _last(self) -> Growing:
        if not self._said:
            raise XRetrieveError("nothing has been said yet; add a sentence first")
        return self._said[-1]

    def scores(self) -> Tensor:
        """The score of every image (N,), float32."""
        return self._last.scores()

    def top_k(self, k: int, *, bounded: bool = True) -> TopK:
        """The K best images."""
        return self._last.top_k(k, bounded=bounded)


def growing(combine: str, head: Head, images: Images, dtype: torch.dtype | None = None) -> Growing:
    """What answers turn by turn under one of :data:`xretrieve.heads.fusion.COMBINE` ('' is ``head``); ``dtype`` as in
    :func:`xretrieve.heads.scoring.score_matrix`."""
    combine = check_combine(combine)
    if combine == "head":
        return Turns(head, images, dtype=dtype)
    if combine == "paragraph":
        return Paragraph(head, images, dtype)
    return Alone(head, images, combine == "rank_fusion", dtype)


def text_to_add(combine: str, said: list[str]) -> str:
    """The text that :meth:`Growing.add` takes after the last of these sentences.

    >>> text_to_add("paragraph", ["a dog", "snow"]), text_to_add("", ["a dog", "snow"])
    ('a dog;snow', 'snow')
    """
    return JOINT.join(said) if combine == "paragraph" else said[-1]
