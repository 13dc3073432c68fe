"""Caption modes: how the modification texts of one triplet become query texts. The mode is part of a protocol's name.

The two captions of a Fashion-IQ pair were written by two people; public code joins them in different ways, and scores
under different modes are not comparable.
"""

from __future__ import annotations

from collections.abc import Sequence

from xretrieve.errors import XRetrieveError, unknown

MODES = {
    "single": "the first text",
    "and": '"C1 and c2"',
    "both-orders": '"C1 and c2" and "C2 and c1", two queries',
    "each": "every text is a query",
    "mean-orders": "one query: the mean of the unit vectors of both orders",
    "tagged": '"<start> c1 <and> c2 <end>"',
}
TRAINING = (*MODES, "and-random")  # and-random draws: c1 and c2, c2 and c1, c1, c2, a quarter each
_EDGES = " .?,"


def clean(texts: Sequence[str]) -> list[str]:
    """The texts without surrounding blanks and punctuation; an empty one is left out, so it leaves the other alone.

    >>> clean(["is shiny.", "", " has no sleeves "])
    ['is shiny', 'has no sleeves']
    """
    return [text for text in (t.strip(_EDGES) for t in texts) if text]


def query_texts(texts: Sequence[str], mode: str) -> list[str]:
    """The query texts of one triplet under a caption mode; each is a query of its own, but for ``mean-orders``.

    Args:
        texts: at least one of them not empty.
        mode: one of :data:`MODES`.

    >>> query_texts(["is shiny", "has no Sleeves."], "and"), query_texts(["is shiny", ""], "and")
    (['Is shiny and has no Sleeves'], ['Is shiny'])
    >>> query_texts(["Is SHINY", "long"], "both-orders")
    ['Is shiny and long', 'Long and Is SHINY']
    """
    if mode not in MODES:
        raise unknown("caption mode", mode, MODES)
    if mode in ("single", "each"):
        given = [text.strip() for text in texts if text.strip(_EDGES)]
        return _some(given if mode == "each" else given[:1], texts)
    parts = _some(clean(texts), texts)
    if mode == "tagged":
        return [f"<start> {' <and> '.join(parts)} <end>"]
    orders = [_join(parts)] if mode == "and" else [_join(parts), _join(parts[::-1])]
    return orders


def training_texts(texts: Sequence[str], mode: str) -> list[str]:
    """The texts of a triplet that training draws from, each as likely: the queries of a mode, or those of
    ``and-random``.

    >>> training_texts(["is red", "long"], "and-random")
    ['Is red and long', 'Long and is red', 'Is red', 'Long']
    """
    if mode != "and-random":
        return query_texts(texts, mode)
    parts = _some(clean(texts), texts)
    return [_join(said) for said in (parts, parts[::-1], parts[:1], parts[-1:])]


def _join(parts: Sequence[str]) -> str:
    return " and ".join([parts[0].capitalize(), *parts[1:]])  # capitalize also lower-cases the rest, as published code


def _some(parts: list[str], texts: Sequence[str]) -> list[str]:
    if not parts:
        raise XRetrieveError(f"no words in the modification texts {list(texts)!r}")
    return parts
