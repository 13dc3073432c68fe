"""One explanation as a page: the picture under the heat of the word that is chosen, stream beside stream."""

from __future__ import annotations

from typing import Any

from PIL import Image

from xretrieve.explain.figure import of_words, says
from xretrieve.explain.heat import overlay, stream_map, word_values
from xretrieve.ranking import data_uri, thumbnail

SIDE = 560  # longest side of the picture on the page


def page(told: dict[str, Any], picture: Image.Image | None, text: str) -> str:
    """A self-contained page without scripts.

    Args:
        told: the dict of :meth:`xretrieve.Ranking.explain`, with ``attention``.
        picture: the hit; None shows the heat alone.
        text: the query.
    """
    from jinja2 import Environment, PackageLoader, StrictUndefined

    attention = told["attention"]
    shape = picture.size if picture is not None else (4, 3)
    streams = []
    for stream, found in attention["streams"].items():
        even = 1 / (attention["regions"] if stream == "t2i" else len(attention["words"]))
        whole, low = stream_map(attention, stream)
        values = [word_values(attention, stream, place) for place in range(len(attention["words"]))]
        streams.append({
            "name": stream,
            "says": says(attention, stream),
            "whole": data_uri(overlay(attention, whole, shape, low=low), "png"),
            "words": [data_uri(overlay(attention, v, shape, peak=max(*v, 2 * even)), "png") for v in values],
            "peaks": [max(v) for v in values],
            "match": found["match"] if stream == "t2i" else [],
        })  # fmt: skip
    environment = Environment(
        loader=PackageLoader("xretrieve", "templates"), autoescape=True, undefined=StrictUndefined
    )
    return environment.get_template("explain.html").render(
        told=told, text=text, picture=thumbnail(picture, SIDE), shape=shape, words=attention["words"],
        one="word" if of_words(attention) else "sentence", streams=streams,
    )  # fmt: skip
