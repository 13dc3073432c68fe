"""Images through any timm model: grid cells of a CNN or patch tokens of a ViT."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from math import floor
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

from xretrieve.backbones.colours import colour_histograms
from xretrieve.backbones.grids import full_mask, grid_tokens
from xretrieve.backbones.images import ImageBackbone
from xretrieve.backbones.places import Fit, Size, grid_shape
from xretrieve.backbones.weights import hub, load_strict, no_hub, read_weights
from xretrieve.errors import XRetrieveError, unknown
from xretrieve.tokens import Tokens

# Early feature maps of few pictures stay in the CPU's caches: MobileNetV2 took 17 ms a picture in eights, 27 in 64s.
_CPU_IMAGES = 8
DEFAULT_CROP_PCT = 0.875  # timm's, where neither the model nor the caller says


class TimmImages(ImageBackbone):
    """Local tokens are the last feature map (cells row by row) or the patch tokens without class and register tokens.

    Pooled is timm's own pre-logits feature, or the mean of the local tokens (``pooled="mean"``).

    With ``layers``, earlier feature maps are averaged onto the last one's grid and joined to it: hypercolumns
    (Hariharan et al., CVPR 2015). A classifier's last layer forgets colour and texture, which captions mention.
    With ``cells``, the grid is averaged to that many rows and columns (windows overlap where they must).
    With ``places``, the pooled vector also says where in the picture the maps of ``layers`` have what: a grid of that
    many rows and columns (a level of the spatial pyramid of Lazebnik et al., CVPR 2006).
    With ``colours``, it also says which colours the pixels have (see :mod:`xretrieve.backbones.colours`).
    """

    def __init__(self, rest: str, model: nn.Module, data: dict[str, Any], options: dict[str, Any]) -> None:
        """``data``: timm's data config (input_size, interpolation, mean, std, crop_pct, crop_mode)."""
        super().__init__(f"timm:{rest}", "image", options)
        from timm.data import create_transform

        self.model, self.data = model, data
        # uint8 pixels: four times less to keep and to send to a GPU; they are normalised on the device.
        self._transform = create_transform(**data, is_training=False, normalize=False)
        self.register_buffer("mean", torch.tensor(data["mean"]).view(1, 3, 1, 1) * 255, persistent=False)
        self.register_buffer("std", torch.tensor(data["std"]).view(1, 3, 1, 1) * 255, persistent=False)
        self.from_model = options["pooled"] == "model"
        self.layers: list[int] = options["layers"] or []
        self.side: int | None = options["cells"]
        self.places: int = options.get("places", 0)
        self.colours: int = options.get("colours", 0)
        with self.inference():
            tokens = self(torch.zeros(1, *data["input_size"], dtype=torch.uint8))
        self.local_dim, self.pooled_dim = tokens.local.shape[-1], tokens.pooled.shape[-1]
        self.cells = tokens.local.shape[1]
        if self.is_cnn:
            model.to(memory_format=torch.channels_last)  # measured: the faster layout for convolutions on the CPU too

    @property
    def network(self) -> nn.Module:
        """The timm model."""
        return self.model

    @property
    def is_cnn(self) -> bool:
        """Whether the model holds convolutions beyond a patch embedding."""
        return sum(isinstance(m, nn.Conv2d) for m in self.model.modules()) > 2

    def transform(self, picture: Image.Image) -> Tensor:
        """(3,H,W) uint8, resized and cropped as timm's data config says."""
        return self._transform(picture)

    def forward(self, batch: Tensor) -> Tokens:
        """batch (N,3,H,W) uint8 to Tokens; local (N,cells or patches,D)."""
        plain = not (torch.is_grad_enabled() or torch.compiler.is_compiling())
        if plain and batch.device.type == "cpu" and len(batch) > _CPU_IMAGES:
            return Tokens.cat([self(part) for part in batch.split(_CPU_IMAGES)])
        pixels = (batch.float() - self.mean) / self.std
        pixels = pixels.contiguous(memory_format=torch.channels_last)
        where = None
        if not self.layers:
            features, columns = self.model.forward_features(pixels), None
        else:
            features, maps = self.model.forward_intermediates(pixels, indices=self.layers, output_fmt="NCHW")
            side = features.shape[-2:] if features.ndim == 4 else maps[-1].shape[-2:]
            columns = torch.cat([F.adaptive_avg_pool2d(m.float(), side) for m in maps], 1)  # (N,C,h,w)
            columns = columns.flatten(2).transpose(1, 2)  # (N,cells,C)
            if self.places:
                where = torch.cat([F.adaptive_avg_pool2d(m.float(), self.places).flatten(1) for m in maps], 1)
        local = grid_tokens(self.model, features, self.name).float()
        joined = local if columns is None else torch.cat([local, columns], -1)  # (N,cells,D)
        if self.side is not None:
            shape = grid_shape(joined.shape[1], (pixels.shape[-1], pixels.shape[-2]))
            if shape is None:
                raise XRetrieveError(
                    f"{self.name}: cells={self.side} needs a grid, but this model's {joined.shape[1]} "
                    "local tokens make none"
                )
            maps = joined.mT.unflatten(-1, shape)  # (N,D,h,w)
            joined = F.adaptive_avg_pool2d(maps, self.side).flatten(2).mT.contiguous()  # (N,side*side,D)
        if not self.from_model:
            return Tokens.from_local(joined)
        pooled = self.model.forward_head(features, pre_logits=True).float()
        pooled = pooled if columns is None else torch.cat([pooled, columns.mean(1)], -1)
        pooled = pooled if where is None else torch.cat([pooled, where], -1)
        pooled = torch.cat([pooled, colour_histograms(batch, self.colours)], -1) if self.colours else pooled
        return Tokens(joined, full_mask(joined), pooled)

    def fit(self) -> tuple[Size, Size, Fit] | None:
        """timm's evaluation transform, unless it trims a border of pixels first."""
        if self.data.get("crop_border_pixels"):
            return None
        _, height, width = self.data["input_size"]
        share = self.data.get("crop_pct") or DEFAULT_CROP_PCT
        modes: dict[str | None, Fit] = {"squash": "squash", "border": "longest"}
        target = floor(width / share), floor(height / share)
        return target, (width, height), modes.get(self.data.get("crop_mode"), "shortest")

    def preprocessing(self) -> dict[str, Any]:
        """Input size, crop, interpolation, mean and std."""
        return self.data


