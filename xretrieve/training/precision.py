"""The precision of each stage of a run: what ``auto`` means, chosen once, kept on resume, set for a stage's steps."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

from xretrieve.training.checkpoint import Progress, find_point, load_progress
from xretrieve.training.recipe import Recipe
from xretrieve.training.recipes import load_recipe
from xretrieve.utils.precision import WORDS, native, resolve


def as_started(folder: Path, recipe: Recipe) -> Recipe:
    """The recipe with the precisions of the run that lies in ``folder`` where it says ``auto`` itself: a run that was
    started in bf16, as recipes used to say, goes on in bf16."""
    stored = folder / "recipe.yaml"
    before = load_recipe(stored).stages if stored.is_file() else []
    if len(before) != len(recipe.stages):
        return recipe
    kept = [replace(stage, precision=old.precision) if stage.precision == "auto" else stage
            for stage, old in zip(recipe.stages, before, strict=True)]  # fmt: skip
    return replace(recipe, stages=kept)


def stage_precisions(recipe: Recipe, at: Progress, device: Any, tell: bool = True) -> dict[str, str]:
    """What each stage computes in, by its number as text; a resumed run keeps what it was started with.

    ``tell``: a line on stderr says so where this device would take another one, or only emulates it.
    """
    found, own = {}, native(device).name
    for number, stage in enumerate(recipe.stages):
        kept = at.precision.get(str(number)) if stage.precision == "auto" else None
        found[str(number)] = resolve(kept or stage.precision, device, quiet=not tell)
        if kept not in (None, own) and tell and stage is next(s for s in recipe.stages if s.precision == "auto"):
            print(f"goes on in {WORDS[str(kept)]}, as the run was started; auto means {WORDS[own]} on this {device}",
                  file=sys.stderr, flush=True)  # fmt: skip
    return found


def trained_in(folder: Path) -> dict[str, str]:
    """The ``precision`` of a report on a run: what its stages computed in; empty where the folder is no run."""
    point = find_point(folder)
    if point is None:
        return {}
    stages, used = load_recipe(folder / "recipe.yaml").stages, load_progress(point).precision
    found = {stage.name: WORDS[used.get(str(i), stage.precision)] for i, stage in enumerate(stages) if not stage.skip}
    one = len(set(found.values())) == 1
    return {"trained": next(iter(found.values())) if one else ", ".join(f"{n} {w}" for n, w in found.items())}


def use_precision(fabric: Any, precision: str) -> None:
    """Steps of what ``fabric`` sets up from now on compute in ``precision``, with a new loss scaler for fp16."""
    from lightning_fabric.plugins.precision import MixedPrecision, Precision

    names: dict[str, Any] = {"bf16": "bf16-mixed", "fp16": "16-mixed"}
    made = MixedPrecision(names[precision], fabric.device.type) if precision in names else Precision()
    fabric.strategy.precision = fabric._precision = made
