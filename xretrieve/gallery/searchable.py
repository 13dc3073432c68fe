"""The part of :class:`xretrieve.Gallery` that is asked: queries in, rankings and explanations out."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unicodedata import normalize

import numpy as np

from xretrieve.errors import UnknownNameError, XRetrieveError
from xretrieve.gallery.contents import Contents
from xretrieve.gallery.items import Item
from xretrieve.gallery.metadata_filter import MetadataFilter
from xretrieve.gallery.queries import Ask, Asked, cut_notes
from xretrieve.gallery.search import Found, Stages, check_k
from xretrieve.gallery.store import READINGS
from xretrieve.query import Image, ImageText, Query, checked_query, texts_of
from xretrieve.ranking import Hit, Ranking
from xretrieve.utils.files import content_hash

if TYPE_CHECKING:
    from xretrieve.matcher import Matcher


class Searchable(Contents):
    """A gallery that was read, and is searched."""

    @property
    def matcher(self) -> Matcher:
        """The matcher that made this gallery; loaded from its source at the first use."""
        return self._matchers.main

    @property
    def coarse(self) -> Matcher | None:
        """Another matcher that the candidates come from, loaded at the first use; None where there is none."""
        return self._matchers.other

    @property
    def scored_in(self) -> str:
        """What searches compute scores in, and why, for people; the matcher is loaded for it."""
        own = getattr(self.matcher, "scored_in", None)  # another kind of matcher may have none
        return own(self.info.get("precision")) if own is not None else ""

    @property
    def bounded(self) -> bool:
        """Whether a search is exact without scoring every picture in full (HMRN), unless it is told otherwise."""
        return Stages(self._store, self._index, self._matchers).by_bound

    def search(
        self,
        query: Query | str,
        k: int = 10,
        where: dict[str, Any] | None = None,
        drop_reference: bool | None = None,
        rerank: int | str | None = None,
        blend: float | str | None = None,
    ) -> Ranking:
        """The best ``k`` pictures for a query.

        Args:
            query: `Text` (or a plain string), `MultiText`, `Image`, `ImageText`.
            k: number of hits; when fewer can be given, all are, and ``ranking.note`` says so.
            where: metadata that hits must have; a list of values means any of them.
            drop_reference: leave the query's own picture out where its file is in the gallery. The default does so for
                `ImageText` (who asks for a change does not look for the same picture) and not for `Image`.
            rerank: for heads that score token by token, how many candidates of the coarse space the head scores: a
                number, 0 (coarse order only), ``"all"`` (the exact scan of every picture) or ``"auto"``: as many as
                `xretrieve tune` found to be enough. None: that number where it was measured; else 100 where there is
                a trained coarse space, else all; all too where the scan leaves out what cannot be among the hits
                (HMRN without another coarse matcher). Further hits follow in coarse order (``hit.exact`` is false).
                For other heads the vectors are the scores, and there is nothing to rerank.
            blend: the share of the head's score in that of a re-ranked hit, 1 (the head alone) to 0 (the coarse score
                alone), or ``"auto"``, what `xretrieve tune` found best. None: that where it was measured, else 1.
        """
        (found,) = self.search_many([Ask(query, k, where, drop_reference, rerank, blend)])
        if isinstance(found, XRetrieveError):
            raise found
        return found

    def search_many(self, asks: Sequence[Ask]) -> list[Ranking | XRetrieveError]:
        """Several searches, their queries encoded together. The answers are in the order of ``asks``; what is wrong
        with one of them is given in its place and does not touch the others.

        What another program changed since is read first (:meth:`refresh`).
        """
        self.refresh()
        answers = self._search_many(asks)
        for _ in range(READINGS):  # an error may come of files that another program has just replaced
            if not any(isinstance(answer, XRetrieveError) for answer in answers) or not self.refresh():
                break
            answers = self._search_many(asks)
        return answers

    def _search_many(self, asks: Sequence[Ask]) -> list[Ranking | XRetrieveError]:
        done: dict[int, Ranking | XRetrieveError] = {}
        queries: dict[int, Query] = {}
        for place, ask in enumerate(asks):
            try:
                queries[place] = checked_query(ask.query)
            except XRetrieveError as error:
                done[place] = error
        asked = Asked(list(queries.values()), self._matchers)
        for place, query in queries.items():
            try:
                done[place] = self._answer(asks[place], query, asked)
            except XRetrieveError as error:
                done[place] = error
        return [done[place] for place in range(len(asks))]

    def _answer(self, ask: Ask, query: Query, asked: Asked) -> Ranking:
        check_k(ask.k)
        if not len(self):
            raise XRetrieveError(f"{self.path} is empty; add pictures to it first")
        drop = isinstance(query, ImageText) if ask.drop_reference is None else ask.drop_reference
        allowed, notes = self._allowed(query, ask.where, drop, ask.digest)
        found = Stages(self._store, self._index, self._matchers).find(
            query, ask.k, allowed, ask.rerank, asked, ask.blend
        )
        notes += cut_notes(self.matcher, texts_of(query))
        many = len(self) if allowed is None else len(allowed)
        if not many:
            notes.append(f"nothing in the gallery matches where={ask.where}")
        return self._ranking(found, query, ask.k, many, notes)

    def picture(self, id_: str) -> Path:
        """The file of an indexed picture. An unknown id, or features without a picture, is an error."""
        path = self._item(self._row(id_)).path
        if not path:
            raise XRetrieveError(f"{id_!r} was indexed from precomputed features; there is no picture of it")
        return Path(path)

    def explain(self, query: Query | str, id_: str) -> dict[str, Any]:
        """What makes a picture answer a query as it does, found or not: :meth:`xretrieve.Ranking.explain` less rank
        and score."""
        from xretrieve.gallery.explain import explain_hit

        explained = explain_hit(self._store, self._matchers, checked_query(query), self._row(id_))
        return {"id": id_, **explained}

    def _ranking(self, found: Found, query: Query, k: int, many: int, notes: list[str], whole: bool = True) -> Ranking:
        """What was found of ``many`` pictures, as a ranking; ``whole`` as in ``explain_hit``."""
        if 0 < many < k and len(found.rows) == many:
            notes = [*notes, f"all {many} shown: fewer than the {k} asked for"]
        notes = [*notes, found.note] if found.note else notes
        hits = [
            self._hit(rank, row, score, rank <= found.exact)
            for rank, (row, score) in enumerate(zip(found.rows, found.scores, strict=True), 1)
        ]
        told: dict[str, Any] = {"attends": self._store.has_tokens and whole, "share": found.share, "weak": found.weak}
        return Ranking(hits, query, "; ".join(notes), lambda hit: self._explain(query, hit, whole), **told)

    def _where(self, where: dict[str, Any] | None) -> np.ndarray | None:
        """Rows whose metadata fit, ascending; None where nothing is asked for."""
        if not where:
            return None
        self._filter = self._filter or MetadataFilter(self._store.items)
        return self._filter.rows(where)

    def _allowed(
        self, query: Query, where: dict[str, Any] | None, drop_reference: bool, digest: str = ""
    ) -> tuple[np.ndarray | None, list[str]]:
        """Rows that may be returned (None: all), and notes for the reader."""
        rows = self._where(where)
        if not drop_reference or not isinstance(query, (Image, ImageText)):
            return rows, []
        if not digest and not isinstance(query.image, Path):
            return rows, []
        digest = digest or content_hash(query.image)
        same = [row for row, item in enumerate(self._store.items) if item is not None and item.hash == digest]
        if not same:
            return rows, []
        rows = np.setdiff1d(self._store.live() if rows is None else rows, same)
        return rows, [f"the query's own picture ({', '.join(self._item(row).id for row in same)}) is left out"]

    def _explain(self, query: Query, hit: Hit, whole: bool) -> dict[str, Any]:
        if hit.id not in self._store.rows:
            raise XRetrieveError(f"{hit.id!r} is no longer in {self.path}")
        from xretrieve.gallery.explain import explain_hit

        return explain_hit(self._store, self._matchers, query, self._store.rows[hit.id], whole)

    def _hit(self, rank: int, row: int, score: float, exact: bool) -> Hit:
        item = self._item(row)
        return Hit(rank, item.id, score, Path(item.path) if item.path else None, item.metadata, exact)

    def _item(self, row: int) -> Item:
        item = self._store.items[row]
        assert item is not None, f"row {row} was removed and must not be found"
        return item

    def find(self, id_: str) -> str | None:
        """The id that this one is, however its letters are coded (macOS takes letters and their accents apart); None
        where there is none."""
        if id_ in self._store.rows:
            return id_
        if self._coded is None:
            self._coded = {normalize("NFC", known): known for known in self._store.rows if not known.isascii()}
        composed = normalize("NFC", id_)
        return composed if composed in self._store.rows else self._coded.get(composed)

    def _row(self, id_: str) -> int:
        if (found := self.find(str(id_))) is not None:
            return self._store.rows[found]
        near = get_close_matches(str(id_), itertools.islice(self._store.rows, 20_000), n=1)
        raise UnknownNameError(f"{self.path} has no id {str(id_)!r}" + (f"; did you mean {near[0]!r}?" if near else ""))
