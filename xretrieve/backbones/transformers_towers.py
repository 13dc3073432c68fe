"""Text encoders (BERT, MiniLM, MPNet...) and the two towers of CLIP and SigLIP from transformers."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn

from xretrieve.backbones import bert_text
from xretrieve.backbones import transformers_build as build
from xretrieve.backbones.base import TOKENIZING, Backbone, check_texts
from xretrieve.backbones.grids import full_mask
from xretrieve.backbones.images import ImageBackbone
from xretrieve.backbones.places import Fit, Size
from xretrieve.backbones.subwords import piece
from xretrieve.errors import XRetrieveError, unknown
from xretrieve.tokens import Tokens
from xretrieve.utils.files import read_json, write_json

_TWO_TOWERS = ("clip", "siglip")
_LARGEST_LENGTH = 512


class _Texts(Backbone):
    """What all text towers share: the tokenizer and the batch ``{input_ids, attention_mask}``."""

    def __init__(self, rest: str, tower: Any, config: Any, tokenizer: Any, options: dict[str, Any]) -> None:
        super().__init__(f"transformers:{rest}", "text", options)
        self.tower, self.config, self.tokenizer = tower, config, tokenizer
        with self.inference():
            tokens = self(self.prepare(["a"]))
        self.local_dim, self.pooled_dim = tokens.local.shape[-1], tokens.pooled.shape[-1]

    @property
    def network(self) -> nn.Module:
        """The tower, with the key names of a file of the whole model."""
        return self.tower

    def prepare(self, items: Sequence[str]) -> dict[str, Tensor]:
        """Texts to ``input_ids`` and ``attention_mask`` (N,W); what is longer than ``max_length`` is cut."""
        check_texts(self.name, items)
        # SigLIP was trained on captions padded to the full length, and without an attention mask.
        padding = "max_length" if self.config.model_type == "siglip" else True
        with TOKENIZING:
            batch = self.tokenizer(
                list(items),
                padding=padding,
                truncation=True,
                max_length=self.options["max_length"],
                return_attention_mask=True,
                return_tensors="pt",
            )
        return {k: batch[k] for k in ("input_ids", "attention_mask")}

    def token_texts(self, items: Sequence[str]) -> list[list[str]]:
        """The tokenizer's pieces, parts inside a word with a leading ``+``."""
        batch = self.prepare(items)
        special = set(self.tokenizer.all_special_ids)
        return [
            [piece(self.tokenizer.decode([number]), number in special) for number in row[real].tolist()]
            for row, real in zip(batch["input_ids"], batch["attention_mask"].bool(), strict=True)
        ]

    def cut(self, items: Sequence[str]) -> list[tuple[int, int]]:
        """Tokens that are read of each text, and tokens that it has, markers of start and end included."""
        with TOKENIZING:
            has = [len(self.tokenizer(item, verbose=False)["input_ids"]) for item in items]
        return [(min(self.options["max_length"], count), count) for count in has]

    def preprocessing(self) -> Any:
        """Tokenizer vocabulary and model configuration."""
        vocabulary = sorted(self.tokenizer.get_vocab().items(), key=lambda pair: pair[1])
        return [vocabulary, _architecture(self.config)]

    def assets(self, folder: Path) -> None:
        """Configuration and tokenizer, and what the fingerprint says of the configuration."""
        self.config.save_pretrained(folder / "hf")
        self.tokenizer.save_pretrained(folder / "hf")
        write_json(folder / "hf" / bert_text.ARCHITECTURE, _architecture(self.config))


class TransformerTexts(_Texts):
    """Local tokens: the last hidden states (first and last special token included); pooled: their mean over real tokens
    (what sentence-transformers calls mean pooling), or the first one (``pooled="cls"``).
    """

    def forward(self, batch: dict[str, Tensor]) -> Tokens:
        """Tokens; local (N,W,width), pooled (N,width)."""
        local = self.tower(**batch).last_hidden_state.float()
        mask = batch["attention_mask"].bool()
        if self.options["pooled"] == "cls":
            return Tokens(local, mask, local[:, 0])
        return Tokens.from_local(local, mask)


