"""Which pictures of a split a modification text can mean: one edit away from the reference, and as true of them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from xretrieve.data.scenes.changes import may_mean
from xretrieve.data.scenes.sample import edit_between
from xretrieve.data.scenes.scene import Scene, Thing


def meant(rows: Sequence[dict[str, Any]], pairs: Sequence[tuple[int, int]]) -> list[tuple[int, ...]]:
    """For each (reference, target) the rows of all pictures that the edit between them can mean, the target among them.

    Args:
        rows: the pictures' records, as in ``annotations.jsonl``.
        pairs: rows of reference and target.
    """
    scenes = [scene_of(row) for row in rows]
    near: dict[tuple[str, int], list[int]] = defaultdict(list)
    holding: dict[Thing, set[int]] = defaultdict(set)
    for row, scene in enumerate(scenes):
        near[scene.background, len(scene.things)].append(row)
        for thing in scene.things:
            holding[thing].add(row)
    found: list[tuple[int, ...]] = []
    for reference, target in pairs:
        wanted = scenes[target]
        edit = edit_between(scenes[reference], wanted)
        if edit is None:  # files that were changed by hand: only the target is known to fit
            found.append((target,))
            continue
        candidates = near[wanted.background, len(wanted.things)]
        if len(wanted.things) > 1:  # one edit leaves at least one thing as it was
            sharing = set().union(*(holding[thing] for thing in scenes[reference].things))
            candidates = [row for row in candidates if row in sharing]
        fits = []
        for row in candidates:
            other = edit_between(scenes[reference], scenes[row])
            if other is not None and may_mean(edit, other):
                fits.append(row)
        found.append(tuple(fits))
    return found


def scene_of(row: dict[str, Any]) -> Scene:
    """The scene of a record of ``annotations.jsonl``."""
    things = (Thing(**{key: value for key, value in thing.items() if key != "box"}) for thing in row["objects"])
    return Scene(row["background"], tuple(things))
