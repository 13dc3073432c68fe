"""From the rows of a table to recipes: ``TASK/DATA-<row>``, with the row's changes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from xretrieve.bench.rows import R, Row
from xretrieve.training.recipe import Recipe
from xretrieve.training.recipes import as_items, list_recipes, load_recipe


def recipe_name(task: str, data: str, row: Row) -> str:
    """The name of the recipe that a row changes."""
    return f"{task}/{data}-{row.recipe or row.name}"


def known_rows(task: str, data: str, rows: Sequence[R]) -> list[R]:
    """The rows that a dataset has a recipe for, with all that they need."""
    there, known = set(list_recipes()), {}
    for row in rows:  # a row comes after those that it needs
        own = bool(row.members or row.of) or recipe_name(task, data, row) in there
        if own and all(name in known for name in row.needs()):
            known[row.name] = row
    return list(known.values())


def table_recipe(
    task: str, data: str, row: Row, seed: int, overrides: Sequence[str], keys: Mapping[str, Any] | None = None
) -> Recipe:
    """A row's recipe with its changes; ``keys`` are set last.

    The overrides come first, so that they change what the rows share and no row's own point.
    """
    common = {"name": f"{task}/{data}-{row.name}-s{seed}", "seed": seed, "expect": {}}
    return load_recipe(recipe_name(task, data, row), [*overrides, *as_items({**common, **row.keys, **(keys or {})})])
