"""Small building blocks that are faster on a CPU than their usual names, with the same results.

Each falls back to the usual function where gradients are wanted, on other devices, and in other precisions.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import conv2d
from torch.nn.functional import linear as plain_linear

from xretrieve.heads.attention import LOW

IMAGES = 16  # with fewer, torch keeps a 1x1 convolution to itself
ROWS, COLUMNS = 256, 64  # smaller products gain nothing
SAFE = 80.0  # exp of +-80 is a normal float32, and a thousand of them can be added


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """``x weight' + bias``. x (..., K), weight (J, K) -> (..., J).

    In float32 on a CPU most rows take the way of a 1x1 convolution over 16 images, which torch hands to oneDNN; a
    matrix product goes to MKL, which on processors of other makers leaves half of their vector units unused (measured
    on a Zen 5 core: 55 against 110 billion multiply-adds a second).
    """
    rows = x.numel() // x.shape[-1]
    even = rows - rows % IMAGES
    if not _plain_cpu(x) or weight.dtype != torch.float32 or even < ROWS or min(weight.shape) < COLUMNS:
        return plain_linear(x, weight, bias)
    flat = x.reshape(rows, -1)
    pixels = flat[:even].view(IMAGES, 1, even // IMAGES, -1).permute(0, 3, 1, 2)  # channels last, no copy
    made = conv2d(pixels, weight[:, :, None, None], bias).permute(0, 2, 3, 1).reshape(even, -1)
    if even < rows:
        made = torch.cat([made, plain_linear(flat[even:], weight, bias)])
    return made.view(*x.shape[:-1], -1)


def short_softmax(logits: Tensor, mask: Tensor | None = None) -> Tensor:
    """Softmax over the last axis; ``logits`` may be overwritten. ``mask`` (broadcast) is False where the weight is 0.

    On a CPU torch walks a short axis value by value; ``exp`` over everything is nine times faster, and needs no shift
    while all logits are of moderate size.
    """
    if _plain_cpu(logits) and logits.numel():
        low, high = logits.aminmax()
        if float(high) < SAFE and float(low) > -SAFE:
            weights = logits.exp_()
            weights = weights if mask is None else weights.mul_(mask)
            return weights.div_(weights.sum(-1, keepdim=True))
    return (logits if mask is None else logits.masked_fill(~mask, LOW)).softmax(-1)


def _plain_cpu(x: Tensor) -> bool:
    return x.device.type == "cpu" and x.dtype == torch.float32 and not torch.is_grad_enabled()
