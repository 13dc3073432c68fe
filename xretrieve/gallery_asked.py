"""Queries that are answered together: each side of a model sees the texts and the pictures of all of them at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from xretrieve.errors import XRetrieveError
from xretrieve.query import Image, ImageText, Query, texts_of
from xretrieve.tokens import Prepared


@dataclass(frozen=True)
class Ask:
    """One search: the query, and the arguments of :meth:`xretrieve.Gallery.search`."""

    query: Query | str
    k: int = 10
    where: dict[str, Any] | None = None
    drop_reference: bool | None = None
    rerank: int | str | None = None
    blend: float | str | None = None


class Asked:
    """What a matcher makes of some queries, made at the first need and for all of them.

    Args:
        queries: to be answered. A single one is encoded as :meth:`xretrieve.Matcher.encode_query` does. What is wrong
            with one of several is raised when that one is asked for, and does not touch the others.
    """

    def __init__(self, queries: Sequence[Query]) -> None:
        self._queries = list(queries)
        self._made: dict[tuple[int, bool, int], Prepared | XRetrieveError] = {}

    def prepared(self, matcher: Any, query: Query, coarse: bool = False) -> Prepared:
        """One row of prepared tokens; ``coarse`` as in :meth:`xretrieve.Matcher.encode_query`."""
        key = (id(matcher), coarse, id(query))
        if key not in self._made and len(self._queries) > 1 and hasattr(matcher, "combine_query"):
            self._together(matcher, coarse)
        if key not in self._made:
            return matcher.encode_query(query, coarse=True) if coarse else matcher.encode_query(query)
        made = self._made[key]
        if isinstance(made, XRetrieveError):
            raise made
        return made

    def _together(self, matcher: Any, coarse: bool) -> None:
        said = [text for query in self._queries for text in texts_of(query)]
        shown = [query.image for query in self._queries if isinstance(query, (Image, ImageText))]
        try:
            texts = matcher.encode_texts(said) if said else None
            pictures = matcher.encode_images(shown) if shown else None
        except XRetrieveError:  # of whichever query it is: each for itself then
            return
        text = picture = 0
        for query in self._queries:
            some, one = len(texts_of(query)), isinstance(query, (Image, ImageText))
            own = texts[text : text + some].trim() if texts is not None and some else None
            seen = pictures[picture : picture + 1] if pictures is not None and one else None
            text, picture = text + some, picture + one
            try:
                made: Prepared | XRetrieveError = matcher.combine_query(query, seen, own, coarse)
            except XRetrieveError as error:
                made = error
            self._made[id(matcher), coarse, id(query)] = made
