"""`xr.multi_query`: what there is for several short sentences about one remembered picture, by name.

After each sentence the whole gallery is ranked with all sentences so far. Every name below goes into a recipe, or into
the function in brackets.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from xretrieve.data.base import RetrievalDataset
    from xretrieve.data.turns import QuerySets
    from xretrieve.session import Session

TASK = "multi_query"

__all__ = ["TASK", "Session", "combinations", "datasets", "heads", "losses", "protocols", "query_sets", "recipes"]


def __getattr__(name: str) -> Any:
    if name != "Session":
        raise AttributeError(f"module 'xretrieve.multi_query' has no attribute {name!r}")
    return importlib.import_module("xretrieve.session").Session  # torch is imported when it is first needed


def heads() -> list[str]:
    """Models for this task (`xr.create_head`); ``cosine`` needs no training.

    >>> heads()
    ['cosine', 'drilldown', 'dual', 'hmrn']
    """
    from xretrieve.heads import list_heads

    return list_heads(TASK)


def combinations() -> list[str]:
    """Ways from the scores of single sentences to those of a set (recipe key `combine`, `xr.evaluate(combine=...)`).

    >>> combinations()
    ['head', 'mean_similarity', 'rank_fusion', 'paragraph']
    """
    from xretrieve.heads.fusion import COMBINE

    return list(COMBINE)


def losses() -> list[str]:
    """Training signals (`xretrieve.training.create_loss`); they are taken on the scores after each round.

    >>> losses()
    ['hinge', 'infonce']
    """
    from xretrieve.training.losses import list_losses

    return list_losses(TASK)


def datasets() -> list[str]:
    """Datasets that give query sets (`xr.datasets.load`): region phrases, or the captions of a picture.

    >>> [name for name in datasets() if name in ("flickr8k", "scenes", "visual_genome")]
    ['flickr8k', 'scenes', 'visual_genome']
    """
    from xretrieve.data.datasets import names

    return names(TASK)


def query_sets(dataset: RetrievalDataset, turns: int | None = None) -> QuerySets:
    """The query sets of a split: each image's first ``turns`` sentences in their stored order, None for all."""
    from xretrieve.data.turns import query_sets as make

    return make(dataset, turns)


def protocols() -> list[str]:
    """The rules behind the numbers (`xr.evaluate`); docs/protocols.md spells them out.

    >>> protocols()[:2]
    ['coco-5', 'coco-val2017-5']
    """
    from xretrieve.evaluation.protocols import list_protocols

    return list_protocols(TASK)


def recipes() -> list[str]:
    """Recipes of this task (`xr.train`): those shipped, and those in ``tasks/multi_query`` of the current folder.

    >>> "multi_query/scenes-hmrn" in recipes()
    True
    """
    from xretrieve.training.recipes import list_recipes

    return [name for name in list_recipes() if name.startswith(f"{TASK}/")]
