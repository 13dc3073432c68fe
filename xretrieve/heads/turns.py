"""A query set that grows sentence by sentence over one gallery: a turn computes what is new, and search stays exact.

The gallery may be larger than the memory: it is read piece by piece (:class:`Images`).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

import torch
from torch import Tensor

from xretrieve.errors import XRetrieveError
from xretrieve.heads.abilities import SetStage
from xretrieve.heads.base import Head
from xretrieve.heads.bound import CHUNK, SLACK, TopK, best, bounded_top_k
from xretrieve.heads.scoring import in_dtype, score_matrix
from xretrieve.tokens import Prepared

PIECE = 64 * 2**20  # bytes of chosen images that are gathered at once


class Images(Protocol):
    """N prepared images that need not all lie in memory at once."""

    def __len__(self) -> int:
        """N."""

    @property
    def frame(self) -> Prepared:
        """Mask (N,R) and coarse vectors (N,D) of all images; their ``local`` may have any width, none too."""

    def read(self, rows: Tensor | None = None) -> Iterator[Prepared]:
        """All images in their order, or those of ``rows`` (C,) in that order, in pieces that fit the memory."""


class Held:
    """:class:`Images` that do lie in memory."""

    def __init__(self, gallery: Prepared) -> None:
        self.frame = gallery

    def __len__(self) -> int:
        return len(self.frame)

    def read(self, rows: Tensor | None = None) -> Iterator[Prepared]:
        """As :meth:`Images.read`; all images are one piece."""
        if rows is None:
            yield self.frame
            return
        one = self.frame.local[:1]
        for piece in rows.split(max(1, PIECE // max(1, one.numel() * one.element_size()))):
            yield self.frame[piece]


class Turns:
    """Sentences said so far, and what each of them found in every image of a gallery.

    Args:
        head: a head over query sets, or one whose coarse vectors are its score (`dual`, `cosine`): it then scores the
            mean of the sentences' scores.
        gallery: N images, prepared ones or some :class:`Images`.
        memory, dtype: of the finished scores, as in :func:`xretrieve.heads.scoring.score_matrix`.

    A sentence is looked for in all images once, when it is added; every turn reuses what the earlier ones found. Only
    HMRN's reasoning depends on all sentences together: it is computed for the images whose rank it can change
    (:mod:`xretrieve.heads.bound`).
    """

    def __init__(
        self, head: Head, gallery: Prepared | Images, memory: int | None = None, dtype: torch.dtype | None = None
    ) -> None:
        if head.set_stage is None and not head.indexable:
            raise XRetrieveError(
                f"head {head.name!r} scores single texts, not query sets; search with hmrn, drilldown or a dual encoder"
            )
        self.head, self.memory, self.dtype = head, memory, dtype
        self.images: Images = Held(gallery) if isinstance(gallery, Prepared) else gallery
        self._texts: list[Prepared] = []
        self._glances: list[Tensor] = []

    def __len__(self) -> int:
        return len(self._texts)

    @torch.inference_mode()
    def add(self, text: Prepared) -> None:
        """One more sentence: one row of ``head.prepare_queries``."""
        if len(text) != 1:
            raise XRetrieveError(f"a turn is one sentence, not {len(text)}; add them one by one")
        texts = [*self._texts, text]
        if self.head.set_stage is not None:
            glance = self._glance(self.head.set_stage, self._combined(texts))
        else:
            glance = torch.cat([self.head.coarse_scores(text, piece)[0] for piece in self.images.read()])
        self._texts, self._glances = texts, [*self._glances, glance]

    def undo(self) -> None:
        """Take the last sentence back."""
        if not self._texts:
            raise XRetrieveError("there is no sentence to take back")
        self._texts, self._glances = self._texts[:-1], self._glances[:-1]

    @property
    def set(self) -> Prepared:
        """The sentences as one query set."""
        if not self._texts:
            raise XRetrieveError("nothing has been said yet; add a sentence first")
        return self._combined(self._texts)

    @torch.inference_mode()
    def bounds(self) -> tuple[Tensor, float]:
        """``c`` (N,) and ``l``: every image's score lies in ``[c, c + l]``; l is 0 where c is the score."""
        said = self.set
        if self.head.set_stage is not None:
            return self.head.set_stage.from_glances(self._glances, said, self.images.frame)
        return torch.stack(self._glances).mean(0), 0.0

    @torch.inference_mode()
    def scores(self) -> Tensor:
        """The score of every image (N,), float32: everything is reasoned about."""
        cheap, width = self.bounds()
        if not width:
            return cheap
        return self._every(self.set)[0]

    @torch.inference_mode()
    def top_k(self, k: int, chunk: int = CHUNK, bounded: bool = True) -> TopK:
        """The K best images after the last sentence, (1,K): scores, rows, and the share of images scored in full.

        Args:
            k: how many.
            chunk: as in :func:`xretrieve.heads.bound.bounded_top_k`.
            bounded: False scores every image in full; the answer is the same.
        """
        if k < 1:
            raise XRetrieveError(f"top_k: k must be at least 1, got {k}")
        cheap, width = self.bounds()
        if not width or not bounded:
            scores = self.scores() if width else cheap
            return TopK(*best(scores[None], None, min(k, len(self.images))), 1.0)
        return self._bounded(self.set, cheap[None], cheap.new_tensor([width]), k, chunk)

    @torch.inference_mode()
    def top_k_of(self, said: Prepared, k: int, bounded: bool = True) -> TopK:
        """As :meth:`top_k` for a set that is complete from the start, ``head.combine_sets`` of one set: the images are
        read once for all its sentences. What was added before does not count."""
        bounds = self.head.bounds
        if not bounded or bounds is None:
            return TopK(*best(self._every(said), None, min(k, len(self.images))), 1.0)
        with in_dtype(said.device, self.dtype):
            found = [bounds.cheap(said, piece, self.memory) for piece in self.images.read()]
        return self._bounded(said, torch.cat([cheap for cheap, _ in found], 1), found[0][1], k)

    def _bounded(self, said: Prepared, cheap: Tensor, width: Tensor, k: int, chunk: int = CHUNK) -> TopK:
        folded = self.head.fold()

        def finish(sets: Tensor, rows: Tensor, theta: Tensor) -> Tensor:
            return torch.cat([self._full(said, piece, folded) for piece in self.images.read(rows[0])], 1)

        return bounded_top_k(cheap, width, finish, k, SLACK[self.dtype or torch.float32], chunk)

    def _every(self, said: Prepared) -> Tensor:
        """Full scores of all images (1,N)."""
        folded = self.head.fold() if self.head.set_stage is not None else None
        return torch.cat([self._full(said, piece, folded) for piece in self.images.read()], 1)

    def _full(self, said: Prepared, piece: Prepared, folded: object) -> Tensor:
        stage = self.head.set_stage
        if stage is None:
            return score_matrix(self.head, said, piece, self.memory, self.dtype)
        with in_dtype(piece.device, self.dtype):
            return stage.run(said, piece, self.memory, folded)["score"].float()

    def _glance(self, stage: SetStage, said: Prepared) -> Tensor:
        """The glance of the last sentence, read after read."""
        parts, start = [], 0
        for piece in self.images.read():
            before = self._glances[-1][start : start + len(piece)] if self._glances else None
            parts.append(stage.glance(said, piece, before))
            start += len(piece)
        return torch.cat(parts) if len(parts) > 1 else parts[0]

    def _combined(self, texts: list[Prepared]) -> Prepared:
        joined = Prepared.cat(texts)
        with in_dtype(joined.device, torch.float32):
            return self.head.combine_sets(joined, [len(texts)])
