"""`Ranking`: the result of a search; it iterates, explains itself, and is written as JSON, TREC run or HTML."""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

from xretrieve.errors import XRetrieveError
from xretrieve.query import Image, ImageText, MultiText, Query, Text
from xretrieve.utils.files import write_text
from xretrieve.utils.paths import is_file

THUMBNAIL = 320  # longest side in pixels


@dataclass(frozen=True)
class Hit:
    """One result: rank from 1, gallery id, float32 score, path (None for precomputed features), metadata.

    ``exact`` is false below the candidates that the head scored: those hits are in coarse order, by coarse scores.
    """

    rank: int
    id: str
    score: float
    path: Path | None = None
    metadata: dict[str, Any] = field(default_factory=dict)
    exact: bool = True


class Ranking:
    """Hits, best first.

    Args:
        hits: the results.
        query: what was asked.
        note: what the reader should know, for example that the gallery is smaller than k; '' when nothing.
        explain: called with a hit, gives the dict of :meth:`explain`.
        attends: whether that dict may hold ``attention``.
        share: of the pictures that could be returned, the part that the head scored in full; None where vectors are
            the scores.
        weak: no hit fits as well as those of nearly every validation query; False where nothing was measured
            (`xretrieve tune`).

    >>> ranking = Ranking([Hit(1, "a.jpg", 0.5), Hit(2, "b c.jpg", 0.25)], Text("a dog"))
    >>> len(ranking), ranking.ids, ranking[1].score
    (2, ['a.jpg', 'b c.jpg'], 0.25)
    >>> print(ranking.to_trec("demo"), end="")
    1 Q0 a.jpg 1 0.5 demo
    1 Q0 b%20c.jpg 2 0.25 demo
    """

    def __init__(
        self,
        hits: list[Hit],
        query: Query | None = None,
        note: str = "",
        explain: Callable[[Hit], dict[str, Any]] | None = None,
        attends: bool = False,
        share: float | None = None,
        weak: bool = False,
    ) -> None:
        self.hits, self.query, self.note, self._explain = list(hits), query, note, explain
        self._attends, self.share, self.weak = attends, share, weak

    def __len__(self) -> int:
        return len(self.hits)

    def __iter__(self) -> Iterator[Hit]:
        return iter(self.hits)

    def __getitem__(self, place: int) -> Hit:
        """The hit at a place, counted from 0."""
        return self.hits[place]

    def __repr__(self) -> str:
        return f"Ranking({len(self)} hits for {self.query!r})"

    @property
    def ids(self) -> list[str]:
        """Ids, best first."""
        return [hit.id for hit in self.hits]

    @property
    def scores(self) -> list[float]:
        """Scores, best first."""
        return [hit.score for hit in self.hits]

    def explain(self, place: int) -> dict[str, Any]:
        """What made the hit at ``place`` (from 0) score as it does.

        ``parts`` lists each text and picture of the query with its own score against the hit (``cosine`` for heads with
        unit vectors); of an `ImageText` query also its ``weight``: how much of the picture and of the text is in the
        composed vector, 1 in all. Heads that compare words and regions add ``attention``: which words look at which
        regions and the reverse, and where the regions lie (:func:`xretrieve.explain.attention_of` lists its keys).
        Heads over query sets say what each sentence found where (:func:`xretrieve.explain.sets.set_told`).
        """
        if not -len(self) <= place < len(self):
            raise XRetrieveError(f"explain({place}): the ranking has {len(self)} hits, counted from 0")
        hit = self.hits[place]
        more = self._explain(hit) if self._explain is not None else {"parts": []}
        return {"rank": hit.rank, "id": hit.id, "score": hit.score, **more}

    def to_json(self) -> dict[str, Any]:
        """A dict that ``json.dumps`` takes: query, note, share, weak and hits."""
        hits = [
            {
                "rank": h.rank,
                "id": h.id,
                "score": h.score,
                "path": str(h.path) if h.path else None,
                "metadata": h.metadata,
                "exact": h.exact,
            }
            for h in self.hits
        ]
        return {"query": describe_query(self.query), "note": self.note, "share": self.share, "weak": self.weak,
                "hits": hits}  # fmt: skip

    def to_trec(self, tag: str = "xretrieve", query_id: str = "1") -> str:
        """The lines of a TREC run file: ``query Q0 id rank score tag``. White space in ids becomes ``%20`` etc.

        Tools sort these lines by score, so the scores of hits in coarse order are moved below those of the exact ones.
        """
        exact = [h.score for h in self.hits if h.exact]
        coarse = [h.score for h in self.hits if not h.exact]
        down = max(coarse) - min(exact) + 1 if exact and coarse else 0.0
        scored = [(h, h.score if h.exact else h.score - down) for h in self.hits]
        return "".join(
            f"{_field(query_id)} Q0 {_field(h.id)} {h.rank} {score:.9g} {_field(tag)}\n" for h, score in scored
        )

    def to_html(self, path: str | Path) -> Path:
        """Write one self-contained page: the query, and each hit with a small copy of its picture inside the page.

        Where the head compares words and regions, a switch lays the heat of the text over the pictures.
        """
        from jinja2 import Environment, PackageLoader, StrictUndefined

        page = Environment(loader=PackageLoader("xretrieve", "templates"), autoescape=True, undefined=StrictUndefined)
        asked = describe_query(self.query)
        reference = self.query.image if isinstance(self.query, (Image, ImageText)) else None
        hits = [{"hit": hit, "thumbnail": thumbnail(hit.path), **self._heat(place)} for place, hit in enumerate(self)]
        text = page.get_template("ranking.html").render(
            texts=asked.get("texts", []),
            reference=thumbnail(reference),
            has_reference=reference is not None,
            note=self.note,
            hits=hits,
        )
        write_text(path, text)
        return Path(path)

    def _heat(self, place: int) -> dict[str, Any]:
        """The heat of the text over a hit, and its words with how well each is found."""
        path = self.hits[place].path
        if not self._attends or path is None or not is_file(path):
            return {"heat": "", "words": []}
        from xretrieve.explain import found_words, whole_overlay

        told = self.explain(place).get("attention")
        if told is None:
            return {"heat": "", "words": []}
        return {"heat": data_uri(whole_overlay(told, path), "png"), "words": found_words(told)}