class TwoTowerTexts(_Texts):
    """Local tokens: words after the last norm, not projected; pooled: the joint vector, not unit length."""

    def forward(self, batch: dict[str, Tensor]) -> Tokens:
        """Tokens; local (N,W,width) cut to the longest text, pooled (N,joint)."""
        mask = batch["attention_mask"].bool()
        siglip = self.config.model_type == "siglip"
        seen = None if siglip else batch["attention_mask"]
        out = self.tower.text_model(input_ids=batch["input_ids"], attention_mask=seen)
        projection = getattr(self.tower, "text_projection", None)
        pooled = projection(out.pooler_output) if projection is not None else out.pooler_output
        return Tokens(out.last_hidden_state.float(), mask, pooled.float()).trim()


class TwoTowerImages(ImageBackbone):
    """Local tokens: patches after the last norm without the class token, not projected; pooled: the joint vector."""

    def __init__(self, rest: str, tower: Any, config: Any, processor: Any) -> None:
        super().__init__(f"transformers:{rest}", "image", {})
        self.tower, self.config, self.processor = tower, config, processor
        with self.inference():
            tokens = self(self.transform(Image.new("RGB", (32, 32)))[None])
        self.local_dim, self.pooled_dim = tokens.local.shape[-1], tokens.pooled.shape[-1]
        self.cells = tokens.local.shape[1]

    @property
    def network(self) -> nn.Module:
        """The tower, with the key names of a file of the whole model."""
        return self.tower

    def transform(self, picture: Image.Image) -> Tensor:
        """(3,H,W) float32, the model's own image processor."""
        return torch.as_tensor(self.processor(images=picture, return_tensors="pt")["pixel_values"][0])

    def forward(self, batch: Tensor) -> Tokens:
        """batch (N,3,H,W) to Tokens; local (N,R,width), pooled (N,joint)."""
        vision = self.tower.vision_model
        out = vision(pixel_values=batch)
        local, pooled = out.last_hidden_state, out.pooler_output
        if self.config.model_type == "clip":
            # CLIP's class norms only the class token it pools; patches get the same norm, as open_clip gives them.
            local = vision.post_layernorm(local[:, 1:])
            pooled = self.tower.visual_projection(pooled)
        return Tokens(local.float(), full_mask(local), pooled.float())

    def fit(self) -> tuple[Size, Size, Fit] | None:
        """What the image processor says: the shortest side and a crop (CLIP), or both sides (SigLIP)."""
        settings = json.loads(self.processor.to_json_string())
        size, crop = settings.get("size") or {}, settings.get("crop_size")
        if not settings.get("do_resize", True) or not (("height" in size) or ("shortest_edge" in size)):
            return None
        side = size.get("shortest_edge")
        target = (side, side) if side else (size["width"], size["height"])
        if settings.get("do_center_crop") and crop:
            return target, (crop["width"], crop["height"]), "shortest" if side else "squash"
        return None if side else (target, target, "squash")

    def preprocessing(self) -> Any:
        """The image processor's settings and the model configuration."""
        settings = json.loads(self.processor.to_json_string())
        keys = ("do_", "size", "crop_size", "resample", "rescale_factor", "image_mean", "image_std")
        return [{k: v for k, v in settings.items() if k.startswith(keys)}, _architecture(self.config)]

    def assets(self, folder: Path) -> None:
        """Configuration and image processor."""
        self.config.save_pretrained(folder / "hf")
        self.processor.save_pretrained(folder / "hf")


