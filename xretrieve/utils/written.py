"""Whether weights are still what they were, so that what was made of them can be kept between searches."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn


def values_of(module: nn.Module) -> list[Tensor]:
    """Parameters and buffers of a module and of all in it. Torch's own walk takes five times as long."""
    found: list[Tensor | None] = []
    parts: list[nn.Module | None] = [module]
    for part in parts:  # it grows meanwhile
        if part is not None:
            found += [*part._parameters.values(), *part._buffers.values()]
            parts += part._modules.values()
    return [value for value in found if value is not None]


def written(values: Iterable[Tensor]) -> Any | None:
    """What is another one after a value was written to, moved or replaced, or the precision in force was.

    None where nothing may be kept: outside inference mode, and of values that were made in it, which do not tell of
    writes.
    """
    if not torch.is_inference_mode_enabled():
        return None
    values = list(values)
    if any(value.is_inference() for value in values):
        return None
    low = torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else None
    return low, [(value.data_ptr(), value._version) for value in values]
