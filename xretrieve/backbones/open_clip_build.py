"""open_clip models by name, from the hub, from a local file, or rebuilt offline from a saved folder."""

from __future__ import annotations

from contextlib import nullcontext
from copy import deepcopy
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from xretrieve.backbones.clip_text import ClipText
from xretrieve.backbones.weights import hub, load_strict, no_hub, read_weights
from xretrieve.errors import XRetrieveError, unknown
from xretrieve.utils.files import read_json
from xretrieve.utils.paths import is_file

_SCHEMAS = ("hf-hub:", "local-dir:")
# Entries of published files that are no parameters: counters and constants that are rebuilt.
_CONSTANTS = ("input_resolution", "context_length", "vocab_size", "attn_mask", "position_ids")


def split_name(rest: str) -> tuple[str, str]:
    """``ARCH/TAG`` to its parts; names with a schema (``hf-hub:org/name``, ``local-dir:FOLDER``) have no tag.

    >>> split_name("ViT-B-32/laion2b_s34b_b79k"), split_name("hf-hub:timm/ViT-B-16-SigLIP")
    (('ViT-B-32', 'laion2b_s34b_b79k'), ('hf-hub:timm/ViT-B-16-SigLIP', ''))
    """
    if rest.startswith(_SCHEMAS):
        return rest, ""
    arch, _, tag = rest.partition("/")
    return arch, tag


def packaged(inside: str) -> Path | None:
    """A file of the open_clip package, which is not imported; None where there is none."""
    spec = find_spec("open_clip")
    place = Path((spec.submodule_search_locations or [""])[0]) / inside if spec is not None else None
    return place if place is not None and is_file(place) else None


