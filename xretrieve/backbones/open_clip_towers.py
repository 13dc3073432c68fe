"""The two towers of any open_clip model: patch or word tokens, and the vector in the joint space."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn

from xretrieve.backbones import open_clip_build as build
from xretrieve.backbones.base import TOKENIZING, Backbone, check_texts
from xretrieve.backbones.clip_text import ClipText, is_plain
from xretrieve.backbones.clip_words import ClipWords
from xretrieve.backbones.grids import full_mask, grid_tokens
from xretrieve.backbones.images import ImageBackbone
from xretrieve.backbones.places import Fit, Size
from xretrieve.backbones.subwords import piece
from xretrieve.errors import XRetrieveError
from xretrieve.tokens import Tokens
from xretrieve.utils.files import read_json, write_json


class ClipImages(ImageBackbone):
    """Local tokens: patches (ViT, after its last norm, not projected) or the last grid (CNN); pooled: the joint vector.

    The joint vector is not unit length; the heads normalise it.
    """

    def __init__(self, rest: str, model: Any, config: dict[str, Any], preprocess: dict[str, Any]) -> None:
        super().__init__(f"open_clip:{rest}", "image", {})
        from open_clip.transform import PreprocessCfg, image_transform_v2

        self.tower: Any = nn.Module()
        self.tower.visual = model.visual
        self.config, self.preprocess = config, {"size": model.visual.image_size, **preprocess}
        self._transform = image_transform_v2(PreprocessCfg(**self.preprocess), is_train=False)
        with self.inference():
            tokens = self(self.transform(Image.new("RGB", (32, 32)))[None])
        self.local_dim, self.pooled_dim = tokens.local.shape[-1], tokens.pooled.shape[-1]
        self.cells = tokens.local.shape[1]

    @property
    def network(self) -> nn.Module:
        """Keys ``visual.*``, as in a file of the whole model."""
        return self.tower

    def transform(self, picture: Image.Image) -> Tensor:
        """(3,H,W) float32, open_clip's own evaluation transform."""
        return self._transform(picture)

    def forward(self, batch: Tensor) -> Tokens:
        """batch (N,3,H,W) to Tokens; local (N,R,width), pooled (N,joint)."""
        local, pooled = _image_tokens(self.tower.visual, batch, self.name)
        return Tokens(local.float(), full_mask(local), pooled.float())

    def fit(self) -> tuple[Size, Size, Fit]:
        """open_clip's evaluation transform."""
        size = self.preprocess["size"]
        height, width = (size, size) if isinstance(size, int) else size[-2:]
        return (width, height), (width, height), self.preprocess.get("resize_mode") or "shortest"

    def preprocessing(self) -> Any:
        """Preprocessing and model configuration."""
        return [self.preprocess, self.config]

    def assets(self, folder: Path) -> None:
        """The model configuration."""
        write_json(folder / "open_clip_config.json", {"model_cfg": self.config, "preprocess_cfg": self.preprocess})


def _image_tokens(visual: nn.Module, pixels: Tensor, name: str) -> tuple[Tensor, Tensor]:
    from open_clip.modified_resnet import ModifiedResNet
    from open_clip.timm_model import TimmModel
    from open_clip.transformer import VisionTransformer

    if isinstance(visual, VisionTransformer):
        visual.output_tokens = True
        pooled, local = visual(pixels)
        # Pooling "none" leaves the class token among the tokens.
        return (local[:, 1:] if getattr(visual, "pool_type", "") == "none" else local), pooled
    if isinstance(visual, ModifiedResNet):
        out = visual.forward_intermediates(pixels, indices=1)
        return out["image_intermediates"][-1].flatten(2).transpose(1, 2), out["image_features"]  # (N,D,H,W) -> (N,HW,D)
    if isinstance(visual, TimmModel):
        features = visual.trunk.forward_features(pixels)
        return grid_tokens(visual.trunk, features, name), visual.head(visual.trunk.forward_head(features))
    raise XRetrieveError(f"{name}: image towers of type {type(visual).__name__} give no local tokens here")


