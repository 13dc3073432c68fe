"""Large batches in the memory of a few items: encode chunk by chunk, and once more in the backward pass.

The features of all items are there for the loss, so the negatives are those of the whole batch and the gradients are
the same ("gradient caching", Gao et al., arXiv 2101.06983); only the activations inside the backbone are not kept.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from xretrieve.tokens import Tokens


def encode_chunked(backbone: nn.Module, batch: Any, chunk: int) -> Tokens:
    """Tokens of a prepared batch (a tensor, or a dict of tensors), ``chunk`` items at a time; 0 takes all at once.

    Batch norms in training mode see the statistics of a chunk; their running statistics move once per chunk.
    """
    count = len(batch if isinstance(batch, Tensor) else next(iter(batch.values())))
    if not chunk or count <= chunk or not torch.is_grad_enabled():
        return backbone(batch)

    def run(part: Any) -> tuple[Tensor, Tensor, Tensor]:
        tokens = backbone(part)
        return tokens.local, tokens.mask, tokens.pooled

    def contexts() -> tuple[Any, Any]:
        return contextlib.nullcontext(), _running_statistics_kept(backbone)

    parts = []
    for start in range(0, count, chunk):
        rows = slice(start, start + chunk)
        part = batch[rows] if isinstance(batch, Tensor) else {key: value[rows] for key, value in batch.items()}
        parts.append(Tokens(*checkpoint(run, part, use_reentrant=False, context_fn=contexts)))
    return Tokens.cat(parts)


@contextlib.contextmanager
def _running_statistics_kept(backbone: nn.Module) -> Iterator[None]:
    """The second pass leaves the batch norms' running statistics as they are."""
    norms = [m for m in backbone.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm) and m.training]
    held = [(buffer, buffer.clone()) for norm in norms for buffer in norm.buffers()]
    try:
        yield
    finally:
        for buffer, before in held:
            buffer.copy_(before)
