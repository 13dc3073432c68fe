"""Fields of annotation files as what they are: a text is a text, and null, numbers and the like are no words."""

from __future__ import annotations

from typing import Any

from xretrieve.errors import XRetrieveError, shown


def read_texts(value: Any, where: str) -> tuple[str, ...]:
    """The texts of a field that holds one text or a list of them; anything else is an error. A text may be empty, as
    some in Fashion-IQ are.

    Args:
        value: of the field.
        where: begins the error: the file, the entry and the key.

    >>> read_texts("is red", "cap.json"), read_texts(["is red", "has sleeves"], "cap.json")
    (('is red',), ('is red', 'has sleeves'))
    """
    texts = [value] if isinstance(value, str) else value
    if not isinstance(texts, list) or not texts:
        raise XRetrieveError(
            f"{where}: expected a text or a list of texts, got {shown(value)}; mend or remove the entry"
        )
    for text in texts:
        if not isinstance(text, str):
            raise XRetrieveError(f"{where}: {shown(text)} is no text; mend or remove the entry")
    return tuple(texts)


def read_name(value: Any, where: str) -> str:
    """An image's name or number; ``where`` as in :func:`read_texts`."""
    if isinstance(value, bool) or not isinstance(value, (str, int)) or not str(value).strip():
        raise XRetrieveError(f"{where}: expected the name of an image, got {shown(value)}; mend or remove the entry")
    return str(value)
