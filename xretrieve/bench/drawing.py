"""The pictures of the demo are drawn by another process while this one loads its libraries: both take seconds."""

from __future__ import annotations

import multiprocessing
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from xretrieve.training.recipe import DatasetConfig


def drawn_beside_imports(dataset: DatasetConfig) -> None:
    """Have the dataset made, if it is one that is made on first use; what goes wrong there is said when it is read."""
    about = (dataset.name, dataset.root, dataset.layout, dataset.options)
    process = multiprocessing.get_context("spawn").Process(target=draw, args=about, daemon=True)
    process.start()
    import timm  # noqa: F401
    import torch  # noqa: F401

    import xretrieve.training.loop  # noqa: F401
    from xretrieve.backbones.vocabulary import tokenize

    tokenize("its tokenizer is loaded with the first text")
    process.join()


def draw(name: str, root: str | None, layout: str | None, options: dict[str, Any]) -> None:
    """Read one split: the first use makes the whole set."""
    from xretrieve.data import datasets
    from xretrieve.errors import XRetrieveError

    try:
        datasets.load(name, root=root, split="val", layout=layout, **options)
    except XRetrieveError:
        return  # the same error, as one line, comes from whoever reads it next