class ClipTexts(Backbone):
    """Local tokens: words after the last norm (start and end included), not projected; pooled: the joint vector."""

    def __init__(self, rest: str, model: Any, config: dict[str, Any], tokenizer: Any) -> None:
        super().__init__(f"open_clip:{rest}", "text", {})
        self.config, self.tokenizer = config, tokenizer
        # The plain CLIP keeps its text transformer at the top level, all others in .text.
        self.own, self.plain = isinstance(model, ClipText), not hasattr(model, "text")
        self.tower: Any
        if self.own:
            self.tower = model
        elif self.plain:
            del model.visual, model.logit_scale
            model.logit_bias = None
            self.tower = model
        else:
            self.tower = nn.Module()
            self.tower.text = model.text
        with self.inference():
            tokens = self(self.prepare(["a"]))
        self.local_dim, self.pooled_dim = tokens.local.shape[-1], tokens.pooled.shape[-1]

    @property
    def network(self) -> nn.Module:
        """Keys of the text tower, as in a file of the whole model."""
        return self.tower

    def prepare(self, items: Sequence[str]) -> dict[str, Tensor]:
        """Texts to ``ids`` and ``mask`` (N,W); what is longer than the model's context is cut."""
        check_texts(self.name, items)
        with TOKENIZING:
            ids = self.tokenizer(list(items))
        return {"ids": ids, "mask": self._real(ids)}

    def _real(self, ids: Tensor) -> Tensor:
        wrapped = getattr(self.tokenizer, "tokenizer", None)
        if wrapped is None:
            # CLIP's own tokenizer pads with 0, which is also the word "!": the end token, the highest, decides.
            return torch.arange(ids.shape[1]) <= ids.argmax(1, keepdim=True)
        mask = ids != wrapped.pad_token_id
        mask[:, 0] = True  # a text of padding only (an empty string) still has one token
        return mask

    def forward(self, batch: dict[str, Tensor]) -> Tokens:
        """Tokens; local (N,W,width) cut to the longest text, pooled (N,joint)."""
        ids, mask = batch["ids"], batch["mask"]
        tower = self.tower if self.plain else self.tower.text
        if self.own:
            used = ids.shape[1] if torch.compiler.is_compiling() else int(mask.sum(1).max())
            mask = mask[:, :used]
            local, pooled = tower(ids[:, :used])
        elif self.plain:
            out = tower.forward_intermediates(text=ids, text_indices=1, normalize_intermediates=True, normalize=False)
            local, pooled = out["text_intermediates"][-1], out["text_features"]
        elif hasattr(tower, "forward_intermediates"):
            out = tower.forward_intermediates(ids, indices=1, normalize_intermediates=True, output_fmt="NLC")
            local, pooled = out["text_intermediates"][-1], out["text_features"]
        elif hasattr(tower, "output_tokens"):  # a transformers model inside
            tower.output_tokens = True
            pooled, local = tower(ids)
            mask = mask[:, mask.shape[1] - local.shape[1] :]  # class pooling leaves the first token out
        else:
            raise XRetrieveError(f"{self.name}: text towers of type {type(tower).__name__} give no word tokens here")
        return Tokens(local.float(), mask, pooled.float()).trim()

    def token_texts(self, items: Sequence[str]) -> list[list[str]]:
        """The tokenizer's pieces. Empty lists for the few towers that leave a token out of their local tokens."""
        batch, inner = self.prepare(items), getattr(self.tokenizer, "tokenizer", self.tokenizer)
        if not (self.plain or hasattr(self.tower.text, "forward_intermediates")):
            return [[] for _ in items]
        special = set(inner.all_special_ids)
        return [
            [piece(inner.decode([number]), number in special) for number in row[real].tolist()]
            for row, real in zip(batch["ids"], batch["mask"], strict=True)
        ]

    def cut(self, items: Sequence[str]) -> list[tuple[int, int]]:
        """Tokens that are read of each text, and tokens that it has, markers of start and end included."""
        check_texts(self.name, items)
        wrapped, most = getattr(self.tokenizer, "tokenizer", None), int(self.tokenizer.context_length)
        if wrapped is not None:
            clean = getattr(self.tokenizer, "clean_fn", str)
            with TOKENIZING:
                has = [len(wrapped(clean(item), verbose=False)["input_ids"]) for item in items]
        else:
            has = [len(self.tokenizer.encode(item)) + 2 for item in items]
        return [(min(most, count), count) for count in has]

    def preprocessing(self) -> Any:
        """Tokenizer and model configuration."""
        return [self._kind, self.config]

    @property
    def _kind(self) -> str:
        return getattr(self.tokenizer, "kind", type(self.tokenizer).__name__)

    def assets(self, folder: Path) -> None:
        """Model configuration, and the tokenizer where open_clip does not carry it itself."""
        write_json(
            folder / "open_clip_config.json",
            {"model_cfg": self.config, "preprocess_cfg": {}, "tokenizer": self._kind},
        )
        if hasattr(self.tokenizer, "tokenizer"):
            self.tokenizer.tokenizer.save_pretrained(folder / "tokenizer")
        if "hf_model_name" in self.config["text_cfg"]:
            self.tower.text.config.save_pretrained(folder / "hf_text")