def model_config(rest: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """(model configuration, preprocessing configuration) of a name; checks architecture and tag."""
    arch, tag = split_name(rest)
    preprocess: dict[str, Any] = {}
    if not tag and not arch.startswith(_SCHEMAS) and (own := packaged(f"model_configs/{arch}.json")) is not None:
        return read_json(own), preprocess  # importing the package takes seconds
    import open_clip

    if arch.startswith(_SCHEMAS):
        try:
            if arch.startswith("local-dir:"):
                whole = read_json(Path(arch.removeprefix("local-dir:")) / "open_clip_config.json")
            else:
                with hub():
                    whole = open_clip.factory._get_hf_config(arch.removeprefix("hf-hub:"))
        except XRetrieveError:
            raise
        except Exception as error:  # the hub clients raise many unrelated types
            raise no_hub(f"open_clip:{rest}", error) from error
        return whole["model_cfg"], whole.get("preprocess_cfg", {})
    config = open_clip.get_model_config(arch)
    if config is None:
        raise unknown("open_clip model", arch, open_clip.list_models())
    if tag:
        found = open_clip.get_pretrained_cfg(arch, tag)
        if not found:
            tags = open_clip.list_pretrained_tags_by_model(arch)
            raise XRetrieveError(f"open_clip:{arch}: {unknown('tag', tag, tags)}")
        preprocess = {k: found[k] for k in ("mean", "std", "interpolation", "resize_mode") if k in found}
        if found.get("quick_gelu"):
            config["quick_gelu"] = True  # these weights were trained with it; the plain GELU lowers recall silently
    return config, preprocess


def build(config: dict[str, Any], assets: Path | None = None) -> nn.Module:
    """A randomly initialised CLIP, CustomTextCLIP or CoCa of this configuration; no download of base weights."""
    from open_clip import CLIP, CoCa, CustomTextCLIP

    config = deepcopy(config)
    text, vision = config["text_cfg"], config["vision_cfg"]
    custom = config.pop("custom_text", False) or "hf_model_name" in text
    if "timm_model_name" in vision:
        vision["timm_model_pretrained"] = False
    if "hf_model_name" in text:
        text["hf_model_pretrained"] = False
        if assets is not None:
            text["hf_model_name"] = str(assets / "hf_text")
    try:
        with hub() if "hf_model_name" in text and assets is None else nullcontext():
            return (CoCa if "multimodal_cfg" in config else CustomTextCLIP if custom else CLIP)(**config)
    except OSError as error:  # the configuration of a hub text encoder
        raise no_hub(f"open_clip text encoder {text.get('hf_model_name')}", error) from error


def pretrained(rest: str, config: dict[str, Any]) -> nn.Module:
    """The model with its weights from the hub (or its cache)."""
    import open_clip

    arch, tag = split_name(rest)
    schema = arch.startswith(_SCHEMAS)
    try:
        with hub():
            return open_clip.create_model(
                arch,
                pretrained=tag or None,
                require_pretrained=True,
                **({} if schema else {"force_quick_gelu": bool(config.get("quick_gelu"))}),
            )
    except Exception as error:  # the hub clients raise many unrelated types
        raise no_hub(f"open_clip:{rest}", error) from error


def load_file(full: nn.Module, tower: nn.Module, path: str | Path) -> None:
    """Load a file of the whole model, or of one tower as ``Backbone.save`` writes it, into ``tower``."""
    from open_clip.convert import convert_state_dict
    from open_clip.model import convert_to_custom_text_state_dict, resize_pos_embed, resize_text_pos_embed

    state: dict[str, Tensor] = read_weights(path)
    state = {k: v for k, v in state.items() if k.rsplit(".", 1)[-1] not in _CONSTANTS}
    state = convert_state_dict(full, state)
    if "positional_embedding" in state and not hasattr(full, "positional_embedding"):
        state = convert_to_custom_text_state_dict(state)
    own, known = tower.state_dict(), full.state_dict()
    state = {k: v for k, v in state.items() if k in own or k not in known}  # the other tower, the temperature
    if "visual.positional_embedding" in own:
        resize_pos_embed(state, full)
    if "visual.positional_embedding" not in own:
        resize_text_pos_embed(state, full)
    load_strict(tower, state, path)


def load_text(config: dict[str, Any], path: str | Path) -> nn.Module:
    """The text tower of a plain CLIP in plain torch, with the weights of a file of the whole model or of this tower.

    Files of other layouts are converted by the package.
    """
    with torch.device("meta"):
        tower = ClipText(config)
    names = set(tower.state_dict())
    state = read_weights(path, lambda key: key in names)
    if set(state) == names and state["positional_embedding"].shape == tower.positional_embedding.shape:
        load_strict(tower, state, path, assign=True)
        return tower
    made = build(config)
    part = nn.Module()
    for name in ("transformer", "token_embedding", "ln_final", "positional_embedding", "text_projection"):
        setattr(part, name, getattr(made, name))
    load_file(made, part, path)
    tower.load_state_dict(part.state_dict(), assign=True)
    return tower


def tokenizer(rest: str) -> Any:
    """The model's tokenizer; some are on the hub."""
    from open_clip import get_tokenizer

    try:
        with hub():
            return get_tokenizer(split_name(rest)[0])
    except Exception as error:  # the hub clients raise many unrelated types
        raise XRetrieveError(
            f"open_clip:{rest}: its tokenizer could not be had from the hub ({type(error).__name__}); run once where "
            "the hub is reachable, save the backbone, and load that folder"
        ) from error


def saved_tokenizer(config: dict[str, Any], kind: str, assets: Path) -> Any:
    """The tokenizer of a saved folder; ``kind`` is the class it had."""
    from open_clip.tokenizer import HFTokenizer, SimpleTokenizer

    text = config["text_cfg"]
    options = {"context_length": text.get("context_length", 77), **text.get("tokenizer_kwargs", {})}
    if kind == "SimpleTokenizer":
        return SimpleTokenizer(**options)
    if kind == "SigLipTokenizer":
        options["clean"] = "canonicalize"  # what that class does itself
    return HFTokenizer(str(assets / "tokenizer"), tokenizer_mode=text.get("tokenizer_mode"), **options)
