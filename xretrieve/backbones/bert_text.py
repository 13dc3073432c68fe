"""BERT encoders (arXiv 1810.04805; MiniLM) in plain torch: the same numbers as transformers, without importing it.

They are read from a folder that ``Backbone.save`` wrote; the ``tokenizers`` package reads its ``tokenizer.json``.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from xretrieve.backbones.base import Backbone, check_texts
from xretrieve.backbones.clip_text import Table
from xretrieve.backbones.subwords import piece
from xretrieve.backbones.weights import load_strict, read_weights
from xretrieve.tokens import Tokens
from xretrieve.utils.files import read_json
from xretrieve.utils.paths import is_file

ARCHITECTURE = "architecture.json"  # what is in the fingerprint, as transformers spells it; not in older folders
_NEEDED = {"model_type": "bert", "hidden_act": "gelu", "is_decoder": False, "add_cross_attention": False,
           "position_embedding_type": "absolute"}  # fmt: skip


def is_plain(folder: Path) -> bool:
    """Whether a saved folder holds such an encoder, with all that is needed to read it without transformers."""
    if not all(is_file(folder / name) for name in (ARCHITECTURE, "config.json", "tokenizer.json")):
        return False
    config, words = read_json(folder / "config.json"), read_json(folder / "tokenizer_config.json")
    sides = {words.get(f"{what}_side", "right") for what in ("padding", "truncation")}
    return all(config.get(key, value) == value for key, value in _NEEDED.items()) and sides == {"right"} and \
        str(words.get("tokenizer_class", "")).removesuffix("Fast") == "BertTokenizer"  # fmt: skip


class Attention(nn.Module):
    """Of all words to all words; keys ``self.*`` and ``output.*``."""

    def __init__(self, width: int, heads: int, eps: float, dropout: tuple[float, float]) -> None:
        super().__init__()
        self.heads, self.dropout = heads, dropout
        own = nn.Module()
        own.query, own.key, own.value = (nn.Linear(width, width) for _ in range(3))
        self.add_module("self", own)
        self.output = _Output(width, width, eps, dropout[0])

    def forward(self, x: Tensor, seen: Tensor | None) -> Tensor:
        """(N,W,width) to the same; seen (N,1,1,W) bool, None where every word is."""
        own: Any = self.get_submodule("self")
        q, k, v = (part(x).unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in (own.query, own.key, own.value))
        found = F.scaled_dot_product_attention(q, k, v, attn_mask=seen, dropout_p=self.training * self.dropout[1])
        return self.output(found.transpose(1, 2).flatten(2), x)


class _Output(nn.Module):
    def __init__(self, wide: int, width: int, eps: float, dropout: float) -> None:
        super().__init__()
        self.dense, self.LayerNorm, self.dropout = nn.Linear(wide, width), nn.LayerNorm(width, eps), dropout

    def forward(self, x: Tensor, before: Tensor) -> Tensor:
        return self.LayerNorm(F.dropout(self.dense(x), self.dropout, self.training) + before)


class _Layer(nn.Module):
    def __init__(self, config: dict[str, Any]) -> None:
        super().__init__()
        width, eps, drop = config["hidden_size"], config["layer_norm_eps"], config["hidden_dropout_prob"]
        heads, drops = config["num_attention_heads"], (drop, config["attention_probs_dropout_prob"])
        self.attention = Attention(width, heads, eps, drops)
        self.intermediate = nn.Module()
        self.intermediate.dense = nn.Linear(width, config["intermediate_size"])
        self.output = _Output(config["intermediate_size"], width, eps, drop)

    def forward(self, x: Tensor, seen: Tensor | None) -> Tensor:
        x = self.attention(x, seen)
        return self.output(F.gelu(self.intermediate.dense(x)), x)  # type: ignore[operator]


class Bert(nn.Module):
    """The encoder, its keys as in the published files.

    Args:
        config: of transformers (``config.json``).
    """

    def __init__(self, config: dict[str, Any]) -> None:
        super().__init__()
        width = config["hidden_size"]
        self.embeddings: Any = nn.Module()
        for name, rows in (("word", "vocab_size"), ("position", "max_position_embeddings"),
                           ("token_type", "type_vocab_size")):  # fmt: skip
            self.embeddings.add_module(f"{name}_embeddings", Table(config[rows], width))
        self.embeddings.LayerNorm = nn.LayerNorm(width, config["layer_norm_eps"])
        self.encoder: Any = nn.Module()
        self.encoder.layer = nn.ModuleList(_Layer(config) for _ in range(config["num_hidden_layers"]))
        self.dropout = config["hidden_dropout_prob"]

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        """ids and mask (N,W) to the last hidden states (N,W,width)."""
        parts = self.embeddings
        x = parts.word_embeddings(ids) + parts.token_type_embeddings.weight[0]
        x = parts.LayerNorm(x + parts.position_embeddings.weight[: ids.shape[1]])
        x = F.dropout(x, self.dropout, self.training)
        # of one text every word is real, and torch makes numbers of a mask in every layer
        whole = len(ids) == 1 and not torch.compiler.is_compiling() and bool(mask.all())
        seen = None if whole else mask.bool()[:, None, None, :]
        for layer in self.encoder.layer:
            x = layer(x, seen)
        return x


class BertTexts(Backbone):
    """As :class:`~xretrieve.backbones.transformers_towers.TransformerTexts`, from a saved folder.

    Args:
        rest: the name that it had.
        folder: the saved ``hf/``.
        weights: its file.
        options: ``max_length`` and ``pooled``.
    """

    def __init__(self, rest: str, folder: Path, weights: str | Path, options: dict[str, Any]) -> None:
        super().__init__(f"transformers:{rest}", "text", options)
        from tokenizers import Tokenizer

        self._folder, config = folder, read_json(folder / "config.json")
        self._architecture = read_json(folder / ARCHITECTURE)
        self._words = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self._words.no_padding()
        self._words.no_truncation()
        self._pad = int(config.get("pad_token_id") or 0)
        self._special = {n for n, token in self._words.get_added_tokens_decoder().items() if token.special}
        with torch.device("meta"):
            self.tower = Bert(config)
        load_strict(self.tower, read_weights(weights), weights, assign=True)
        self.local_dim = self.pooled_dim = config["hidden_size"]

    @property
    def network(self) -> nn.Module:
        """The tower, with the key names of a file of the whole model."""
        return self.tower

    def prepare(self, items: Sequence[str]) -> dict[str, Tensor]:
        """Texts to ``input_ids`` and ``attention_mask`` (N,W); what is longer than ``max_length`` is cut."""
        check_texts(self.name, items)
        most, rows = self.options["max_length"], [encoded.ids for encoded in self._words.encode_batch(list(items))]
        rows = [row if len(row) <= most else [*row[: most - 1], row[-1]] for row in rows]  # the end marker stays
        ids = torch.full((len(rows), max(map(len, rows))), self._pad)
        for place, row in enumerate(rows):
            ids[place, : len(row)] = torch.tensor(row)
        lengths = torch.tensor([len(row) for row in rows])
        return {"input_ids": ids, "attention_mask": (torch.arange(ids.shape[1]) < lengths[:, None]).long()}

    def forward(self, batch: dict[str, Tensor]) -> Tokens:
        """Tokens; local (N,W,width), pooled (N,width)."""
        mask = batch["attention_mask"].bool()
        local = self.tower(batch["input_ids"], mask).float()
        return Tokens(local, mask, local[:, 0]) if self.options["pooled"] == "cls" else Tokens.from_local(local, mask)

    def token_texts(self, items: Sequence[str]) -> list[list[str]]:
        """The tokenizer's pieces, parts inside a word with a leading ``+``."""
        batch = self.prepare(items)
        return [
            [piece(str(self._words.id_to_token(number)), number in self._special) for number in row[real].tolist()]
            for row, real in zip(batch["input_ids"], batch["attention_mask"].bool(), strict=True)
        ]

    def cut(self, items: Sequence[str]) -> list[tuple[int, int]]:
        """Tokens that are read of each text, and tokens that it has, markers of start and end included."""
        has = [len(encoded.ids) for encoded in self._words.encode_batch(list(items))]
        return [(min(self.options["max_length"], count), count) for count in has]

    def preprocessing(self) -> Any:
        """Tokenizer vocabulary and model configuration."""
        return [sorted(self._words.get_vocab().items(), key=lambda pair: pair[1]), self._architecture]

    def assets(self, folder: Path) -> None:
        """Configuration and tokenizer, as they were read."""
        shutil.copytree(self._folder, folder / "hf")
