"""The optimizer of a stage: one group per part and kind of parameter."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from xretrieve.training.recipe import StageConfig


def make_optimizer(stage: StageConfig, parts: dict[str, nn.Module]) -> torch.optim.Optimizer:
    """Adam or AdamW over what requires a gradient.

    Args:
        stage: lr, lr_scale per part, weight_decay (matrices only).
        parts: the modules that learn, by name (image, text, head, loss).

    Each group carries ``base_lr``, its peak learning rate; the loop sets ``lr`` from it on every step.
    """
    groups: list[dict[str, Any]] = []
    for name, module in parts.items():
        own = [p for p in module.parameters() if p.requires_grad]
        lr = stage.lr * stage.lr_scale.get(name, 1.0)
        for decay, chosen in (
            (stage.weight_decay, [p for p in own if p.ndim > 1]),
            (0.0, [p for p in own if p.ndim <= 1]),
        ):
            if chosen:
                groups.append({"params": chosen, "lr": lr, "base_lr": lr, "weight_decay": decay})
    kind = torch.optim.AdamW if stage.optimizer == "adamw" else torch.optim.Adam
    return kind(groups)
