"""What made one hit of a gallery score as it does."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from xretrieve.data.base import FeatureRow
from xretrieve.errors import QueryKindError, XRetrieveError
from xretrieve.explain.attention import attention_of
from xretrieve.explain.sets import set_told
from xretrieve.gallery.encode import to_numpy
from xretrieve.gallery.matchers import Matchers
from xretrieve.gallery.store import Store
from xretrieve.query import Image, ImageText, MultiText, Query, Text

if TYPE_CHECKING:
    from xretrieve.backbones.places import Layout
    from xretrieve.matcher import Matcher


def explain_hit(store: Store, matchers: Matchers, query: Query, row: int, whole: bool = True) -> dict[str, Any]:
    """The dict of :meth:`xretrieve.Ranking.explain`, less rank, id and score.

    whole: False leaves out what the head sees in the query as a whole: another rule made one score of its parts'.
    """
    if store.has_tokens:
        try:
            return _exact(store, matchers.main, query, row, whole)
        except QueryKindError:
            if matchers.coarse_by == "none":
                raise
    return {"parts": _coarse(store, matchers.coarse, query, row)}


def _exact(store: Store, matcher: Matcher, query: Query, row: int, whole: bool) -> dict[str, Any]:
    """Each text and picture of a query alone, scored by the head, and who looks where if it can tell."""
    prepared = matcher.encode_query(query) if whole else None
    tokens = store.tokens([row]).to(matcher.device)
    image = matcher.head.restore_gallery(tokens.local, tokens.mask, tokens.pooled)
    parts = []
    for about, alone in _alone(query):
        with contextlib.suppress(QueryKindError):  # what only counts together with the rest has no score of its own
            asked = prepared if alone == query and prepared is not None else matcher.encode_query(alone)
            parts.append(about | {"score": float(matcher.score(asked, image)[0, 0])})
    told: dict[str, Any] = {"parts": parts}
    if prepared is None or not isinstance(query, (Text, MultiText)) or matcher.head.looks is None:
        return told
    where = place(store, matcher, row)
    if matcher.head.set_stage is not None:
        sentences = [part["text"] for part in parts]
        each, more = set_told(matcher.head.set_stage, prepared, image, sentences, where)
        return {"parts": [part | one for part, one in zip(parts, each, strict=True)], **more}
    if isinstance(query, Text):
        words = matcher.text.token_texts([query.text])[0]
        told["attention"] = attention_of(matcher.head.looks, prepared, image, words, where)
    return told


def _coarse(store: Store, matcher: Matcher, query: Query, row: int) -> list[dict[str, Any]]:
    """Each text and picture of a query alone, scored by the coarse vectors; what of both is in a composed query."""
    vector, parts = store.vectors([row])[0], []
    for about, alone in _alone(query):
        asked = matcher.encode_query(alone, coarse=True) if store.has_tokens else matcher.encode_query(alone)
        parts.append(about | {"score": float(to_numpy(asked.pooled)[0] @ vector)})
    head = getattr(matcher, "head", None)
    if isinstance(query, ImageText) and head is not None and not store.has_tokens:
        with torch.inference_mode():
            sides = matcher.encode_images([query.image]), matcher.encode_texts([query.text])
            weights, each = head.query_weights(*sides), head.attribute_weights(*sides)
        if weights is not None:
            parts = [part | {"weight": float(w)} for part, w in zip(parts, weights[0], strict=True)]
        if each:
            parts = [part | {"attributes": {name: float(w[0, i]) for name, w in each.items()}}
                     for i, part in enumerate(parts)]  # fmt: skip
    return parts


def _alone(query: Query) -> list[tuple[dict[str, Any], Query]]:
    """What a query is made of: how each part is told, and the part as a query of its own."""
    parts: list[tuple[dict[str, Any], Query]] = []
    if isinstance(query, (Image, ImageText)):
        path = str(query.image) if isinstance(query.image, Path) else None
        parts.append(({"kind": "image", "image": path}, Image(query.image)))
    texts = query.texts if isinstance(query, MultiText) else () if isinstance(query, Image) else (query.text,)
    return parts + [({"kind": "text", "text": text}, Text(text)) for text in texts]


def place(store: Store, matcher: Matcher, row: int) -> Layout | None:
    """Where the local tokens of a row lie; None where nothing says it, or the picture is gone."""
    item = store.items[row]
    assert item is not None
    source: Any = Path(item.path) if item.path else None
    if item.features is not None:
        source = FeatureRow(Path(item.features[0]), int(item.features[1]))
    try:
        return matcher.image.layout([source])[0] if source is not None else None
    except XRetrieveError:
        return None
