"""The learning rate as a pure function of the step: nothing to save, nothing to restore."""

from __future__ import annotations

import math

from xretrieve.training.recipe import StageConfig


def lr_factor(stage: StageConfig, step: int, steps_per_epoch: int) -> float:
    """The factor on ``stage.lr`` for optimizer step ``step`` (from 0), in [0, 1].

    Warm-up rises linearly and reaches 1 on its last step; cosine ends at 0 one step after the last one;
    step multiplies by ``step_factor`` every ``step_epochs`` epochs (counted from the start, warm-up included).

    >>> from xretrieve.training.recipe import LossConfig
    >>> s = StageConfig(LossConfig("hinge"), epochs=2, schedule="cosine", warmup_steps=2)
    >>> [round(lr_factor(s, i, 3), 3) for i in range(6)]
    [0.5, 1.0, 1.0, 0.854, 0.5, 0.146]
    """
    total = stage.epochs * steps_per_epoch
    warmup = stage.warmup_steps or round(stage.warmup_epochs * steps_per_epoch)
    if step < warmup:
        return (step + 1) / warmup
    if stage.schedule == "step":
        return stage.step_factor ** (step // steps_per_epoch // stage.step_epochs)
    if stage.schedule == "cosine":
        return (1 + math.cos(math.pi * (step - warmup) / max(1, total - warmup))) / 2
    return 1.0
