"""What made one hit of a gallery score as it does."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from xretrieve.data.base import FeatureRow
from xretrieve.errors import QueryKindError, XRetrieveError
from xretrieve.explain.attention import attention_of
from xretrieve.gallery_encode import to_numpy
from xretrieve.gallery_matchers import Matchers
from xretrieve.gallery_store import Store
from xretrieve.query import Image, ImageText, MultiText, Query, Text

if TYPE_CHECKING:
    from xretrieve.backbones.places import Layout
    from xretrieve.matcher import Matcher


def explain_hit(store: Store, matchers: Matchers, query: Query, row: int) -> dict[str, Any]:
    """The dict of :meth:`xretrieve.Ranking.explain`, less rank, id and score."""
    if store.has_tokens:
        try:
            return _attention(store, matchers.main, query, row)
        except QueryKindError:
            if matchers.coarse_by == "none":
                raise
    return {"parts": _parts(store, matchers.coarse, query, row)}


def _attention(store: Store, matcher: Matcher, query: Query, row: int) -> dict[str, Any]:
    """The score of the text, and who looks where."""
    prepared = matcher.encode_query(query)
    assert isinstance(query, (Text, MultiText)), "a head that scores tokens takes a text"
    text = query.text if isinstance(query, Text) else query.texts[0]
    tokens = store.tokens([row]).to(matcher.device)
    image = matcher.head.restore_gallery(tokens.local, tokens.mask, tokens.pooled)
    score = float(matcher.score(prepared, image)[0, 0])
    words = matcher.text.token_texts([text])[0]
    told = attention_of(matcher.head, prepared, image, words, place(store, matcher, row))
    return {"parts": [{"kind": "text", "text": text, "score": score}], "attention": told}


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


def _parts(store: Store, matcher: Matcher, query: Query, row: int) -> list[dict[str, Any]]:
    """Each text and picture of a query alone, scored against one row by the coarse vectors."""
    vector = store.vectors([row])[0]
    texts = (
        list(query) if isinstance(query, MultiText) else [query.text] if isinstance(query, (Text, ImageText)) else []
    )
    parts: list[dict[str, Any]] = []
    if isinstance(query, (Image, ImageText)):
        score = float(to_numpy(matcher.encode_images([query.image]).pooled)[0] @ vector)
        parts.append(
            {"kind": "image", "image": str(query.image) if isinstance(query.image, Path) else None, "score": score}
        )
    if texts:
        scores = to_numpy(matcher.encode_texts(texts).pooled) @ vector
        parts += [
            {"kind": "text", "text": text, "score": float(score)} for text, score in zip(texts, scores, strict=True)
        ]
    return parts
