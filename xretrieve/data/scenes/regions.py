"""Region captions: what is said of one thing or one empty place, the turns of a multi-query."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

from xretrieve.data.scenes.captions import partly, relation_of, relation_words
from xretrieve.data.scenes.scene import Claim, Description, Draw, Scene, Thing, describe
from xretrieve.data.scenes.words import place_phrase, thing

NAMES = ("shape", "colour", "size", "texture", "place")
Turn = tuple[str, Claim, "Thing | tuple[int, int]"]  # text, meaning, the thing or the empty place that it points at


def unique_description(draw: Draw, scene: Scene, t: Thing, without: Sequence[str] = ()) -> Description:
    """The shortest description that fits ``t`` only, with the shape where that is enough.

    Args:
        draw: decides between equally short ones.
        scene: holds ``t``.
        t: the thing meant.
        without: attributes to be left out if the others are enough.
    """
    allowed = [n for n in NAMES[1:] if n not in without]
    for names in ([n for n in allowed if n != "place"], allowed, list(NAMES[1:])):
        for length in range(len(names) + 1):
            options = [describe(t, "shape", *c) for c in combinations(names, length)]
            fitting = [d for d in options if d.count(scene) == 1]
            if fitting:
                return draw.pick(fitting)
    raise AssertionError("two things of a scene are the same in everything")


def _object_turn(draw: Draw, scene: Scene, t: Thing, names: Sequence[str]) -> Turn:
    said = describe(t, *names)
    if said.count(scene) > 1:
        short = unique_description(draw, scene, t)
        said = describe(t, *names, *(n for n in NAMES if getattr(short, "row" if n == "place" else n) is not None))
    return thing(draw, said), Claim((said,)), t


def _relation_turn(draw: Draw, scene: Scene, t: Thing) -> Turn:
    other = draw.pick([o for o in scene.things if o is not t])
    said = unique_description(draw, scene, t), partly(draw, other)
    name = relation_of(draw, t, other)
    text = f"{thing(draw, said[0])}, {relation_words(draw, name, other)} {thing(draw, said[1])}"
    return text, Claim(said, ((0, name, 1),)), t


def _empty_turn(draw: Draw, place: tuple[int, int]) -> Turn:
    where = place_phrase(draw, *place)
    claim = Claim(counts=((Description(row=place[0], col=place[1]), 0),))
    return f"{draw.pick(('nothing', 'no shape'))} {where}", claim, place


def write_turns(
    scene: Scene, seed: str, turns: int, full: Sequence[Thing] = (), empty: Sequence[tuple[int, int]] = ()
) -> list[Turn]:
    """``turns`` different true sentences; one per thing first; all attributes are said in the end.

    Args:
        scene: what they speak of.
        seed: text that decides all choices.
        turns: how many, at least as many as things, and one more for each place in ``empty``.
        full: things described at once in all attributes (what sets the scene apart from its near-duplicates).
        empty: places that must be said to be empty.
    """
    draw = Draw(seed)
    things = draw.shuffled(scene.things)
    spare = turns - len(things) - len(empty)  # sentences left for saying the rest of what was begun
    made: list[Turn] = []
    later: list[tuple[Thing, list[str]]] = []
    for t in things:
        order = draw.shuffled(NAMES[1:])
        names = ["shape", *order[: 2 + draw.below(2)]]
        if t in full or len(later) >= spare:
            names = list(NAMES)
        else:
            later.append((t, ["shape", *(n for n in NAMES[1:] if n not in names)]))
        made.append(_object_turn(draw, scene, t, names))
    rest = [_empty_turn(draw, place) for place in empty]
    rest += [_object_turn(draw, scene, t, names) for t, names in later]
    said = {_key(turn) for turn in made + rest}
    while len(made) + len(rest) < turns:
        t, choice = draw.pick(things), draw.below(4)
        if choice == 0:
            turn = _empty_turn(draw, draw.pick(scene.free_places()))
        elif choice == 1:
            turn = _object_turn(draw, scene, t, draw.shuffled(NAMES)[: 2 + draw.below(3)])
        else:
            turn = _relation_turn(draw, scene, t)
        if _key(turn) not in said:
            said.add(_key(turn))
            rest.append(turn)
    return made + draw.shuffled(rest)


def _key(turn: Turn) -> tuple[object, ...]:
    """Equal for two turns that say the same in other words."""
    claim, subject = turn[1:]
    return (subject, claim.things[1].row, claim.things[1].shape) if claim.relations else (claim.things, claim.counts)