def create(
    rest: str,
    *,
    modality: str | None = None,
    weights: str | Path | None = None,
    assets: Path | None = None,
    pretrained: bool | None = None,
) -> ClipImages | ClipTexts:
    """One tower of an open_clip model.

    Args:
        rest: ``ARCH/TAG``, ``ARCH`` (with ``weights`` or ``pretrained=False``), ``hf-hub:ORG/NAME`` or
            ``local-dir:FOLDER``.
        modality: ``image`` or ``text``, required.
        weights: local file of the whole model or of this tower.
        pretrained: false asks for a random start.
    """
    if modality is None:
        raise XRetrieveError(f"open_clip:{rest} has two towers; say modality='image' or modality='text'")
    if assets is not None:
        saved = read_json(assets / "open_clip_config.json")
        config, preprocess = saved["model_cfg"], saved["preprocess_cfg"]
    else:
        config, preprocess = build.model_config(rest)
    if weights is None and pretrained is not False and not (build.split_name(rest)[1] or ":" in rest):
        raise XRetrieveError(
            f"open_clip:{rest} names no weights: write open_clip:{rest}/TAG, or give weights=FILE, or "
            "pretrained=false for a random start"
        )
    kind = saved["tokenizer"] if modality == "text" and assets is not None else ClipWords.kind
    if modality == "text" and weights is not None and kind == ClipWords.kind and is_plain(config):
        own = build.load_text(config, weights)
        return ClipTexts(rest, own, config, ClipWords(config["text_cfg"].get("context_length", 77)))
    if weights is None and pretrained is not False:
        model = build.pretrained(rest, config)
    else:
        model = build.build(config, assets)
    words = None
    if modality == "text" and assets is not None:
        words = build.saved_tokenizer(config, saved["tokenizer"], assets)
    elif modality == "text":
        words = build.tokenizer(rest)
    if weights is not None:
        tower = nn.Module()
        if modality == "image":
            tower.visual = model.visual
        elif hasattr(model, "text"):
            tower.text = model.text
        else:
            names = ("transformer", "token_embedding", "ln_final", "positional_embedding", "text_projection")
            for name in names:
                setattr(tower, name, getattr(model, name))
        build.load_file(model, tower, weights)
    return ClipImages(rest, model, config, preprocess) if modality == "image" else ClipTexts(rest, model, config, words)


def names() -> list[str]:
    """All published ``ARCH/TAG`` pairs."""
    import open_clip

    return [f"{arch}/{tag}" for arch, tag in open_clip.list_pretrained()]
