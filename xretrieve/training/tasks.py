"""Which work belongs to which task."""

from __future__ import annotations

from collections.abc import Sequence

from xretrieve.training.build import Split
from xretrieve.training.recipe import Recipe, StageConfig
from xretrieve.training.work import PairWork


def create_work(recipe: Recipe, splits: Sequence[Split], stage: StageConfig) -> PairWork:
    """The work of a stage of the recipe's task."""
    work = _work(recipe, splits, stage)
    work.stage = stage
    return work


def _work(recipe: Recipe, splits: Sequence[Split], stage: StageConfig) -> PairWork:
    if recipe.task == "multi_query":
        from xretrieve.training.sets import SetWork

        return SetWork(recipe, splits)
    if recipe.task == "composed":
        from xretrieve.training.triplets import CompositionWork, DomainWork

        return DomainWork(recipe, splits, stage) if stage.domain is not None else CompositionWork(recipe, splits)
    return PairWork(recipe, splits)
