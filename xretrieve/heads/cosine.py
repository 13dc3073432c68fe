"""Cosine of the backbones' own pooled vectors: what a CLIP-like model does untrained."""

from __future__ import annotations

from typing import Any

import torch.nn.functional as F

from xretrieve.errors import XRetrieveError
from xretrieve.heads.base import Head
from xretrieve.tokens import Prepared, Tokens


class Cosine(Head):
    """No parameters. Both backbones must already share a space (open_clip, SigLIP, a matched pair).

    Args:
        image_dim, text_dim: pooled widths of the two backbones; they must be equal.
    """

    name = "cosine"
    tasks = ("image_text", "multi_query", "composed")

    def __init__(self, image_dim: int, text_dim: int) -> None:
        super().__init__({"image_dim": image_dim, "text_dim": text_dim})
        if image_dim != text_dim:
            raise XRetrieveError(
                f"head 'cosine' needs backbones that share a space; the image side gives {image_dim} and the text side "
                f"{text_dim} dimensions. Train a head 'dual' on them, or take both towers of one open_clip model"
            )

    @classmethod
    def reads(cls, side: str, options: dict[str, Any]) -> str:
        """The pooled vectors."""
        return "pooled"

    def prepare_queries(self, tokens: Tokens) -> Prepared:
        """Unit-length pooled vectors (Q, D)."""
        return Prepared.from_pooled(F.normalize(tokens.pooled.float(), dim=-1))

    def prepare_gallery(self, tokens: Tokens) -> Prepared:
        """Unit-length pooled vectors (G, D)."""
        return Prepared.from_pooled(F.normalize(tokens.pooled.float(), dim=-1))
