"""Captions: five kinds drawn from nine, each a sentence together with its meaning as a :class:`Claim`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, replace

from xretrieve.data.scenes.scene import Claim, Description, Draw, Scene, Thing, describe, related
from xretrieve.data.scenes.vocabulary import BACKGROUNDS, COLUMNS, NUMBERS, RELATIONS, ROWS
from xretrieve.data.scenes.words import counted, listing, noun, place_phrase, sentence, thing

Caption = tuple[str, Claim]
INVERSE = {"left of": ("to its right", "right of"), "right of": ("to its left", "left of"),
           "above": ("below it", "below"), "below": ("above it", "above")}  # fmt: skip


def partly(draw: Draw, t: Thing, place: float = 0.0, detail: float = 0.62) -> Description:
    """A description as people give it: the shape, mostly the colour, sometimes more."""
    names = ["shape"] if draw.chance(0.92) else ["colour"]
    if draw.chance(0.85):
        names.append("colour")
    if draw.chance(detail * (0.5 if t.size == "medium" else 1)):
        names.append("size")
    if draw.chance(detail * (0.4 if t.texture == "plain" else 1.3)):
        names.append("texture")
    if draw.chance(place):
        names.append(draw.pick(("place", "place", "place", "row", "col")))
    return describe(t, *names)


def some(draw: Draw, scene: Scene, salient: tuple[Thing, ...], count: int) -> list[Thing]:
    """``count`` things to speak of; what sets the picture apart from its near-duplicates is often among them."""
    first = [t for t in draw.shuffled(salient) if draw.chance(0.8)]
    return draw.shuffled((first + [t for t in draw.shuffled(scene.things) if t not in first])[:count])


def relation_of(draw: Draw, a: Thing, b: Thing) -> str:
    """A relation in which ``a`` stands to ``b``; there is always one."""
    names = [name for name in RELATIONS if related(a, name, b)]
    return names[0] if names and names[0] in ("in front of", "behind") else draw.pick(names)


def relation_words(draw: Draw, name: str, b: Thing) -> str:
    """Words for a relation; what lies in front of a ring may be said to be inside it."""
    return "inside" if name == "in front of" and b.shape == "ring" and draw.chance(0.6) else draw.pick(RELATIONS[name])


def pair(draw: Draw, scene: Scene, salient: tuple[Thing, ...]) -> Caption:
    """Two things and how they stand to each other."""
    a = some(draw, scene, salient, 1)[0]
    b = draw.pick([t for t in scene.things if t is not a])
    name = relation_of(draw, a, b)
    one, other = partly(draw, a), partly(draw, b)
    if name in INVERSE and draw.chance(0.4):
        words, inverse = INVERSE[name]
        text = f"{thing(draw, one)} and, {words}, {thing(draw, other)}"
        return sentence(text), Claim((one, other), ((1, inverse, 0),))
    start = draw.pick(("", "", "there is ", "I see "))
    text = f"{start}{thing(draw, one)} {relation_words(draw, name, b)} {thing(draw, other)}"
    if draw.chance(0.35):
        one = replace(one, row=a.row, col=a.col)
        text += f"; the first is {place_phrase(draw, a.row, a.col)}"
    return sentence(text), Claim((one, other), ((0, name, 1),))


def chain(draw: Draw, scene: Scene, salient: tuple[Thing, ...]) -> Caption | None:
    """Three things: two placed or related, and one more."""
    if len(scene.things) < 3:
        return None
    chosen = some(draw, scene, salient, 3)
    said = tuple(partly(draw, t, 0.45) for t in chosen)
    parts = [thing(draw, d) for d in said]
    start = draw.pick(("", "", "a picture of ", "here are "))
    return sentence(start + listing(parts)), Claim(said)


def placed(draw: Draw, scene: Scene, salient: tuple[Thing, ...]) -> Caption:
    """Two things, each with its place."""
    chosen = some(draw, scene, salient, 2)
    said = tuple(partly(draw, t, 1.0) for t in chosen)
    if draw.chance(0.5):
        return sentence(f"there is {thing(draw, said[0])}, and {thing(draw, said[1])}"), Claim(said)
    parts = [f"{place_phrase(draw, d.row, d.col)} {thing(draw, d, place=False)}" for d in said]
    return sentence(f"{parts[0]}, {parts[1]}"), Claim(said)


def focus(draw: Draw, scene: Scene, salient: tuple[Thing, ...]) -> Caption:
    """One thing in detail, among so many."""
    said = partly(draw, some(draw, scene, salient, 1)[0], 0.9, 0.9)
    total = len(scene.things)
    text = draw.pick(("one of the {n} shapes is {a}", "{n} things, one of them {a}", "{a}"))
    counts = ((Description(), total),) if "{n}" in text else ()
    return sentence(text.format(n=NUMBERS[total], a=thing(draw, said))), Claim((said,), counts=counts)


def counting(draw: Draw, scene: Scene, salient: tuple[Thing, ...]) -> Caption:
    """How many things share a colour, shape, texture or size, and one thing besides."""
    names = draw.pick((("colour",), ("shape",), ("colour", "shape"), ("texture",), ("size",), ("texture", "colour")))
    groups = Counter(describe(t, *names) for t in scene.things)
    several = [d for d, n in groups.items() if n > 1]
    group = draw.pick(several or list(groups))
    one = some(draw, scene, salient, 1)[0]
    other = partly(draw, one, 0.5)
    number = groups[group]
    if group.fits(one):
        both = replace(group, **{k: v for k, v in asdict(other).items() if v is not None})
        claim = Claim((both,), counts=((group, number),))
        verb = "is the only" if number == 1 else f"is one of {NUMBERS[number]}"
        return sentence(f"{thing(draw, other)} {verb} {noun(draw, group, plural=number > 1)}"), claim
    if number == 1:
        many = "just one " + noun(draw, group)
    else:
        many = draw.pick(("", "exactly ")) + counted(draw, group, number)
    return sentence(f"{many}, and {thing(draw, other)}"), Claim((other,), counts=((group, number),))


def inventory(draw: Draw, scene: Scene, salient: tuple[Thing, ...]) -> Caption:
    """A short summary: everything that is there, by shape and at times by colour."""
    names = ("colour", "shape") if draw.chance(0.5) else ("shape",)
    groups = Counter(describe(t, *names) for t in draw.shuffled(scene.things))
    text = listing([counted(draw, d, n) for d, n in groups.items()])
    form = draw.pick(("{}", "only {}", "{}, nothing else", "just {}"))
    return sentence(form.format(text)), Claim(counts=((Description(), len(scene.things)), *groups.items()))


def backdrop(draw: Draw, scene: Scene, salient: tuple[Thing, ...]) -> Caption:
    """Two things and the background."""
    chosen = some(draw, scene, salient, 1 if draw.chance(0.25) else 2)
    said = tuple(partly(draw, t, 0.3) for t in chosen)
    ground = draw.pick(BACKGROUNDS[scene.background][1])
    parts = listing([thing(draw, d) for d in said])
    text = draw.pick(("on a {} background: {}", "{1}, all on a {0} background", "a {} picture with {}"))
    return sentence(text.format(ground, parts)), Claim(said, background=scene.background)


def line(draw: Draw, scene: Scene, salient: tuple[Thing, ...]) -> Caption:
    """All that one row or column holds, and how many things there are."""
    axis = draw.pick(("row", "col"))
    t = some(draw, scene, salient, 1)[0]
    members = [o for o in scene.things if getattr(o, axis) == getattr(t, axis)]
    where = (ROWS if axis == "row" else COLUMNS)[getattr(t, axis)][0]
    said = tuple(replace(partly(draw, o), **{axis: getattr(o, axis)}) for o in draw.shuffled(members))
    total = len(scene.things)
    parts = listing([thing(draw, d, place=False) for d in said])
    rest = total - len(members)
    text = f"{where} {parts}; " + (f"{NUMBERS[rest]} more elsewhere" if rest else "nothing elsewhere")
    on_line = Description(**{axis: getattr(t, axis)})
    return sentence(text), Claim(said, counts=((on_line, len(members)), (Description(), total)))


def absence(draw: Draw, scene: Scene, salient: tuple[Thing, ...]) -> Caption:
    """Two things, and a place, row or column that is empty."""
    said = tuple(partly(draw, t, 0.3) for t in some(draw, scene, salient, 2))
    lines = [Description(row=r) for r in range(3)] + [Description(col=c) for c in range(3)]
    empty = [d for d in lines if not d.count(scene)] or [Description(row=r, col=c) for r, c in scene.free_places()]
    nothing = draw.pick(empty)
    where = place_phrase(draw, nothing.row, nothing.col)
    text = f"{listing([thing(draw, d) for d in said])}, but nothing {where}"
    return sentence(text), Claim(said, counts=((nothing, 0),))


TEMPLATES: tuple[Callable[[Draw, Scene, tuple[Thing, ...]], Caption | None], ...] = (
    pair, chain, placed, focus, counting, inventory, backdrop, line, absence,
)  # fmt: skip


def write_captions(scene: Scene, seed: str, salient: tuple[Thing, ...] = (), count: int = 5) -> list[Caption]:
    """``count`` captions of different kinds, each true of the scene.

    Args:
        scene: what the captions speak of; 2 to 9 things, at least one place free.
        seed: text that decides all choices.
        salient: things of the scene to be mentioned more often.
        count: at most 8 (a kind may not be possible for a scene).
    """
    draw = Draw(seed)
    made: list[Caption] = []
    for template in draw.shuffled(TEMPLATES):
        caption = template(draw, scene, salient)
        if caption is not None and caption[0] not in [text for text, _ in made]:
            made.append(caption)
        if len(made) == count:
            return made
    while len(made) < count:
        caption = placed(draw, scene, salient)
        if caption[0] not in [text for text, _ in made]:
            made.append(caption)
    return made
