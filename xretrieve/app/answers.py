"""From requests to queries, and from rankings to what strangers may see of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from xretrieve.app.errors import ApiError
from xretrieve.errors import XRetrieveError
from xretrieve.query import Image, ImageText, MultiText, Query, Text, texts_of
from xretrieve.utils.paths import is_file

if TYPE_CHECKING:
    from pathlib import Path

    from xretrieve.gallery import Gallery
    from xretrieve.ranking import Ranking


def file_of(gallery: Gallery, id_: str) -> Path:
    """The file of an indexed picture; an id that is not in the index is status 404, whatever it looks like."""
    if gallery.find(id_) is None:  # asked first: the gallery's own error looks for an id that is meant
        raise ApiError(404, f"the index has no id {id_[:200]!r}")
    try:
        return gallery.picture(id_)
    except XRetrieveError as error:
        raise ApiError(404, str(error)) from error


def picture_of(
    gallery: Gallery, texts: Sequence[str], image: str | None, picture: str | bytes | None
) -> bytes | str | Path | None:
    """What a request shows: a file's bytes, those in base64, or where an indexed picture lies; None for texts alone."""
    if image is not None and picture is not None:
        raise ApiError(422, "image and picture are both given; send one of them")
    if image is None:
        if picture is None and not texts:
            raise ApiError(422, "nothing to search for: send texts, an image, or both")
        return picture
    path = file_of(gallery, image)
    if not is_file(path):
        raise ApiError(404, f"the picture of {image!r} is no longer on the disk")
    return path


def make_query(texts: Sequence[str], shown: Any = None) -> Query:
    """The query of a request; ``shown``: its picture, decoded."""
    if shown is not None:
        return ImageText(shown, " and ".join(texts)) if texts else Image(shown)
    return MultiText(list(texts)) if len(texts) > 1 else Text(texts[0])


def results(gallery: Gallery, ranking: Ranking, seconds: float) -> dict[str, Any]:
    """The body of an answer of a gallery; paths on the disk are left out."""
    hits = [
        {
            "rank": hit.rank,
            "id": hit.id,
            "score": hit.score,
            "exact": hit.exact,
            "picture": hit.path is not None,
            "metadata": _shown(hit.metadata),
        }
        for hit in ranking
    ]
    texts = list(texts_of(ranking.query)) if ranking.query is not None else []
    return {"texts": texts, "hits": hits, "note": ranking.note, "weak": ranking.weak, "share": ranking.share,
            "revision": gallery.info["revision"], "seconds": seconds}  # fmt: skip


def _shown(metadata: dict[str, Any]) -> dict[str, Any]:
    """Metadata without the places of copies: only how many there are."""
    rest = {key: value for key, value in metadata.items() if key != "paths"}
    return rest | ({"copies": len(metadata["paths"]) - 1} if "paths" in metadata else {})


def explanation(gallery: Gallery, query: Query, id_: str) -> dict[str, Any]:
    """The body of an explanation: boxes in shares of the picture, no paths."""
    told = gallery.explain(query, id_)
    told["parts"] = [{key: value for key, value in part.items() if key != "image"} for part in told["parts"]]
    layout = (told.get("attention") or {}).get("layout")
    if layout is not None and layout.get("boxes") is not None:
        from xretrieve.data.pictures import picture_size
        from xretrieve.explain.heat import shares

        try:
            size = picture_size(gallery.picture(id_))
        except XRetrieveError:
            size = None
        layout["boxes"] = shares(layout["boxes"], size).clip(0, 1).tolist()
    return told
