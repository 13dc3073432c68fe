"""The optimizer of a stage: one group per part and kind of parameter."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from xretrieve.errors import XRetrieveError
from xretrieve.training.recipe import StageConfig


def make_optimizer(stage: StageConfig, parts: dict[str, nn.Module]) -> torch.optim.Optimizer:
    """Adam or AdamW over what requires a gradient.

    Args:
        stage: lr, lr_scale per part or module of one, weight_decay (matrices only).
        parts: the modules that learn, by name (image, text, head, loss).

    Each group carries ``base_lr``, its peak learning rate; the loop sets ``lr`` from it on every step.
    """
    groups: dict[tuple[str, bool], dict[str, Any]] = {}
    for part, module in parts.items():
        for name, p in module.named_parameters():
            if not p.requires_grad:
                continue
            scaled = _scaled(stage, f"{part}.{name}", part)
            lr = stage.lr * stage.lr_scale.get(scaled, 1.0)
            decay = stage.weight_decay if p.ndim > 1 else 0.0
            new = {"params": [], "lr": lr, "base_lr": lr, "weight_decay": decay}
            groups.setdefault((scaled, p.ndim > 1), new)["params"].append(p)
    missing = {key for key in stage.lr_scale if key.split(".")[0] in parts} - {key for key, _ in groups}
    if missing:
        raise XRetrieveError(
            f"recipe key 'lr_scale': nothing that learns in stage {stage.name!r} begins with "
            f"{', '.join(sorted(missing))}"
        )
    kind = torch.optim.AdamW if stage.optimizer == "adamw" else torch.optim.Adam
    return kind(list(groups.values()))


def _scaled(stage: StageConfig, name: str, part: str) -> str:
    """The longest key of ``lr_scale`` that a parameter's name begins with; its part where there is none."""
    fits = [key for key in stage.lr_scale if f"{name}.".startswith(f"{key}.")]
    return max(fits, key=len, default=part)
