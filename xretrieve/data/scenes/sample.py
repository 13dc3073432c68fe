"""Drawing scenes: one scene, a family of near-duplicates, and the edit that leads from one scene to another."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from xretrieve.data.scenes.scene import Draw, Scene, Thing
from xretrieve.data.scenes.vocabulary import BACKGROUNDS, COLOURS, HOSTS, SHAPES, SIZES, TEXTURES

VALUES = {"shape": tuple(SHAPES), "colour": tuple(COLOURS), "size": tuple(SIZES), "texture": tuple(TEXTURES)}
KINDS = ("colour", "shape", "size", "texture", "place", "add", "remove")


@dataclass(frozen=True)
class Edit:
    """What differs between two scenes: the kind, the thing before (None: added) and after (None: removed)."""

    kind: str
    old: Thing | None
    new: Thing | None


def draw_scene(draw: Draw, fewest: int, most: int) -> Scene:
    """A scene of ``fewest`` to ``most`` things, each in a place of its own but for one that may lie in front."""
    count = fewest + draw.below(most - fewest + 1)
    front = draw.chance(0.35)
    places = draw.shuffled([(r, c) for r in range(3) for c in range(3)])[: count - front]
    things: list[Thing] = []
    for place in places:
        things.append(_thing(draw, things, place))
    if front:
        host = replace(things[0], size="large", shape=things[0].shape if things[0].shape in HOSTS else draw.pick(HOSTS))
        things[0] = host
        colour = draw.pick([c for c in COLOURS if c != host.colour])  # else it would not be seen
        things.append(replace(_thing(draw, things, host.place), size="small", colour=colour, front=True))
    return Scene(draw.pick(tuple(BACKGROUNDS)), tuple(things))


def _thing(draw: Draw, others: list[Thing], place: tuple[int, int]) -> Thing:
    options = {name: VALUES[name] + ("plain",) if name == "texture" else VALUES[name] for name in VALUES}
    values: dict[str, Any] = {name: draw.pick(among) for name, among in options.items()}
    for name in ("shape", "colour"):  # repeats make counting, and confusion, possible
        if others and draw.chance(0.3):
            values[name] = getattr(draw.pick(others), name)
    return Thing(**values, row=place[0], col=place[1])


def draw_edit(draw: Draw, scene: Scene, fewest: int, most: int) -> Scene | None:
    """The scene with one drawn change; None when the change that was drawn is not possible here."""
    kind = draw.pick(KINDS)
    things = list(scene.things)
    if kind == "add":
        if len(things) >= most or not scene.free_places():
            return None
        return replace(scene, things=(*things, _thing(draw, things, draw.pick(scene.free_places()))))
    i = draw.below(len(things))
    old, stacked = things[i], things[i].front or things[i] is scene.host()
    if kind == "remove":
        return None if stacked or len(things) <= fewest else replace(scene, things=tuple(things[:i] + things[i + 1 :]))
    if kind == "place":
        if stacked or not scene.free_places():
            return None
        row, col = draw.pick(scene.free_places())
        new = replace(old, row=row, col=col)
    else:
        if stacked and kind == "size":
            return None
        values = HOSTS if stacked and kind == "shape" and not old.front else VALUES[kind]
        changed: dict[str, Any] = {kind: draw.pick([v for v in values if v != getattr(old, kind)])}
        new = replace(old, **changed)
        if stacked and kind == "colour" and any(t.place == old.place and t.colour == new.colour for t in things):
            return None
    return replace(scene, things=tuple(things[:i] + [new] + things[i + 1 :]))


def draw_family(draw: Draw, fewest: int, most: int, size: int) -> list[Scene]:
    """``size`` different scenes, each but the first one edit away from the first."""
    family = [draw_scene(draw, fewest, most)]
    signatures = [family[0].signature()]
    while len(family) < size:
        scene = draw_edit(draw, family[0], fewest, most)
        if scene is not None and scene.signature() not in signatures:
            family.append(scene)
            signatures.append(scene.signature())
    return family


def edit_between(reference: Scene, target: Scene) -> Edit | None:
    """The one edit that leads from reference to target; None when they differ in more, or in nothing."""
    if reference.background != target.background or abs(len(reference.things) - len(target.things)) > 1:
        return None
    before, after = set(reference.things), set(target.things)  # no two things of a scene are equal: each has its place
    old = [t for t in reference.things if t not in after]
    new = [t for t in target.things if t not in before]
    if (len(old), len(new)) == (0, 1):
        return Edit("add", None, new[0])
    if (len(old), len(new)) == (1, 0):
        return Edit("remove", old[0], None)
    if (len(old), len(new)) != (1, 1):
        return None
    different = [n for n in ("shape", "colour", "size", "texture", "place") if getattr(old[0], n) != getattr(new[0], n)]
    return Edit(different[0], old[0], new[0]) if len(different) == 1 and old[0].front == new[0].front else None