def create(
    rest: str,
    *,
    modality: str | None = None,
    weights: str | Path | None = None,
    assets: Path | None = None,
    pretrained: bool = True,
    size: int | None = None,
    mean: float | Sequence[float] | None = None,
    std: float | Sequence[float] | None = None,
    interpolation: str | None = None,
    crop: float | None = None,
    pooled: str = "model",
    layers: Sequence[int] | None = None,
    cells: int | None = None,
    places: int = 0,
    colours: int = 0,
    model_args: dict[str, Any] | None = None,
) -> TimmImages:
    """A timm model without its classifier.

    Args:
        rest: timm's name, ``NAME`` or ``NAME.TAG``.
        weights: local file; otherwise the hub is asked, unless ``pretrained`` is false (random start).
        size: pixels of the square input.
        mean: and ``std``: of the normalisation, on the scale 0 to 1, one number or three.
        interpolation: ``bicubic``, ``bilinear``, ``nearest``...
        crop: share of the resized picture that the central crop keeps; 1 keeps all of a square picture.
        pooled: ``model`` (timm's pre-logits feature) or ``mean`` (of the local tokens).
        layers: numbers of earlier feature maps (of ``model.feature_info``, from 0) to join to every local token.
        cells: rows and columns that the grid is averaged to, for example 3 for 9 local tokens.
        places: rows and columns of a grid of the maps of ``layers`` that is joined to the pooled vector; 0 for none.
        colours: steps of red, green and blue of two colour histograms that are joined to the pooled vector, of the
            whole picture and of its middle: 8 for 2 x 512 numbers; 0 for none.
        model_args: handed to ``timm.create_model``, for example ``{"pad_type": "same"}``.
    """
    import timm

    if rest.split(".")[0] not in timm.list_models() and not rest.startswith(("hf-hub:", "hf_hub:")):
        raise unknown("timm model", rest, timm.list_models())
    if pooled not in ("model", "mean"):
        raise unknown("pooled", pooled, ["model", "mean"])
    if cells is not None and cells < 1:
        raise XRetrieveError(f"timm:{rest}: cells={cells}; it is the rows and columns of the grid, at least 1")
    if places and (places < 0 or not layers or pooled != "model"):
        raise XRetrieveError(f"timm:{rest}: places={places} joins the maps of `layers` to the pooled vector of the "
                             "model; give 1 or more, with layers and pooled='model', or leave it out")  # fmt: skip
    if colours and (not 2 <= colours <= 16 or pooled != "model"):
        raise XRetrieveError(f"timm:{rest}: colours={colours} joins histograms of as many steps to the pooled vector "
                             "of the model; give 2 to 16, with pooled='model', or leave it out")  # fmt: skip
    if size is not None and size < 1:
        raise XRetrieveError(f"timm:{rest}: size={size} pixels")
    if crop is not None and not 0 < crop <= 1:
        raise XRetrieveError(f"timm:{rest}: crop={crop}; it is the share that the crop keeps, above 0 and at most 1")
    given = dict(model_args or {})
    if weights is not None:
        pretrained = False
    model = _model(rest, pretrained, size, given)
    if weights is not None:
        _load(model, weights)
    from timm.data import resolve_model_data_config

    data = {"size": size, "mean": _three(mean), "std": _three(std), "interpolation": interpolation, "crop_pct": crop}
    data = {k: v for k, v in data.items() if v is not None}
    if size is not None:
        data["input_size"] = (3, data.pop("size"), size)
    config = resolve_model_data_config(model, args=data)
    options = {
        "size": size,
        "mean": _three(mean),
        "std": _three(std),
        "interpolation": interpolation,
        "crop": crop,
        "pooled": pooled,
        "layers": [int(i) for i in layers] if layers else None,
        "cells": cells,
        "model_args": given,
    }
    options |= {k: int(v) for k, v in (("places", places), ("colours", colours)) if v}  # a key only where it is new
    _check_layers(rest, model, options["layers"])
    return TimmImages(rest, model, {k: list(v) if isinstance(v, tuple) else v for k, v in config.items()}, options)


