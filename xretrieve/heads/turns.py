"""A query set that grows sentence by sentence over one gallery: a turn computes what is new, and search stays exact."""

from __future__ import annotations

import torch
from torch import Tensor

from xretrieve.errors import XRetrieveError
from xretrieve.heads.base import Head
from xretrieve.heads.bound import CHUNK, SLACK, TopK, best, bounded_top_k
from xretrieve.heads.multi import MultiQueryHead
from xretrieve.heads.rounds import precision
from xretrieve.heads.scoring import score_matrix, score_pairs
from xretrieve.tokens import Prepared


class Turns:
    """Sentences said so far, and what each of them found in every image of a gallery.

    Args:
        head: a head over query sets, or one whose coarse vectors are its score (`dual`, `cosine`): it then scores the
            mean of the sentences' scores.
        gallery: N prepared images.
        memory, dtype: of the finished scores, as in :func:`xretrieve.heads.scoring.score_pairs`.

    A sentence is looked for in all images once, when it is added; every turn reuses what the earlier ones found. Only
    HMRN's reasoning depends on all sentences together: it is computed for the images whose rank it can change
    (:mod:`xretrieve.heads.bound`).
    """

    def __init__(
        self, head: Head, gallery: Prepared, memory: int | None = None, dtype: torch.dtype | None = None
    ) -> None:
        if not isinstance(head, MultiQueryHead) and not head.indexable:
            raise XRetrieveError(
                f"head {head.name!r} scores single texts, not query sets; search with hmrn, drilldown or a dual encoder"
            )
        self.head, self.gallery, self.memory, self.dtype = head, gallery, memory, dtype
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
        if isinstance(self.head, MultiQueryHead):
            glance = self.head.glance(self._combined(texts), self.gallery)
        else:
            glance = self.head.coarse_scores(text, self.gallery)[0]
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
        if isinstance(self.head, MultiQueryHead):
            return self.head.from_glances(self._glances, said, self.gallery)
        return torch.stack(self._glances).mean(0), 0.0

    @torch.inference_mode()
    def scores(self) -> Tensor:
        """The score of every image (N,), float32: everything is reasoned about."""
        cheap, width = self.bounds()
        return score_matrix(self.head, self.set, self.gallery, self.memory, self.dtype)[0] if width else cheap

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
            return TopK(*best(scores[None], None, min(k, len(self.gallery))), 1.0)
        said = self.set

        def finish(sets: Tensor, rows: Tensor, theta: Tensor) -> Tensor:
            return score_pairs(self.head, said, self.gallery, rows, self.memory, self.dtype)

        slack = SLACK[self.dtype or torch.float32]
        return bounded_top_k(cheap[None], cheap.new_tensor([width]), finish, k, slack, chunk)

    def _combined(self, texts: list[Prepared]) -> Prepared:
        joined = Prepared.cat(texts)
        with precision(joined.device.type, torch.float32):
            return self.head.combine_sets(joined, [len(texts)])
