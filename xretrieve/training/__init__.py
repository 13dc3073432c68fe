"""Training: recipes, losses and the loop. ``train(recipe) -> Run``; names are loaded on first use."""

from __future__ import annotations

import importlib
from typing import Any

_PUBLIC = {
    "train": "xretrieve.training.run",
    "Run": "xretrieve.training.run_folder",
    "Recipe": "xretrieve.training.recipe",
    "load_recipe": "xretrieve.training.recipes",
    "list_recipes": "xretrieve.training.recipes",
    "create_loss": "xretrieve.training.losses",
    "list_losses": "xretrieve.training.losses",
    "InfoNCE": "xretrieve.training.losses",
    "HardestHinge": "xretrieve.training.losses",
}
__all__ = list(_PUBLIC)


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module 'xretrieve.training' has no attribute {name!r}")
    return getattr(importlib.import_module(_PUBLIC[name]), name)
