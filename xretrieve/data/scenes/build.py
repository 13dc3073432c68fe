"""One split as symbols and sentences: scenes, captions, turns and triplets, before anything is drawn."""

from __future__ import annotations

from dataclasses import dataclass

from xretrieve.data.scenes.captions import Caption, write_captions
from xretrieve.data.scenes.changes import modification_texts
from xretrieve.data.scenes.options import SceneOptions
from xretrieve.data.scenes.regions import Turn, write_turns
from xretrieve.data.scenes.sample import Edit, draw_family, edit_between
from xretrieve.data.scenes.scene import Draw, Scene, Thing


@dataclass(frozen=True)
class Picture:
    """A picture before it is drawn; ``seed`` is the text that decides its looks and words."""

    id: str
    seed: str
    scene: Scene
    family: int
    family_size: int
    captions: list[Caption]
    turns: list[Turn]


@dataclass(frozen=True)
class Change:
    """A triplet: rows of reference and target in the split, the edit between them, and its phrasings."""

    reference: int
    target: int
    edit: Edit
    texts: tuple[str, ...]


def build_split(options: SceneOptions, split: str) -> tuple[list[Picture], list[Change]]:
    """The pictures and triplets of one split; picture i is the same however many are asked for."""
    pictures: list[Picture] = []
    changes: list[Change] = []
    seen: set[tuple[str, tuple[Thing, ...]]] = set()
    count, family = getattr(options, split), 0
    share = options.families
    alone = 1 - share / (3 - 2 * share)  # a family has three pictures on average
    while len(pictures) < count:
        members = _family(options, f"{options.seed}/{split}/{family}", alone, seen)
        seen.update(scene.signature() for scene in members)
        start = len(pictures)
        for scene in members[: count - start]:
            pictures.append(_picture(options, split, len(pictures), scene, family, members))
        changes += _changes(pictures, start)
        family += 1
    return pictures, changes


def _family(options: SceneOptions, seed: str, alone: float, seen: set[tuple[str, tuple[Thing, ...]]]) -> list[Scene]:
    for attempt in range(1000):
        draw = Draw(f"{seed}/{attempt}")
        size = 1 if draw.chance(alone) else 2 + draw.below(3)
        members = draw_family(draw, options.min_objects, options.max_objects, size)
        if not any(scene.signature() in seen for scene in members):
            return members
    raise AssertionError("a thousand scenes in a row were repeats")


def _picture(options: SceneOptions, split: str, row: int, scene: Scene, family: int, members: list[Scene]) -> Picture:
    """Words for one picture; what only its near-duplicates have, or lack, is said in full among the turns."""
    own: list[Thing] = []
    empty: list[tuple[int, int]] = []
    for sibling in members:
        here, there = set(scene.things), set(sibling.things)
        own += [t for t in scene.things if t not in there and t not in own]
        empty += [t.place for t in sibling.things if t not in here and t.place not in empty]
    empty = [place for place in empty if place in scene.free_places()]
    seed = f"{options.seed}/{split}/{row}"
    return Picture(
        id=f"{split}-{row:05d}",
        seed=f"{seed}/look",
        scene=scene,
        family=family,
        family_size=len(members),
        captions=write_captions(scene, f"{seed}/captions", tuple(own)),
        turns=write_turns(scene, f"{seed}/turns", options.turns, own, empty),
    )


def _changes(pictures: list[Picture], start: int) -> list[Change]:
    """All ordered pairs of a family that are one edit apart."""
    found = []
    for a in range(start, len(pictures)):
        for b in range(start, len(pictures)):
            edit = edit_between(pictures[a].scene, pictures[b].scene)
            if edit is not None:
                seed = f"{pictures[a].seed}/to/{b - start}"
                found.append(Change(a, b, edit, modification_texts(pictures[a].scene, edit, seed)))
    return found
