"""`load`: a matcher or an ensemble from a run, a folder, the hub, or a pretrained model."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

from xretrieve.backbones import check_saved, create_backbone, load_backbone
from xretrieve.ensemble import Ensemble
from xretrieve.errors import XRetrieveError
from xretrieve.heads import head_class
from xretrieve.heads.base import Head
from xretrieve.matcher import WEIGHTS, Matcher, build_head, load_saved, read_saved, saved_folder
from xretrieve.matcher_sides import SIDES, Loaders
from xretrieve.utils.checksums import verify
from xretrieve.utils.paths import expand, is_file, is_there

HUB = "hf-hub:"


def load(name: str | Path, weights: str | Path | None = None, **options: Any) -> Matcher | Ensemble:
    """A matcher from a run folder, a matcher folder, or a pretrained two-tower model.

    Args:
        name: ``runs/x`` (of a recipe with `members` an :class:`xretrieve.ensemble.Ensemble`); ``open_clip:ARCH/TAG``;
            ``transformers:NAME_OR_FOLDER`` (CLIP, SigLIP); what `xretrieve export` wrote: a folder with weights or with
            ONNX graphs, or ``hf-hub:OWNER/NAME[@REVISION]``.
        weights: of a pretrained model, a local file with the weights of both towers; nothing is fetched then.
        options: for pretrained models, passed to both towers of :func:`xretrieve.create_backbone`.
    """
    if weights is not None:
        options["weights"] = str(expand(weights).resolve())
    folder, saved = Path(name), saved_folder(name)
    if saved is not None:
        if options:
            raise XRetrieveError(f"{folder} is a saved matcher; it takes no options ({', '.join(options)})")
        return Ensemble.load(saved) if is_file(saved / "ensemble.json") else load_saved(folder)
    if isinstance(name, str) and name.startswith(HUB) and not is_there(folder):
        from xretrieve.sharing.hub import fetch

        found = load(fetch(name.removeprefix(HUB)), **options)
        found.source = name
        return found
    if isinstance(name, str) and ":" in name and not is_there(folder):
        image = create_backbone(name, modality="image", frozen=True, **options)
        text = create_backbone(name, modality="text", frozen=True, **options)
        return Matcher(image, text, build_head("cosine", image, text), name, name, options)
    if is_there(folder):
        return load_saved(folder)  # says that there is none
    raise XRetrieveError(
        f"no run folder {str(name)!r}; give a run folder, or a model such as "
        "'open_clip:ViT-B-32/laion2b_s34b_b79k', 'transformers:FOLDER' or 'hf-hub:OWNER/NAME'"
    )


def load_one(name: str | Path, weights: str | Path | None = None, **options: Any) -> Matcher:
    """As :func:`load`, for whatever takes a single model: an ensemble is an error that names its members."""
    found = load(name, weights, **options)
    return found if isinstance(found, Matcher) else found.refuse()


def find_sides(source: str, options: dict[str, Any], head: dict[str, Any]) -> tuple[Loaders, Head]:
    """What :func:`xretrieve.load` would give for one matcher, without its backbones: how to load each, and the head.

    Args:
        source: a run or matcher folder, a model of the hub, or a pretrained model.
        options: as ``load`` takes them.
        head: ``name`` and ``options`` of the head, where the source is a pretrained model.

    What is missing from a folder, or cut short, is an error now; the rest is one when a side is loaded.
    """
    folder = saved_folder(source)
    if folder is None and source.startswith(HUB) and not is_there(source):
        from xretrieve.sharing.hub import fetch

        folder = saved_folder(fetch(source.removeprefix(HUB)))
    if folder is None and (":" not in source or is_there(source)):
        load_one(source, **options)  # it is not there any more: says so
    if folder is not None and is_file(folder / "ensemble.json"):
        load_one(folder)  # says that an ensemble cannot be searched
    if folder is not None:
        for side in SIDES:
            check_saved(folder / side)
        saved = read_saved(folder)[0]
        verify(folder, WEIGHTS, only="head.")  # a side is compared by its fingerprint when it is loaded
        return {side: partial(load_backbone, folder / side) for side in SIDES}, saved
    make: Loaders = {side: partial(create_backbone, source, modality=side, frozen=True, **options) for side in SIDES}
    return make, head_class(head["name"])(**head["options"])
