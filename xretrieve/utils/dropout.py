"""Dropout whose mask is cheap on a CPU."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Dropout(nn.Dropout):
    """``torch.nn.Dropout``; on a CPU one random 64-bit number decides eight entries, not one.

    The random numbers of ``torch.nn.Dropout`` took a third of the CPU seconds of a training step on cached features.
    There the rate is rounded to a multiple of 1/256.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Zeros entries with probability ``p``, scales the others up; training only. Any shape."""
        dropped = round(256 * self.p)  # bytes below this are
        if not self.training or x.device.type != "cpu" or not 0 < dropped < 256:
            return super().forward(x)
        eights = torch.empty((x.numel() + 7) // 8, dtype=torch.int64).random_(-(2**63), 2**63 - 1)
        kept = eights.view(torch.uint8)[: x.numel()].view(x.shape) >= dropped
        return x * kept.to(x.dtype).mul_(256 / (256 - dropped))
