"""`xr.composed`: what there is for a picture and a modification text that ask for another picture, by name.

Every name below goes into a recipe, or into the function in brackets.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

    from xretrieve.data.base import RetrievalDataset
    from xretrieve.data.triplets import ComposedDataset

TASK = "composed"

__all__ = ["TASK", "caption_modes", "datasets", "heads", "losses", "protocols", "published", "recipes", "triplets",
           "weight_labels"]  # fmt: skip


def heads() -> list[str]:
    """Models for this task (`xr.create_head`); ``cosine`` and ``dual`` answer with the normalised sum, untrained.

    >>> [name for name in heads() if name in ("combiner", "progressive", "tirg")]
    ['combiner', 'progressive', 'tirg']
    """
    from xretrieve.heads import list_heads

    return list_heads(TASK)


def losses() -> list[str]:
    """Training signals (`xretrieve.training.create_loss`), on logits of queries and targets.

    >>> losses()
    ['match', 'soft_triplet']
    """
    from xretrieve.training.losses import list_losses

    return list_losses(TASK)


def weight_labels(u: Tensor, s: Tensor, g: Tensor, kind: str = "logprob", **options: Any) -> Tensor:
    """Self-supervised weights (B, 2) of image and text for unit vectors of references, texts and targets, (B, D) each.

    See :func:`xretrieve.training.weight_labels.weight_labels`.
    """
    from xretrieve.training.weight_labels import weight_labels as make

    return make(u, s, g, kind, **options)[0]


def caption_modes() -> dict[str, str]:
    """How the texts of a triplet become query texts, a part of a protocol's name.

    >>> caption_modes()["single"]
    'the first text'
    """
    from xretrieve.data.modifications import MODES

    return dict(MODES)


def datasets() -> list[str]:
    """Datasets with composed queries (`xr.datasets.load`).

    >>> [name for name in datasets() if name in ("fashion_iq", "products", "scenes")]
    ['fashion_iq', 'products', 'scenes']
    """
    from xretrieve.data.datasets import names

    return names(TASK)


def triplets(dataset: RetrievalDataset) -> ComposedDataset:
    """A split with its composed queries and galleries; one without triplets is an error."""
    from xretrieve.data.triplets import composed

    return composed(dataset)


def protocols() -> list[str]:
    """The rules behind the numbers (`xr.evaluate`): dataset / gallery / reference kept or removed / caption mode.

    >>> "products/split/removed/single" in protocols()
    True
    """
    from xretrieve.evaluation.composed_protocols import names

    return names()


def published(dataset: str, protocol: str) -> list[str]:
    """Models whose published figures under a protocol may be printed beside a result, by name."""
    from xretrieve.evaluation.published import published_rows

    return [row.name for row in published_rows(dataset, protocol)]


def recipes() -> list[str]:
    """Recipes of this task (`xr.train`): those shipped, and those in ``tasks/composed`` of the current folder.

    >>> "composed/scenes-progressive" in recipes()
    True
    """
    from xretrieve.training.recipes import list_recipes

    return [name for name in list_recipes() if name.startswith(f"{TASK}/")]
