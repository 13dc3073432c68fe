"""Queries that are answered together: each side of a model sees the texts and the pictures of all of them at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from xretrieve.errors import XRetrieveError
from xretrieve.query import Image, ImageText, Query, texts_of
from xretrieve.tokens import Prepared

if TYPE_CHECKING:
    from xretrieve.gallery.matchers import Matchers


@dataclass(frozen=True)
class Ask:
    """One search: the query, and the arguments of :meth:`xretrieve.Gallery.search`.

    ``digest``: the content hash of the query's picture, where it was read before; for ``drop_reference``.
    """

    query: Query | str
    k: int = 10
    where: dict[str, Any] | None = None
    drop_reference: bool | None = None
    rerank: int | str | None = None
    blend: float | str | None = None
    digest: str = ""


def cut_notes(matcher: Any, texts: Sequence[str]) -> list[str]:
    """What to say of texts that are longer than the model reads; nothing where all of them are read."""
    read = getattr(getattr(matcher, "text", None), "cut", None) if texts else None  # a picture needs no text side
    long = [counts for counts in read(list(texts)) if counts[1] > counts[0]] if read is not None else []
    if not long:
        return []
    most, has = max(long, key=lambda counts: counts[1])
    which = "the text has" if len(texts) == 1 else f"{len(long)} of the texts are too long, one has"
    return [f"{which} {has} tokens and the model reads {most}: the rest was cut; say it shorter, or as several texts"]


def sides_of(query: Query) -> list[str]:
    """The sides of a matcher that a query needs (`text`, `image`)."""
    return ["text"] * bool(texts_of(query)) + ["image"] * isinstance(query, (Image, ImageText))


class Asked:
    """What a matcher makes of some queries, made at the first need and for all of them.

    Args:
        queries: to be answered. What is wrong with one of several is raised when that one is asked for, and does not
            touch the others.
        matchers: of the gallery; where both have one backbone, it sees each text and each picture once.
    """

    def __init__(self, queries: Sequence[Query], matchers: Matchers | None = None) -> None:
        self._queries, self._matchers = list(queries), matchers
        self._sides: dict[tuple[int, str], Prepared] = {}  # of a matcher and a side: all texts, or all pictures
        self._made: dict[tuple[int, bool, int], Prepared | XRetrieveError] = {}

    def prepared(self, matcher: Any, query: Query, coarse: bool = False) -> Prepared:
        """One row of prepared tokens; ``coarse`` as in :meth:`xretrieve.Matcher.encode_query`."""
        key = (id(matcher), coarse, id(query))
        several = len(self._queries) > 1 or any(len(self._over(matcher, side)) > 1 for side in sides_of(query))
        if key not in self._made and several and hasattr(matcher, "combine_query"):
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
            texts = self._side(matcher, "text", said) if said else None
            pictures = self._side(matcher, "image", shown) if shown else None
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

    def _side(self, matcher: Any, side: str, items: list[Any]) -> Prepared:
        """All texts, or all pictures, as the head of a matcher reads them."""
        if (id(matcher), side) not in self._sides:
            those = self._over(matcher, side)
            heads = [one.head for one in those] if len(those) > 1 else []
            if heads:
                made = matcher.encode_texts_for(heads, items) if side == "text" else \
                    matcher.encode_images_for(heads, items)  # fmt: skip
            else:
                made = [matcher.encode_texts(items) if side == "text" else matcher.encode_images(items)]
            self._sides |= {(id(one), side): prepared for one, prepared in zip(those, made, strict=True)}
        return self._sides[id(matcher), side]

    def _over(self, matcher: Any, side: str) -> list[Any]:
        return self._matchers.beside(matcher, side) if self._matchers is not None else [matcher]