def describe_query(query: Query | None) -> dict[str, Any]:
    """A query as plain values: ``kind``, ``texts``, ``image`` (path, or null for a picture from memory)."""
    if isinstance(query, Text):
        return {"kind": "text", "texts": [query.text]}
    if isinstance(query, MultiText):
        return {"kind": "multi-text", "texts": list(query)}
    if isinstance(query, (Image, ImageText)):
        path = str(query.image) if isinstance(query.image, Path) else None
        if isinstance(query, ImageText):
            return {"kind": "image+text", "image": path, "texts": [query.text]}
        return {"kind": "image", "image": path}
    return {}


def thumbnail(picture: Any, size: int = THUMBNAIL) -> str:
    """A JPEG data URI of a path or PIL image, '' when there is no picture or it can no longer be read."""
    from xretrieve.data.pictures import read_picture

    if picture is None:
        return ""
    try:
        image = read_picture(picture, side=size).copy()
    except XRetrieveError:
        return ""
    image.thumbnail((size, size))
    buffer = io.BytesIO()
    image.convert("RGB").save(buffer, "JPEG", quality=82)
    return data_uri(buffer.getvalue(), "jpeg")


def data_uri(picture: bytes, kind: str) -> str:
    """The bytes of a picture file as a data URI, '' for none."""
    return f"data:image/{kind};base64," + base64.b64encode(picture).decode() if picture else ""


def _field(text: str) -> str:
    return re.sub(r"[\s%]", lambda match: quote(match.group(), safe=""), text)
