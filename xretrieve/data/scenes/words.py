"""From a description to words: noun phrases, places and relations, each said in one of several ways."""

from __future__ import annotations

from xretrieve.data.scenes.scene import Description, Draw
from xretrieve.data.scenes.vocabulary import (
    COLOURS,
    COLUMNS,
    NUMBERS,
    PLACES,
    ROWS,
    SHAPES,
    SIZES,
    TEXTURES,
)


def colour_word(draw: Draw, colour: str) -> str:
    """A word for a colour."""
    return draw.pick(COLOURS[colour][1])


def size_word(draw: Draw, size: str) -> str:
    """A word for a size."""
    return draw.pick(SIZES[size])


def shape_word(draw: Draw, shape: str, plural: bool = False) -> str:
    """A word for a shape."""
    return draw.pick(SHAPES[shape])[plural]


def texture_word(draw: Draw, texture: str) -> str:
    """An adjective for a texture."""
    return draw.pick(TEXTURES[texture][0])


def place_phrase(draw: Draw, row: int | None, col: int | None) -> str:
    """Where something is, for example ``at the top left`` or, with the column left open, ``in the top row``."""
    if row is None:
        return "" if col is None else draw.pick(COLUMNS[col])
    return draw.pick(ROWS[row] if col is None else PLACES[row, col])


def article(phrase: str) -> str:
    """The phrase with ``a`` or ``an`` before it."""
    return f"{'an' if phrase[0] in 'aeiou' else 'a'} {phrase}"


def noun(draw: Draw, said: Description, plural: bool = False) -> str:
    """The noun phrase of a description, without article and place: ``large red star with stripes``."""
    words, tail = [], ""
    if said.size:
        words.append(size_word(draw, said.size))
    if said.texture:
        additions = TEXTURES[said.texture][1]
        if additions and draw.chance(0.3):
            tail = " " + draw.pick(additions)
        else:
            words.append(texture_word(draw, said.texture))
    if said.colour:
        words.append(colour_word(draw, said.colour))
    words.append(shape_word(draw, said.shape, plural) if said.shape else draw.pick(("thing", "shape")) + "s" * plural)
    return " ".join(words) + tail


def thing(draw: Draw, said: Description, determiner: str = "a", place: bool = True) -> str:
    """A noun phrase with article and, when it is part of the description, the place."""
    phrase = noun(draw, said)
    where = place_phrase(draw, said.row, said.col) if place else ""
    head = article(phrase) if determiner == "a" else f"{determiner} {phrase}"
    return f"{head} {where}".strip()


def counted(draw: Draw, said: Description, count: int) -> str:
    """``two red circles``, ``a red circle`` or ``no red circles``."""
    return thing(draw, said, place=False) if count == 1 else f"{NUMBERS[count]} {noun(draw, said, plural=True)}"


def listing(parts: list[str]) -> str:
    """``a, b and c``."""
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"


def sentence(text: str) -> str:
    """The text with a capital and a full stop."""
    return text[0].upper() + text[1:] + "."
