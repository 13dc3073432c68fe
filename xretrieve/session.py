"""`Session`: one remembered picture, described sentence by sentence; the gallery is ranked anew after each.

A turn costs what the new sentence costs. The ranking is that of a search with all sentences so far.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from xretrieve.errors import XRetrieveError
from xretrieve.gallery.queries import cut_notes
from xretrieve.gallery.search import Found, check_k
from xretrieve.gallery.stored_images import StoredImages
from xretrieve.heads.fusion import check_combine
from xretrieve.heads.turns_fused import growing, text_to_add
from xretrieve.query import MultiText, Text

if TYPE_CHECKING:
    from xretrieve.gallery.searchable import Searchable
    from xretrieve.ranking import Ranking

LIMIT = 50  # sentences: reasoning grows with their square, and nobody describes a picture that long


class Session:
    """Made by :meth:`xretrieve.Gallery.session`.

    Args:
        gallery: what is searched. What other programs change meanwhile is not seen; when this object changes it,
            by `add` or `remove`, the session says so and has to be started again.
        combine: how sentences become a set: ``head`` (the head reads the set; vectors are averaged), or one of the
            simple ways of :func:`xretrieve.multi_query.combinations`, which any head can do.
        where: metadata that hits must have, as in :meth:`xretrieve.Gallery.search`.

    Every picture is searched exactly, whatever the gallery's index is. ``share`` says of the last ranking which share
    of the pictures had to be scored in full (HMRN: reasoned about); the others could not have been among the hits. It
    is None where vectors are the scores.
    """

    def __init__(self, gallery: Searchable, combine: str = "", where: dict[str, Any] | None = None) -> None:
        self.combine, self.where = check_combine(combine), where
        self._gallery, self._matcher = gallery, gallery.matcher
        head = getattr(self._matcher, "head", None)
        if head is None or not hasattr(self._matcher, "encode_texts"):
            raise XRetrieveError(
                f"{gallery.path} was made by {self._matcher.name!r}, which takes no texts, so there is nothing to say "
                "to it; search it with a picture"
            )
        if self.combine == "head" and head.set_stage is None and not head.indexable:
            raise XRetrieveError(
                f"{gallery.path}: head {head.name!r} scores single texts, not query sets; combine its scores with "
                "combine='mean_similarity', 'rank_fusion' or 'paragraph' (--combine on the command line)"
            )
        rows = gallery._where(where)
        self._rows = gallery._store.live() if rows is None else rows
        if not len(self._rows):
            raise XRetrieveError(
                f"nothing in {gallery.path} matches where={where}" if len(gallery)
                else f"{gallery.path} is empty; add pictures to it first"
            )  # fmt: skip
        self._revision = gallery.info["revision"]
        self._said: list[str] = []
        self._growing = growing(self.combine, head, StoredImages(gallery._store, self._matcher, self._rows),
                                gallery._matchers.pair_dtype)  # fmt: skip
        self.share: float | None = None

    @property
    def texts(self) -> tuple[str, ...]:
        """The sentences so far."""
        return tuple(self._said)

    @property
    def reasons(self) -> bool:
        """Whether the head has a level of reasoning, which ``share`` counts."""
        return self._matcher.head.bounds is not None

    def __len__(self) -> int:
        """How many sentences."""
        return len(self._said)

    def __repr__(self) -> str:
        return f"Session({self._said!r} over {self._gallery.path})"

    def add(self, text: str) -> None:
        """One more sentence about the picture. An error leaves the session as it was."""
        said = [*self._said, Text(text).text]
        if len(said) > LIMIT:
            raise XRetrieveError(f"a session takes {LIMIT} sentences; undo() some, or start anew with reset()")
        self._check()
        whole = text_to_add(self.combine, said)
        with torch.inference_mode():
            self._growing.add(self._matcher.encode_texts([whole]).check_finite([whole]))
        self._said = said

    def undo(self) -> str:
        """Take the last sentence back; returns it."""
        if not self._said:
            raise XRetrieveError("there is no sentence to take back")
        self._growing.undo()
        last, self._said = self._said[-1], self._said[:-1]
        return last

    def reset(self) -> None:
        """Take every sentence back."""
        while self._said:
            self.undo()

    def ranking(self, k: int = 10, bounded: bool = True) -> Ranking:
        """The best ``k`` pictures after the last sentence; equal scores in the order of the gallery.

        Args:
            k: number of hits.
            bounded: False scores every picture in full; the answer is the same, only later.
        """
        query = self.query
        self._check()
        found = self._growing.top_k(check_k(k), bounded=bounded)
        rows = self._rows[found.rows[0].cpu().numpy()].tolist()
        self.share = found.share if self._gallery._store.has_tokens else None
        listed = Found(rows, found.scores[0].tolist(), len(rows), share=self.share)
        whole = [" ".join(self._said)] if self.combine == "paragraph" else self._said
        notes = cut_notes(self._matcher, whole)
        return self._gallery._ranking(listed, query, k, len(self._rows), notes, whole=self.combine == "head")

    @property
    def query(self) -> MultiText:
        """The sentences as one query: ``gallery.search(session.query)`` ranks as the session does."""
        if not self._said:
            raise XRetrieveError("nothing has been said yet; add a sentence first")
        return MultiText(self._said)

    def _check(self) -> None:
        if self._gallery.info["revision"] != self._revision:
            raise XRetrieveError(f"{self._gallery.path} was changed; start a new session")
