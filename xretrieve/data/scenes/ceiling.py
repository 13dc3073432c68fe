"""The score of a perfect reader: how often the sentences of a split are true of one picture only."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from xretrieve.data.scenes.build import Change, Picture
from xretrieve.data.scenes.changes import may_mean
from xretrieve.data.scenes.sample import edit_between
from xretrieve.data.scenes.scene import ATTRIBUTES, Claim, Description, Scene


class Truth:
    """Which scenes of a list a claim is true of, without looking at each scene for each claim."""

    def __init__(self, scenes: Sequence[Scene]) -> None:
        self.scenes = scenes
        things = [t for scene in scenes for t in scene.things]
        self._owner = np.repeat(np.arange(len(scenes)), [len(scene.things) for scene in scenes])
        self._values = {name: np.array([getattr(t, name) for t in things]) for name in ATTRIBUTES}
        self._background = np.array([scene.background for scene in scenes])
        self._counts: dict[Description, np.ndarray] = {}

    def count(self, said: Description) -> np.ndarray:
        """(N,) how many things of each scene fit the description."""
        if said not in self._counts:
            fits = np.ones(len(self._owner), dtype=bool)
            for name, value in asdict(said).items():
                if value is not None:
                    fits &= self._values[name] == value
            self._counts[said] = np.bincount(self._owner[fits], minlength=len(self.scenes))
        return self._counts[said]

    def __call__(self, claim: Claim) -> np.ndarray:
        """(N,) bool: the scenes that the claim is true of."""
        true = np.ones(len(self.scenes), dtype=bool)
        if claim.background is not None:
            true &= self._background == claim.background
        for said, number in claim.counts:
            true &= self.count(said) == number
        for said in claim.things:
            true &= self.count(said) > 0
        if len(claim.things) > 1:  # different things, and in the right relation
            for row in np.flatnonzero(true).tolist():
                true[row] = claim.holds(self.scenes[row])
        return true


def ceilings(pictures: list[Picture], changes: list[Change]) -> dict[str, Any]:
    """What a perfect reader of pictures and sentences would score on the split, in percent.

    A sentence that is true of m pictures finds the right one first in 1 of m cases. ``t2i`` is that over captions;
    ``i2t`` lets the reader answer with the caption that is true of the fewest pictures; ``multi_query`` has one
    number per round, with the sentences of all rounds so far; ``composed`` counts the pictures that a text can mean.
    """
    truth = Truth([p.scene for p in pictures])
    true = np.array([truth(claim) for p in pictures for _, claim in p.captions])  # (C, N)
    owner = np.repeat(np.arange(len(pictures)), [len(p.captions) for p in pictures])
    meant = true.sum(1)
    rounds = []
    for row, picture in enumerate(pictures):
        so_far = np.cumprod([truth(claim) for _, claim, _ in picture.turns], axis=0)  # (T, N)
        assert so_far[-1, row], f"{picture.id}: a region caption is not true"
        rounds.append(so_far.sum(1))
    right = []
    for row in range(len(pictures)):
        candidates = np.flatnonzero(true[:, row])
        best = candidates[meant[candidates] == meant[candidates].min()]
        right.append((owner[best] == row).mean())
    assert true[np.arange(len(owner)), owner].all(), "a caption is not true of its own picture"
    sets = np.array(rounds)  # (N, T)
    return {
        "t2i": {f"R@{k}": _percent(np.minimum(1, k / meant)) for k in (1, 5, 10)},
        "i2t": {"R@1": _percent(right)},
        "multi_query": [_percent(1 / sets[:, r]) for r in range(sets.shape[1])],
        "composed": {"R@1": _percent([1 / n for n in _meant_targets(pictures, changes)])} if changes else {},
        "ambiguous_captions": int((meant > 1).sum()),
        "ambiguous_sets": int((sets[:, -1] > 1).sum()),
    }


def _percent(values: Any) -> float:
    return round(100 * float(np.mean(values)), 2)


def _meant_targets(pictures: list[Picture], changes: list[Change]) -> list[int]:
    """For each triplet, how many pictures of the split its text can mean."""
    near = defaultdict(list)
    for picture in pictures:
        near[picture.scene.background, len(picture.scene.things)].append(picture.scene)
    numbers = []
    for change in changes:
        reference, edit, number = pictures[change.reference].scene, change.edit, 0
        for scene in near[reference.background, len(pictures[change.target].scene.things)]:
            other = edit_between(reference, scene)
            number += other is not None and may_mean(edit, other)
        numbers.append(number)
    return numbers