def _check_layers(rest: str, model: nn.Module, layers: list[int] | None) -> None:
    if not layers:
        return
    if not hasattr(model, "forward_intermediates"):
        raise XRetrieveError(f"timm:{rest} gives no intermediate feature maps; leave out layers")
    count = len(model.feature_info)
    wrong = [i for i in layers if not 0 <= i < count]
    if wrong:
        raise XRetrieveError(f"timm:{rest}: layers {wrong} do not exist; it has feature maps 0 to {count - 1}")


def names() -> list[str]:
    """All of timm's model names."""
    import timm

    return timm.list_models()


def _model(rest: str, pretrained: bool, size: int | None, given: dict[str, Any]) -> nn.Module:
    import timm

    arguments: dict[str, Any] = {"num_classes": 0, **given}
    config = timm.get_pretrained_cfg(rest, allow_unregistered=True)
    if size is not None and config is not None and config.fixed_input_size:
        arguments.setdefault("img_size", size)  # position embeddings depend on it
    try:
        with hub() if pretrained else nullcontext():
            return timm.create_model(rest, pretrained=pretrained, **arguments)
    except TypeError as error:
        raise XRetrieveError(f"timm:{rest}: {error}; check model_args {given}") from error
    except Exception as error:  # the hub clients raise many unrelated types
        if not pretrained:
            raise
        raise no_hub(f"timm:{rest}", error) from error


def _load(model: nn.Module, path: str | Path) -> None:
    state = read_weights(path)
    own = model.state_dict()
    heads = model.pretrained_cfg.get("classifier") or ()
    for head in (heads,) if isinstance(heads, str) else heads:
        for key in [k for k in state if k.startswith(f"{head}.") and k not in own]:
            del state[key]  # a file with the classifier serves as well
    load_strict(model, state, path)


def _three(value: float | Sequence[float] | None) -> list[float] | None:
    if value is None:
        return None
    values = [float(value)] * 3 if isinstance(value, (int, float)) else [float(v) for v in value]
    if len(values) != 3:
        raise XRetrieveError(f"mean and std are one number or three (red, green, blue), not {values}")
    return values
