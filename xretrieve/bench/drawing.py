"""What other processes do while the one that makes the demo loads its libraries, or trains its first model."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from xretrieve.training.recipe import DatasetConfig, Recipe


def drawn_beside_imports(dataset: DatasetConfig, jobs: int = 1) -> None:
    """Have the scenes of a recipe made by ``jobs`` processes; what goes wrong there is said when they are read."""
    with ThreadPoolExecutor(1) as drawing:
        drawing.submit(_draw, dataset, jobs)
        import timm  # noqa: F401
        import torch  # noqa: F401

        import xretrieve.training.run  # noqa: F401


def _draw(dataset: DatasetConfig, jobs: int) -> None:
    from xretrieve.config import from_dict
    from xretrieve.data.scenes.load import ensure
    from xretrieve.data.scenes.options import SceneOptions
    from xretrieve.utils.files import cache_root

    if dataset.root is None:
        ensure(cache_root() / "scenes", from_dict(SceneOptions, dataset.options, "scenes"), jobs)


def encode_test(recipe: Recipe) -> None:
    """Have the frozen encoders' tokens of the test split in the cache when the trained model is measured."""
    from xretrieve.data.cache import FeatureCache
    from xretrieve.training.build import build_matcher, test_split

    if all(side is not None and side.frozen and side.weights for side in (recipe.image, recipe.text)):
        test, matcher = test_split(recipe.dataset), build_matcher(recipe, [])
        matcher.encode_texts(test.captions, cache=FeatureCache())
        matcher.encode_images(test.images, ids=test.image_ids, cache=FeatureCache())
