"""The one query type of all tasks: `Text`, `MultiText`, `Image`, `ImageText`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from xretrieve.errors import XRetrieveError
from xretrieve.utils.paths import is_file

LONGEST_TEXT = 10_000  # characters of a text; encoders of words have no limit of their own
ImageLike = str | Path | Any  # a path, or a PIL image


def _words(text: object, what: str) -> str:
    if not isinstance(text, str):
        raise XRetrieveError(f"{what}: expected a string, got {type(text).__name__}")
    if not text.strip():
        raise XRetrieveError(f"{what} is empty: write at least one word")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise XRetrieveError(f"{what} is not valid text ({ascii(text[:40])}); write it in UTF-8") from None
    if len(text) > LONGEST_TEXT:
        raise XRetrieveError(f"{what} has {len(text):,} characters; at most {LONGEST_TEXT:,} are read")
    return text.strip()


def _picture(image: ImageLike, what: str) -> ImageLike:
    if isinstance(image, (str, Path)):
        path = Path(image)
        if not is_file(path):
            raise XRetrieveError(f"{what}: no picture at {path}")
        return path
    if not hasattr(image, "convert"):
        raise XRetrieveError(f"{what}: expected a path or a PIL image, got {type(image).__name__}")
    return image


@dataclass(frozen=True)
class Text:
    """One sentence.

    >>> Text("a dog in the snow").text
    'a dog in the snow'
    """

    text: str

    def __post_init__(self) -> None:
        object.__setattr__(self, "text", _words(self.text, "text query"))


@dataclass(frozen=True)
class MultiText:
    """Several short sentences about one remembered picture; the order is the order in which they were said.

    >>> len(MultiText(["a man in a red coat", "a sledge"]))
    2
    """

    texts: tuple[str, ...]

    def __init__(self, texts: list[str] | tuple[str, ...]) -> None:
        if isinstance(texts, str):
            raise XRetrieveError("multi-text query: give a list of sentences; for one sentence use Text")
        if not isinstance(texts, (list, tuple)) and texts is not None:
            raise XRetrieveError(f"multi-text query: expected a list of sentences, got {type(texts).__name__}")
        if not texts:
            raise XRetrieveError("multi-text query is empty: give at least one sentence")
        said = tuple(_words(text, f"multi-text query, sentence {i + 1}") for i, text in enumerate(texts))
        object.__setattr__(self, "texts", said)

    def __len__(self) -> int:
        return len(self.texts)

    def __iter__(self) -> Iterator[str]:
        return iter(self.texts)


@dataclass(frozen=True)
class Image:
    """A picture: a path or a PIL image."""

    image: ImageLike

    def __post_init__(self) -> None:
        object.__setattr__(self, "image", _picture(self.image, "image query"))


@dataclass(frozen=True)
class ImageText:
    """A reference picture and what should be different in the picture that is looked for."""

    image: ImageLike
    text: str

    def __post_init__(self) -> None:
        object.__setattr__(self, "image", _picture(self.image, "image+text query"))
        object.__setattr__(self, "text", _words(self.text, "image+text query: the text"))


Query = Text | MultiText | Image | ImageText


def texts_of(query: Query) -> tuple[str, ...]:
    """The texts of any query, in their order."""
    if isinstance(query, (Text, ImageText)):
        return (query.text,)
    return query.texts if isinstance(query, MultiText) else ()


def checked_query(query: object) -> Query:
    """A query; a plain string becomes a `Text`, anything else that is no query is an error."""
    query = Text(query) if isinstance(query, str) else query
    if not isinstance(query, (Text, MultiText, Image, ImageText)):
        raise XRetrieveError(f"not a query: {query!r}; use Text, MultiText, Image or ImageText")
    return query
