"""Encoders by name: ``timm:NAME``, ``open_clip:ARCH[/TAG]``, ``transformers:NAME_OR_FOLDER``, ``words``,
``sentences``, ``regions``, ``features``.

A source is a module (or any object, through the entry point group ``xretrieve.backbones``) with two functions:
``create(rest, *, modality, weights, assets, **options) -> Backbone``, where ``rest`` is the name after the colon and
``assets`` the folder that a backbone was saved to, and ``names() -> list[str]``.
"""

from __future__ import annotations

import importlib
import inspect
from fnmatch import fnmatch
from pathlib import Path
from typing import TYPE_CHECKING, Any

from xretrieve.errors import XRetrieveError, unknown
from xretrieve.utils.files import read_json
from xretrieve.utils.paths import is_file
from xretrieve.utils.plugins import BACKBONES, broken, load_plugin, plugins, usable

if TYPE_CHECKING:
    from xretrieve.backbones.base import Backbone

_SOURCES = {
    "features": "xretrieve.backbones.features",
    "timm": "xretrieve.backbones.timm_images",
    "open_clip": "xretrieve.backbones.open_clip_towers",
    "transformers": "xretrieve.backbones.transformers_towers",
    "sentences": "xretrieve.backbones.sentences",
    "words": "xretrieve.backbones.words",
    "regions": "xretrieve.backbones.regions",
}
__all__ = ["check_saved", "create_backbone", "list_backbones", "load_backbone"]


def create_backbone(
    name: str,
    *,
    modality: str | None = None,
    weights: str | Path | None = None,
    frozen: bool = False,
    **options: Any,
) -> Backbone:
    """Build a backbone from its name.

    Args:
        name: ``source:rest``: ``timm:mobilenetv2_100``, ``open_clip:ViT-B-32/laion2b_s34b_b79k``, ``words``.
        modality: ``image`` or ``text``, needed where one name gives both (two-tower models).
        weights: a local file (safetensors, or a pickle read with ``weights_only``) instead of the hub.
        frozen: no gradients and evaluation mode for good.
        options: of the source; an unknown one is an error that names the nearest.
    """
    return _build(name, modality, weights, None, frozen, options)


def load_backbone(folder: str | Path) -> Backbone:
    """Read a folder that ``Backbone.save`` wrote; never reaches the network."""
    folder = Path(folder)
    about = _about(folder)
    try:
        name, modality, frozen, options = (about[key] for key in ("name", "modality", "frozen", "options"))
    except KeyError as error:
        raise XRetrieveError(f"{folder / 'backbone.json'}: missing key {error}") from error
    if is_file(folder / "model.onnx"):
        from xretrieve.backbones.onnx_graph import OnnxBackbone

        if "pretrained" in inspect.signature(_source(name.partition(":")[0]).create).parameters:
            options = {**options, "pretrained": False}  # the weights are in the graph
        return OnnxBackbone(_build(name, modality, None, folder, frozen, options), folder)
    return _build(name, modality, folder / "model.safetensors", folder, frozen, options)


def check_saved(folder: Path) -> None:
    """Raise unless ``Backbone.save`` wrote a folder, with whole weights (none of their values is read)."""
    from xretrieve.backbones.weights import check_weights

    _about(folder)
    if not (folder / "model.onnx").is_file():
        check_weights(folder / "model.safetensors")


def _about(folder: Path) -> Any:
    if not is_file(folder / "backbone.json"):
        raise XRetrieveError(f"{folder}: not a saved backbone (it has no backbone.json)")
    return read_json(folder / "backbone.json")


def list_backbones(pattern: str = "") -> list[str]:
    """Names that ``create_backbone`` knows; ``pattern`` is a part of the name, or a glob when it holds ``*``.

    Hub and folder names of ``transformers:`` are unlimited; a few common ones are listed.
    """
    found = []
    # a source that cannot match is spared the import
    wanted = [s for s in sorted({*_SOURCES, *plugins(BACKBONES)})
              if ":" not in pattern or fnmatch(s, pattern.split(":")[0])]  # fmt: skip
    for source, module in usable(wanted, _source).items():
        for rest in module.names():
            name = f"{source}:{rest}" if rest else source
            if fnmatch(name, pattern) if "*" in pattern else pattern in name:
                found.append(name)
    return found


def _build(
    name: str,
    modality: str | None,
    weights: str | Path | None,
    assets: Path | None,
    frozen: bool,
    options: dict[str, Any],
) -> Backbone:
    source, _, rest = name.partition(":")
    create = _source(source).create
    if modality not in (None, "image", "text"):
        raise XRetrieveError(f"{name}: {unknown('modality', str(modality), ['image', 'text'])}")
    taken = inspect.signature(create).parameters
    if not any(p.kind is p.VAR_KEYWORD for p in taken.values()):
        known = [k for k in taken if k not in ("rest", "modality", "weights", "assets")]
        for key in options:
            if key not in known:
                raise XRetrieveError(f"{name}: {unknown('option', key, known)}")
    backbone: Backbone = create(rest, modality=modality, weights=weights, assets=assets, **options)
    if modality and backbone.modality != modality:
        raise XRetrieveError(f"{name} encodes {backbone.modality}s, not {modality}s")
    return backbone.freeze() if frozen else backbone


def _source(source: str) -> Any:
    if source in _SOURCES:
        return importlib.import_module(_SOURCES[source])
    extras = plugins(BACKBONES)
    if source not in extras:
        raise unknown("backbone", source, [*_SOURCES, *extras])
    found = load_plugin(extras[source])
    for function in ("create", "names"):
        if not callable(getattr(found, function, None)):
            raise broken(extras[source], f"has no function {function}()")
    return found
