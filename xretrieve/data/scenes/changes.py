"""Modification texts: how one asks for the target when the reference is in hand."""

from __future__ import annotations

from collections.abc import Callable

from xretrieve.data.scenes.regions import unique_description
from xretrieve.data.scenes.sample import Edit
from xretrieve.data.scenes.scene import Description, Draw, Scene, Thing, describe
from xretrieve.data.scenes.words import (
    article,
    colour_word,
    place_phrase,
    shape_word,
    size_word,
    texture_word,
    thing,
)

FORMS: dict[str, tuple[str, ...]] = {
    "colour": ("make {the} {new}", "the same, but {the} is {new}", "{the} should be {new}, not {old}",
               "change the colour of {the} to {new}"),
    "shape": ("replace {the} with {a_new}", "{a_new} instead of {the}", "turn {the} into {a_new}",
              "swap {the} for {a_new}"),
    "size": ("make {the} {new}", "the same with {the} {new}", "{the} should be {new}, not {old}",
             "change the size of {the} to {new}"),
    "texture": ("make {the} {new}", "the same, but {the} is {new}", "{the} should be {new}, not {old}",
                "{the} has become {new}"),
    "place": ("move {the} so that it is {new}", "the same, but {the} is now {new}", "put {the} {new}",
              "{the} should be {new}, not {old}"),
    "add": ("add {a_new}", "the same with {a_new} as well", "put in {a_new}", "there is also {a_new}"),
    "remove": ("remove {the}", "the same without {the}", "take away {the}", "{the} is gone"),
}  # fmt: skip
_WORD: dict[str, Callable[[Draw, str], str]] = {"colour": colour_word, "size": size_word, "texture": texture_word}


def modification_texts(reference: Scene, edit: Edit, seed: str, count: int = 2) -> tuple[str, ...]:
    """``count`` (at most 4) phrasings of an edit of ``reference``; each says which thing, and what it becomes."""
    draw = Draw(seed)
    return tuple(_phrase(draw, reference, edit, form) for form in draw.shuffled(FORMS[edit.kind])[:count])


def may_mean(edit: Edit, other: Edit) -> bool:
    """Whether the texts of ``edit`` are as true of ``other``, an edit of the same reference."""
    if (edit.kind, edit.old) != (other.kind, other.old):
        return False
    if edit.kind == "add" and edit.new is not None and other.new is not None:
        return _added(edit.new).fits(other.new)
    return edit.new == other.new


def _added(new: Thing) -> Description:
    """What is said of a thing that is added; plain goes without saying."""
    return describe(new, "shape", "colour", "size", "place", *(["texture"] if new.texture != "plain" else []))


def _phrase(draw: Draw, reference: Scene, edit: Edit, form: str) -> str:
    words = {}
    if edit.old is not None:
        without = () if edit.kind == "remove" else (edit.kind,)
        words["the"] = thing(draw, unique_description(draw, reference, edit.old, without), "the")
    if edit.kind == "add" and edit.new is not None:
        words["a_new"] = thing(draw, _added(edit.new))
    elif edit.old is not None and edit.new is not None:
        if edit.kind == "shape":
            words["a_new"] = article(shape_word(draw, edit.new.shape))
        elif edit.kind == "place":
            words["new"], words["old"] = place_phrase(draw, *edit.new.place), place_phrase(draw, *edit.old.place)
        else:
            say = _WORD[edit.kind]
            words["new"], words["old"] = (say(draw, getattr(t, edit.kind)) for t in (edit.new, edit.old))
    return form.format(**words)
