"""Heads: one file per model. `create_head(name, image_dim=, text_dim=, **options)`, `list_heads()`."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from xretrieve.errors import XRetrieveError, unknown
from xretrieve.utils.plugins import HEADS, broken, load_plugin, plugins, usable

if TYPE_CHECKING:
    from xretrieve.heads.base import Head

_HEADS = {
    "combiner": "xretrieve.heads.combiner:Combiner",
    "constant": "xretrieve.heads.sums:Constant",
    "cosine": "xretrieve.heads.cosine:Cosine",
    "dqu": "xretrieve.heads.dqu:DQU",
    "drilldown": "xretrieve.heads.drilldown:DrillDown",
    "dual": "xretrieve.heads.dual:DualEncoder",
    "hmrn": "xretrieve.heads.hmrn:HMRN",
    "image_only": "xretrieve.heads.sums:ImageOnly",
    "progressive": "xretrieve.heads.progressive:Progressive",
    "saf": "xretrieve.heads.saf:SAF",
    "scan": "xretrieve.heads.scan:SCAN",
    "sgr": "xretrieve.heads.sgr:SGR",
    "sum": "xretrieve.heads.sums:Sum",
    "text_only": "xretrieve.heads.sums:TextOnly",
    "tirg": "xretrieve.heads.tirg:TIRG",
    "tshsr": "xretrieve.heads.tshsr:TSHSR",
}


def list_heads(task: str | None = None) -> list[str]:
    """Names that :func:`create_head` knows, those of installed plug-ins included; of one task where it is given.

    >>> [name for name in list_heads("image_text") if name in ("cosine", "dual", "tirg")]
    ['cosine', 'dual']
    """
    names = sorted({*_HEADS, *plugins(HEADS)})
    return names if task is None else [n for n, cls in usable(names, head_class).items() if task in cls.tasks]


def head_class(name: str) -> type[Head]:
    """The class behind a head's name."""
    if name in _HEADS:
        module, _, attribute = _HEADS[name].partition(":")
        cls: type[Head] = getattr(importlib.import_module(module), attribute)
        return cls
    extras = plugins(HEADS)
    if name not in extras:
        raise unknown("head", name, [*_HEADS, *extras])
    from xretrieve.heads.base import Head

    found = load_plugin(extras[name])
    if not (isinstance(found, type) and issubclass(found, Head)):
        raise broken(extras[name], "is no subclass of xretrieve.heads.base.Head")
    return found


def create_head(name: str, *, image_dim: int, text_dim: int, **options: Any) -> Head:
    """Build a head.

    Args:
        name: one of :func:`list_heads`.
        image_dim: width of what the image backbone gives the head (local tokens, or pooled for `cosine`).
        text_dim: the same of the text backbone.
        options: the head's own keyword arguments; an unknown one is an error that names the nearest.
    """
    cls: Callable[..., Head] = head_class(name)
    known = [p for p in inspect.signature(cls.__init__).parameters if p not in ("self", "image_dim", "text_dim")]
    for key in options:
        if key not in known:
            raise XRetrieveError(f"head {name!r}: {unknown('option', key, known)}")
    return cls(image_dim=image_dim, text_dim=text_dim, **options)
