"""A row of a table, and what one trained with one seed shows."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, TypeVar

import numpy as np

from xretrieve.errors import unknown
from xretrieve.evaluation.report import Report

RESAMPLES = 1000  # of every interval


@dataclass(frozen=True)
class Row:
    """One line of a table.

    Args:
        name: as given to --rows, and the cell's folder.
        about: what it is.
        recipe: last part of the recipe's name after ``DATA-``; default: the row's name.
        keys: of the recipe, changed.
        kind: ``model``; ``average`` of others; ``again``, which measures a trained model in another way; or a word of
            the table's own.
        members: average of these rows instead of a training.
        start: row whose weights the training starts from.
        of: row whose trained model is measured once more.
    """

    name: str
    about: str = ""
    recipe: str = ""
    keys: dict[str, Any] = field(default_factory=dict)
    kind: str = field(default="model", kw_only=True)
    members: tuple[str, ...] = field(default=(), kw_only=True)
    start: str = field(default="", kw_only=True)
    of: str = field(default="", kw_only=True)

    def needs(self) -> tuple[str, ...]:
        """Rows that must be there first."""
        return (*self.members, *filter(None, (self.start, self.of)))


R = TypeVar("R", bound=Row)


@dataclass
class Cell:
    """One row trained with one seed.

    Args:
        report: on the test split.
        cpu: seconds of training, with that of the row it started from; None where none was measured.
        parameters: of the head.
        extra: what else its table shows.
    """

    report: Report
    cpu: float | None = None
    parameters: int | None = None
    extra: dict[str, Any] = field(default_factory=dict)

    @cached_property
    def draws(self) -> dict[str, np.ndarray]:
        """Each metric on each resample of the test queries; every cell of a table draws the same ones."""
        return self.report.draws(RESAMPLES)

    def value(self, metric: str) -> float:
        """A metric of the report."""
        return self.report[metric].value


Seeds = Mapping[int, Cell]  # the cells of a row by seed
Made = Mapping[tuple[str, int], Cell]  # all cells by row and seed


def chosen(rows: Sequence[R], names: Iterable[str] | None) -> list[R]:
    """The rows of these names with those that they need, in the table's order; None: all. A wrong name is an error."""
    by_name = {row.name: row for row in rows}
    wanted: set[str] = set()
    more = list(by_name if names is None else names)
    while more:
        name = more.pop()
        if name not in by_name:
            raise unknown("row", name, by_name)
        wanted.add(name)
        more += by_name[name].needs()
    return [row for row in rows if row.name in wanted]


def by_seed(made: Made, name: str) -> dict[int, Cell]:
    """The cells of one row, by seed."""
    return {seed: made[row, seed] for row, seed in sorted(made) if row == name}
