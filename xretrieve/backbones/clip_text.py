"""CLIP's text transformer (arXiv 2103.00020) in plain torch: the same numbers as open_clip, without importing it."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

_KNOWN = {"context_length", "vocab_size", "width", "heads", "layers", "mlp_ratio"}


def is_plain(config: dict[str, Any]) -> bool:
    """Whether the text side of an open_clip configuration is this tower, its tokenizer CLIP's own."""
    kinds = {key for key in config if key not in ("embed_dim", "vision_cfg", "text_cfg", "quick_gelu")}
    return not kinds and set(config["text_cfg"]) <= _KNOWN


class Table(nn.Module):
    """An embedding that is made without values: drawing them on the meta device imports torch._dynamo."""

    def __init__(self, rows: int, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(rows, width))

    def forward(self, ids: Tensor) -> Tensor:
        """ids (...) to (...,width)."""
        return F.embedding(ids, self.weight)


class QuickGELU(nn.Module):
    """The approximation that OpenAI's models were trained with."""

    def forward(self, x: Tensor) -> Tensor:
        """Of any shape."""
        return x * torch.sigmoid(1.702 * x)


class Block(nn.Module):
    """Attention and two layers, each after a norm and beside a shortcut."""

    def __init__(self, width: int, heads: int, hidden: int, act: type[nn.Module]) -> None:
        super().__init__()
        self.ln_1, self.ln_2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attn = nn.MultiheadAttention(width, heads, batch_first=True)
        self.mlp = nn.Sequential()
        for name, part in (("c_fc", nn.Linear(width, hidden)), ("gelu", act()), ("c_proj", nn.Linear(hidden, width))):
            self.mlp.add_module(name, part)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """(N,W,width) to the same; mask (W,W) is added to the attention."""
        normed = self.ln_1(x)
        x = x + self.attn(normed, normed, normed, need_weights=False, attn_mask=mask)[0]
        return x + self.mlp(self.ln_2(x))


class ClipText(nn.Module):
    """Keys as in a file of the whole model.

    Args:
        config: of the open_clip model, see :func:`is_plain`.
    """

    def __init__(self, config: dict[str, Any]) -> None:
        super().__init__()
        text = config["text_cfg"]
        width, heads = text.get("width", 512), text.get("heads", 8)
        self.token_embedding = Table(text.get("vocab_size", 49408), width)
        self.positional_embedding = nn.Parameter(torch.empty(text.get("context_length", 77), width))
        hidden = int(width * text.get("mlp_ratio", 4.0))
        act: type[nn.Module] = QuickGELU if config.get("quick_gelu") else nn.GELU
        self.transformer = nn.Module()
        self.transformer.resblocks = nn.ModuleList(
            Block(width, heads, hidden, act) for _ in range(text.get("layers", 12))
        )
        self.ln_final = nn.LayerNorm(width)
        self.text_projection = nn.Parameter(torch.empty(width, config["embed_dim"]))

    def forward(self, ids: Tensor) -> tuple[Tensor, Tensor]:
        """ids (N,W) to word tokens (N,W,width) after the last norm, and joint vectors (N,joint) at the end token, whose
        number is the highest. What comes after it changes neither, so W may be cut."""
        x = self.token_embedding(ids) + self.positional_embedding[: ids.shape[1]]
        mask = torch.full((ids.shape[1], ids.shape[1]), float("-inf"), dtype=x.dtype, device=x.device).triu(1)
        for block in self.transformer.resblocks:  # type: ignore[union-attr]
            x = block(x, mask)
        x = self.ln_final(x)
        return x, x[torch.arange(len(x), device=x.device), ids.argmax(-1)] @ self.text_projection
