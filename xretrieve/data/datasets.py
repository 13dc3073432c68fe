"""Datasets by name: ``load("flickr8k", root="data")``; further ones by entry points ``xretrieve.datasets``."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

from xretrieve.data.annotations import Annotations
from xretrieve.data.base import RetrievalDataset
from xretrieve.data.classic import Classic
from xretrieve.data.info import INFO, DatasetInfo
from xretrieve.errors import XRetrieveError, unknown
from xretrieve.utils.plugins import DATASETS, broken, load_plugin, plugins, usable

# name -> "module:function", imported when it is asked for. The function is load(root, split, [layout,] **options);
# its module may also have annotations(...) with the same arguments, which reads captions whose pictures are absent.
LOADERS = {
    "cirr": "xretrieve.data.cirr:load",
    "fashion_iq": "xretrieve.data.fashion_iq:load",
    "flickr8k": "xretrieve.data.flickr8k:load",
    "flickr30k": "xretrieve.data.flickr30k:load",
    "mscoco": "xretrieve.data.mscoco:load",
    "phrases": "xretrieve.data.phrases:load",
    "products": "xretrieve.data.products:load",
    "scenes": "xretrieve.data.scenes:load",
    "shoes": "xretrieve.data.shoes:load",
    "visual_genome": "xretrieve.data.visual_genome:load",
}


def names(task: str | None = None) -> list[str]:
    """Names of all datasets, those of installed plug-ins included; of one task (by their cards) where it is given."""
    found = sorted({*LOADERS, *plugins(DATASETS)})
    if task is None:
        return found
    return [name for name, card in usable(found, info).items() if card is not None and task in card.tasks]


def info(name: str) -> DatasetInfo | None:
    """The card of a dataset; a plug-in may give one as ``INFO`` in its loader's module. None when there is none."""
    return INFO.get(name) or getattr(_module(name), "INFO", None)


def load(
    name: str, root: str | Path | None = None, split: str = "test", layout: str | None = None, **options: Any
) -> RetrievalDataset:
    """Load one split of a dataset, without its pictures: they stay paths, or rows of a memory-mapped file.

    Args:
        name: one of :func:`names`.
        root: the data root; None takes ``XRETRIEVE_DATA``, or ``./data``.
        split: ``train``, ``val`` or ``test``; public aliases such as ``dev``, ``test2016`` and ``testall`` work.
        layout: ``karpathy`` or ``precomp`` (COCO also ``official``, ``regions``; Visual Genome ``regions`` or
            ``photos``); None takes the one that is there.
        options: those of the dataset's loader, for example ``captions_per_image=5``.

    Raises:
        XRetrieveError: unknown names, missing or broken files.
    """
    return _call(name, "load", root, split, layout, options)


def annotations(
    name: str, root: str | Path | None = None, split: str = "test", layout: str | None = None, **options: Any
) -> Annotations | None:
    """All captions of a split, also those whose pictures are absent; None where the dataset cannot tell them apart."""
    if not hasattr(_module(name), "annotations"):
        return None
    return _call(name, "annotations", root, split, layout, options)


def captions(
    name: str, root: str | Path | None = None, split: str = "train", layout: str | None = None, **options: Any
) -> list[str]:
    """The caption texts of a split; no picture is needed (vocabularies are built from these)."""
    read = annotations(name, root, split, layout, **options)
    return read.captions if read is not None else load(name, root, split, layout, **options).captions


def found(name: str, root: str | Path | None = None) -> list[str]:
    """What lies under the root of this dataset, one phrase per layout; empty when nothing does."""
    module = _module(name)
    if hasattr(module, "CLASSIC"):
        return module.CLASSIC.found(root)  # type: ignore[no-any-return]
    return module.found(root) if hasattr(module, "found") else []


def classic(name: str) -> Classic:
    """The description of one of the captioned photo sets; other datasets have none of these layouts."""
    module = _module(name)
    if not hasattr(module, "CLASSIC"):
        raise XRetrieveError(
            f"{name} has no json, zip or *_ims.npy files; this is for flickr8k, flickr30k, mscoco and visual_genome"
        )
    return module.CLASSIC  # type: ignore[no-any-return]


def hook(name: str, function: str) -> Callable[..., Any] | None:
    """A function of the dataset's own module for work that is done once (``extract``, ``convert``), or None."""
    return getattr(_module(name), function, None)


def _place(name: str) -> tuple[str, str]:
    """Module and function of a dataset's loader; a plug-in is imported and looked at first."""
    if name in LOADERS:
        module, _, function = LOADERS[name].partition(":")
        return module, function
    extras = plugins(DATASETS)
    if name not in extras:
        raise unknown("dataset", name, [*LOADERS, *extras])
    if not callable(load_plugin(extras[name])):
        raise broken(extras[name], "is no function load(root, split, **options)")
    return extras[name].module, extras[name].attr


def _module(name: str) -> ModuleType:
    return importlib.import_module(_place(name)[0])


def _call(name: str, function: str, root: Any, split: str, layout: str | None, options: dict[str, Any]) -> Any:
    module = _module(name)
    attribute = _place(name)[1] if function == "load" else function
    target: Callable[..., Any] = getattr(module, attribute)
    known = inspect.signature(target).parameters
    if layout is not None:
        if "layout" not in known:
            raise XRetrieveError(f"{name} has one layout only; leave out layout={layout!r}")
        options = {**options, "layout": layout}
    if not any(p.kind is p.VAR_KEYWORD for p in known.values()):
        for option in options:
            if option not in known:
                raise unknown(f"option of dataset {name!r}:", option, [k for k in known if k not in ("root", "split")])
    return target(root, split, **options)
