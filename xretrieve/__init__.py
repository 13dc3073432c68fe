"""xretrieve: find pictures with real queries.

The public names are loaded on first use, so that ``import xretrieve`` costs nothing.
"""

from __future__ import annotations

import importlib
from typing import Any

from xretrieve.version import __version__

_PUBLIC = {
    "Text": "xretrieve.query",
    "MultiText": "xretrieve.query",
    "Image": "xretrieve.query",
    "ImageText": "xretrieve.query",
    "Tokens": "xretrieve.tokens",
    "Matcher": "xretrieve.matcher",
    "load": "xretrieve.loading",
    "Ensemble": "xretrieve.ensemble",
    "Gallery": "xretrieve.gallery",
    "Ranking": "xretrieve.ranking",
    "evaluate": "xretrieve.evaluation",
    "Report": "xretrieve.evaluation",
    "train": "xretrieve.training",
    "create_backbone": "xretrieve.backbones",
    "list_backbones": "xretrieve.backbones",
    "create_head": "xretrieve.heads",
    "list_heads": "xretrieve.heads",
    "XRetrieveError": "xretrieve.errors",
}
_MODULES = {
    "composed": "xretrieve.composed",
    "datasets": "xretrieve.data.datasets",
    "image_text": "xretrieve.image_text",
    "interop": "xretrieve.interop",
    "multi_query": "xretrieve.multi_query",
}

__all__ = ["__version__", *_PUBLIC, *_MODULES]


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        value: Any = importlib.import_module(_MODULES[name])
    elif name in _PUBLIC:
        value = getattr(importlib.import_module(_PUBLIC[name]), name)
    else:
        raise AttributeError(f"module 'xretrieve' has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
