"""`xr.image_text`: what there is for matching pictures and sentences, by name.

A sentence finds its picture, a picture finds its sentences. Every name below goes into a recipe, or into the function
in brackets.
"""

from __future__ import annotations

TASK = "image_text"

__all__ = ["TASK", "datasets", "fusions", "heads", "losses", "protocols", "published", "recipes"]


def heads() -> list[str]:
    """Models for this task (`xr.create_head`); ``cosine`` needs no training.

    >>> heads()[:2]
    ['cosine', 'dual']
    """
    from xretrieve.heads import list_heads

    return list_heads(TASK)


def losses() -> list[str]:
    """Training signals (`xretrieve.training.create_loss`).

    >>> losses()
    ['hinge', 'infonce']
    """
    from xretrieve.training.losses import list_losses

    return list_losses(TASK)


def fusions() -> list[str]:
    """How a recipe with `members` averages their scores (`xr.Ensemble`).

    >>> fusions()
    ['logit', 'mean']
    """
    from xretrieve.ensemble import FUSIONS

    return sorted(FUSIONS)


def published(dataset: str, protocol: str) -> list[str]:
    """Models whose published figures a recipe may print beside its own (key `published`), by name.

    >>> published("mscoco", "coco-5k")[:3]
    ['VSE++ (ResNet-152, tuned)', 'SCAN*', 'VSRN*']
    """
    from xretrieve.evaluation.published import published_rows

    return [row.name for row in published_rows(dataset, protocol)]


def datasets() -> list[str]:
    """Datasets with captioned pictures (`xr.datasets.load`); installed plug-ins count where their card says so.

    >>> [name for name in datasets() if name in ("flickr8k", "scenes")]
    ['flickr8k', 'scenes']
    """
    from xretrieve.data.datasets import names

    return names(TASK)


def protocols() -> list[str]:
    """The rules behind the numbers (`xr.evaluate`); docs/protocols.md spells them out.

    >>> protocols()
    ['coco-1k', 'coco-1k-25000', 'coco-5k', 'coco-5k-25000', 'flickr-1k', 'full']
    """
    from xretrieve.evaluation.protocols import list_protocols

    return list_protocols(TASK)


def recipes() -> list[str]:
    """Recipes of this task (`xr.train`): those shipped, and those in ``tasks/image_text`` of the current folder.

    >>> "image_text/scenes-dual" in recipes()
    True
    """
    from xretrieve.training.recipes import list_recipes

    return [name for name in list_recipes() if name.startswith(f"{TASK}/")]
