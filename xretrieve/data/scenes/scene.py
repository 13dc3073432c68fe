"""A scene as symbols, what can be claimed of it, and whether a claim is true."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import TypeVar

T = TypeVar("T")


class Draw:
    """Random choices that are the same on every machine and Python: only ``Random.random`` of a text seed is used.

    >>> Draw("0/test/0").below(100) == Draw("0/test/0").below(100)
    True
    """

    def __init__(self, seed: str) -> None:
        self._random = random.Random(seed).random  # a text seed goes through SHA-512, so it is stable

    def below(self, n: int) -> int:
        """A whole number, 0 to n - 1."""
        return int(self._random() * n)

    def chance(self, p: float) -> bool:
        """True with probability ``p``."""
        return self._random() < p

    def between(self, low: float, high: float) -> float:
        """A number in [low, high)."""
        return low + (high - low) * self._random()

    def pick(self, items: Sequence[T]) -> T:
        """One of ``items``."""
        return items[self.below(len(items))]

    def shuffled(self, items: Sequence[T]) -> list[T]:
        """All of ``items`` in a drawn order."""
        pool = list(items)
        return [pool.pop(self.below(len(pool))) for _ in range(len(pool))]


@dataclass(frozen=True, order=True)
class Thing:
    """One object of a scene; ``front`` says that it lies in front of the large thing of the same place."""

    shape: str
    colour: str
    size: str
    texture: str
    row: int
    col: int
    front: bool = False

    @property
    def place(self) -> tuple[int, int]:
        """Row and column of the 3 x 3 places."""
        return self.row, self.col


@dataclass(frozen=True)
class Scene:
    """Objects on a background, in drawing order."""

    background: str
    things: tuple[Thing, ...]

    def signature(self) -> tuple[str, tuple[Thing, ...]]:
        """Equal for two scenes exactly when nothing that a caption can say tells them apart."""
        return self.background, tuple(sorted(self.things))

    def host(self) -> Thing | None:
        """The thing that another one lies in front of."""
        for front in self.things:
            if front.front:
                return next(t for t in self.things if t.place == front.place and not t.front)
        return None

    def free_places(self) -> list[tuple[int, int]]:
        """The places without a thing."""
        taken = {t.place for t in self.things}
        return [(r, c) for r in range(3) for c in range(3) if (r, c) not in taken]


@dataclass(frozen=True)
class Description:
    """What is said of one thing; None is left open."""

    shape: str | None = None
    colour: str | None = None
    size: str | None = None
    texture: str | None = None
    row: int | None = None
    col: int | None = None

    def fits(self, thing: Thing) -> bool:
        """Whether ``thing`` is as described."""
        return (  # written out: it is asked half a million times for a data set, and a loop took five times as long
            self.shape in (None, thing.shape)
            and self.colour in (None, thing.colour)
            and self.size in (None, thing.size)
            and self.texture in (None, thing.texture)
            and self.row in (None, thing.row)
            and self.col in (None, thing.col)
        )

    def count(self, scene: Scene) -> int:
        """How many things of the scene fit."""
        return sum(map(self.fits, scene.things))


ATTRIBUTES = tuple(f.name for f in fields(Description))


def describe(thing: Thing, *names: str) -> Description:
    """The description of ``thing`` by the attributes named; ``place`` stands for row and col."""
    said = {n for name in names for n in (("row", "col") if name == "place" else (name,))}
    return Description(**{n: getattr(thing, n) for n in ATTRIBUTES if n in said})


@dataclass(frozen=True)
class Claim:
    """The meaning of a sentence.

    Args:
        things: different things of the scene fit these, one each.
        relations: (i, relation, j) between the things that stand for ``things[i]`` and ``things[j]``.
        counts: exactly so many things fit.
        background: the background's name.
    """

    things: tuple[Description, ...] = ()
    relations: tuple[tuple[int, str, int], ...] = ()
    counts: tuple[tuple[Description, int], ...] = ()
    background: str | None = None

    def holds(self, scene: Scene) -> bool:
        """Whether the sentence is true of the scene."""
        if self.background not in (None, scene.background):
            return False
        if any(d.count(scene) != n for d, n in self.counts):
            return False
        return self._assign(scene, [])

    def _assign(self, scene: Scene, chosen: list[Thing]) -> bool:
        i = len(chosen)
        if i == len(self.things):
            return all(related(chosen[a], name, chosen[b]) for a, name, b in self.relations)
        return any(
            self._assign(scene, [*chosen, t])
            for t in scene.things
            if self.things[i].fits(t) and not any(t is other for other in chosen)
        )


def related(a: Thing, relation: str, b: Thing) -> bool:
    """Whether ``a`` stands in the relation to ``b``; sideways and up-and-down ones hold on the diagonal too."""
    down, right = b.row - a.row, b.col - a.col
    if relation == "left of":
        return right > 0 and abs(down) <= right
    if relation == "right of":
        return right < 0 and abs(down) <= -right
    if relation == "above":
        return down > 0 and abs(right) <= down
    if relation == "below":
        return down < 0 and abs(right) <= -down
    if relation == "next to":
        return down == 0 and abs(right) == 1
    if relation == "in front of":
        return a.front and not b.front and a.place == b.place
    return related(b, "in front of", a)  # behind
