"""Which colours a picture has, counted in its pixels: what the features of a classifier of things say little about."""

from __future__ import annotations

import torch
from torch import Tensor


def colour_histograms(pixels: Tensor, steps: int) -> Tensor:
    """Square roots of the shares of pixels of each colour, of the whole picture and then of its middle (colour
    indexing: Swain and Ballard, IJCV 1991).

    A histogram becomes a unit vector by the square root, and colours of few pixels count for more. The middle is half
    of the height and half of the width: of a photo of a thing it holds less of the background.

    Args:
        pixels: (N,3,H,W) red, green and blue, 0 to 255.
        steps: equal steps of each of the three.

    Returns:
        (N, 2 steps^3) float32; colour (r, g, b) of a histogram stands at (r steps + g) steps + b.
    """
    level = (pixels.long() * steps) >> 8  # (N,3,H,W) 0 to steps - 1
    colour = (level[:, 0] * steps + level[:, 1]) * steps + level[:, 2]  # (N,H,W)
    top, left = (side // 4 for side in colour.shape[1:])
    middle = colour[:, top : colour.shape[1] - top, left : colour.shape[2] - left]
    return torch.cat([_shares(part.flatten(1), steps**3).sqrt() for part in (colour, middle)], 1)


def _shares(values: Tensor, count: int) -> Tensor:
    """(N,L) whole numbers below ``count`` to (N,count): how often each occurs, in shares of L."""
    found = torch.zeros(len(values), count, device=values.device)
    return found.scatter_add_(1, values, torch.full(values.shape, 1 / values.shape[1], device=values.device))
