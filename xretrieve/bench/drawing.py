"""The pictures of the demo are drawn by other processes while this one loads its libraries: both take seconds."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from xretrieve.training.recipe import DatasetConfig


def drawn_beside_imports(dataset: DatasetConfig, jobs: int = 1) -> None:
    """Have the scenes of a recipe made by ``jobs`` processes; what goes wrong there is said when they are read."""
    with ThreadPoolExecutor(1) as drawing:
        drawing.submit(_draw, dataset, jobs)
        import timm  # noqa: F401
        import torch  # noqa: F401

        import xretrieve.gallery
        import xretrieve.training.run  # noqa: F401


def _draw(dataset: DatasetConfig, jobs: int) -> None:
    from xretrieve.config import from_dict
    from xretrieve.data.scenes.load import ensure
    from xretrieve.data.scenes.options import SceneOptions
    from xretrieve.utils.files import cache_root

    if dataset.root is None:
        ensure(cache_root() / "scenes", from_dict(SceneOptions, dataset.options, "scenes"), jobs)
