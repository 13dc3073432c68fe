"""Feature maps and token sequences of timm models as (N,R,D) local tokens."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from xretrieve.errors import XRetrieveError


def grid_tokens(model: nn.Module, features: Tensor, name: str) -> Tensor:
    """What a timm model's ``forward_features`` gave, as (N,R,D): cells row by row, or patches without prefix tokens."""
    if not isinstance(features, Tensor) or features.ndim not in (3, 4):
        raise XRetrieveError(f"{name}: timm's forward_features of this model gives neither a grid nor tokens")
    if features.ndim == 4:
        if getattr(model, "output_fmt", "NCHW") == "NHWC":
            return features.flatten(1, 2)  # (N,H,W,D) -> (N,HW,D)
        return features.flatten(2).transpose(1, 2)  # (N,D,H,W) -> (N,HW,D)
    return features[:, getattr(model, "num_prefix_tokens", 0) :]  # (N,1+R,D) -> (N,R,D)


def full_mask(local: Tensor) -> Tensor:
    """(N,R) all real."""
    return torch.ones(local.shape[:2], dtype=torch.bool, device=local.device)