def create(
    rest: str,
    *,
    modality: str | None = None,
    weights: str | Path | None = None,
    assets: Path | None = None,
    pretrained: bool = True,
    max_length: int | None = None,
    pooled: str = "mean",
) -> bert_text.BertTexts | TransformerTexts | TwoTowerTexts | TwoTowerImages:
    """A text encoder, or one tower of a CLIP or SigLIP model.

    Args:
        rest: hub name, local folder, or ``package:PACKAGE/FOLDER`` inside an installed python package.
        modality: ``image`` or ``text``, required for two-tower models.
        weights: local file; configuration and tokenizer still come from ``rest``.
        pretrained: false starts at random.
        max_length: tokens kept of a text; default: what the model was made for, at most 512.
        pooled: of text encoders, ``mean`` or ``cls``.
    """
    if pooled not in ("mean", "cls"):
        raise unknown("pooled", pooled, ["mean", "cls"])
    if assets is not None and modality == "text" and weights is not None and max_length and \
            bert_text.is_plain(assets / "hf"):  # fmt: skip
        return bert_text.BertTexts(rest, assets / "hf", weights, {"max_length": max_length, "pooled": pooled})
    from transformers import AutoConfig, AutoImageProcessor, AutoTokenizer

    source = str(assets / "hf") if assets is not None else build.locate(rest)
    config = build.fetch(AutoConfig.from_pretrained, source, rest)
    two = hasattr(config, "text_config") and hasattr(config, "vision_config")
    if two and config.model_type not in _TWO_TOWERS:
        raise XRetrieveError(
            f"transformers:{rest}: two-tower models of type {config.model_type} are not supported "
            f"(supported: {', '.join(_TWO_TOWERS)}); try open_clip"
        )
    if two and modality is None:
        raise XRetrieveError(f"transformers:{rest} has two towers; say modality='image' or modality='text'")
    if modality == "image" and not two:
        raise XRetrieveError(f"transformers:{rest} is a {config.model_type} model; for images alone use timm:NAME")
    model = build.load_model(source, rest, pretrained and weights is None, config)
    tower = _tower(model, modality if two else None, config)
    if weights is not None:
        build.load_file(model, tower, weights)
    if modality == "image":
        return TwoTowerImages(rest, tower, config, build.fetch(AutoImageProcessor.from_pretrained, source, rest))
    tokenizer = build.fetch(AutoTokenizer.from_pretrained, source, rest)
    length = max_length or _length(source, tokenizer, config.text_config if two else config)
    options = {"max_length": length, "pooled": pooled}
    return (TwoTowerTexts if two else TransformerTexts)(rest, tower, config, tokenizer, options)


def names() -> list[str]:
    """A few common names; any hub name or folder works."""
    return [
        "FacebookAI/roberta-base",
        "google-bert/bert-base-uncased",
        "google/siglip-base-patch16-224",
        "openai/clip-vit-base-patch32",
        "sentence-transformers/all-MiniLM-L6-v2",
        "sentence-transformers/all-mpnet-base-v2",
    ]


def _tower(model: Any, modality: str | None, config: Any) -> nn.Module:
    if modality is None:
        tower = model.get_encoder() if config.is_encoder_decoder else model
        if getattr(tower, "pooler", None) is not None:
            tower.pooler = None  # never used here; parameters without gradient stop distributed training
        return tower
    tower, side = nn.Module(), "vision" if modality == "image" else "text"
    for name in (f"{side}_model", "visual_projection" if modality == "image" else "text_projection"):
        if hasattr(model, name):
            setattr(tower, name, getattr(model, name))
    return tower


def _length(source: str, tokenizer: Any, config: Any) -> int:
    limits = [_LARGEST_LENGTH, tokenizer.model_max_length, getattr(config, "max_position_embeddings", _LARGEST_LENGTH)]
    sentence = Path(source) / "sentence_bert_config.json"
    if sentence.is_file():  # sentence-transformers models are made for shorter texts than their BERT
        limits.append(read_json(sentence).get("max_seq_length") or _LARGEST_LENGTH)
    return min(limits)


def _architecture(config: Any) -> dict[str, Any]:
    """The configuration without where it was read from and which version wrote it."""
    noise = ("_name_or_path", "transformers_version", "torch_dtype", "dtype", "architectures")

    def clean(value: Any) -> Any:
        return {k: clean(v) for k, v in value.items() if k not in noise} if isinstance(value, dict) else value

    return clean(json.loads(config.to_json_string(use_diff=False)))
