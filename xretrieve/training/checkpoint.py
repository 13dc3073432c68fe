"""Resume points: safetensors and JSON under ``last/<number>/``, each folder whole or not there.

A point is written under a new name before the older one is deleted: a run killed at any moment has one to go on from.
Random states need no saving: every step starts from its own seed (:func:`xretrieve.training.samplers.step_seed`).
"""

from __future__ import annotations

import shutil
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from xretrieve.backbones.weights import load_strict
from xretrieve.errors import XRetrieveError
from xretrieve.utils.atomic import tidy_folder
from xretrieve.utils.checksums import verify
from xretrieve.utils.files import atomic_folder, read_json, write_json
from xretrieve.utils.paths import is_folder


@dataclass
class Progress:
    """How far a run is: everything that is not a tensor."""

    stage: int = 0
    """number of the stage"""
    epoch: int = 0
    """epoch within the stage"""
    step: int = 0
    """optimizer steps done in this epoch"""
    total: int = 0
    """optimizer steps done in the whole run"""
    best: float = -1.0
    """best validation rsum so far, -1 before the first"""
    waited: int = 0
    """validations of this stage since the best one"""
    sums: dict[str, float] = field(default_factory=dict)
    """running sums of this epoch's log row"""
    seconds: float = 0.0
    """time spent in this epoch before the resume point"""
    scaler: dict[str, Any] = field(default_factory=dict)
    """state of the fp16 loss scaler"""
    precision: dict[str, str] = field(default_factory=dict)
    """what each stage computes in, by its number: what `auto` meant where the run was started"""
    rows: list[dict[str, Any]] = field(default_factory=list)
    """the log so far"""


def save_point(
    folder: Path, modules: nn.ModuleDict, optimizer: Any, ema: dict[str, Tensor], progress: Progress
) -> None:
    """Write a resume point and delete the older ones."""
    number = max((int(p.name) for p in _points(folder)), default=0) + 1
    tensors = {f"ema.{k}": v for k, v in ema.items()}
    if optimizer is not None:
        names = {id(p): n for n, p in modules.named_parameters()}
        for parameter, state in optimizer.state.items():
            tensors |= {f"{key}.{names[id(parameter)]}": v for key, v in state.items() if isinstance(v, Tensor)}
    with atomic_folder(folder / "last" / f"{number:08d}", sealed=True) as part:
        # cloned: safetensors refuses tensors that share memory
        save_file(
            {k: v.detach().cpu().contiguous().clone() for k, v in modules.state_dict().items()},
            part / "model.safetensors",
        )
        save_file(
            {k: v.detach().cpu().contiguous().clone() for k, v in tensors.items()}, part / "optimizer.safetensors"
        )
        write_json(part / "state.json", asdict(progress))
    for old in _points(folder)[:-1]:
        shutil.rmtree(old, ignore_errors=True)


def find_point(folder: Path) -> Path | None:
    """The newest resume point of a run folder, or None."""
    points = _points(folder)
    return points[-1] if points else None


def load_progress(point: Path) -> Progress:
    """How far the run was at a resume point."""
    values = read_json(point / "state.json")
    try:
        return Progress(**values)
    except TypeError as error:
        raise XRetrieveError(f"{point / 'state.json'}: not a resume point of this version ({error})") from error


def load_model(point: Path, modules: nn.ModuleDict) -> None:
    """Restore the parts that learn, loss included; a point whose bytes changed on the disk is an error."""
    verify(point, None)
    load_strict(modules, load_file(point / "model.safetensors"), point / "model.safetensors")


def load_optimizer(point: Path, modules: nn.ModuleDict, optimizer: Any) -> dict[str, Tensor]:
    """Restore the optimizer's tensors; returns the moving average of the weights (empty when there is none)."""
    parameters = dict(modules.named_parameters())
    ema: dict[str, Tensor] = {}
    for key, value in load_file(point / "optimizer.safetensors").items():
        kind, _, name = key.partition(".")
        if kind == "ema":
            ema[name] = value
            continue
        parameter = parameters[name]
        # Adam keeps its step count on the CPU
        optimizer.state[parameter][kind] = value if value.ndim == 0 else value.to(parameter.device)
    return ema


def clean(folder: Path) -> None:
    """After a kill: put back a matcher that was being replaced, and delete half-written files and folders."""
    kept = sorted(folder.glob(".matcher.*.old/folder"))  # as former versions moved it aside
    if kept and not is_folder(folder / "matcher"):
        kept[-1].replace(folder / "matcher")
    for place in (folder, folder / "last"):
        tidy_folder(place)
    for left in [*folder.glob(".matcher.*.old"), *folder.glob("last/.*.part")]:  # of former versions
        shutil.rmtree(left, ignore_errors=True)


def _points(folder: Path) -> list[Path]:
    return sorted(p for p in (folder / "last").glob("*") if p.name.isdigit() and (p / "state.json").is_file())


class Ema:
    """Moving average of the weights that learn: ``average = decay * average + (1 - decay) * weight``.

    Args:
        modules: the parts.
        decay: 0 switches it off; early on it is at most ``(1 + step) / (10 + step)``, so a short run is not all start
            weights.
        average: of a resumed run.
    """

    def __init__(self, modules: nn.ModuleDict, decay: float, average: dict[str, Tensor] | None = None) -> None:
        self.decay = decay
        self.weights = {n: p for n, p in modules.named_parameters() if p.requires_grad} if decay else {}
        given = average or {}
        self.average = {n: given[n].to(p.device) if n in given else p.detach().clone() for n, p in self.weights.items()}

    @torch.no_grad()
    def update(self, step: int) -> None:
        """After optimizer step number ``step`` (from 0) of the stage."""
        decay = min(self.decay, (1 + step) / (10 + step))
        for name, weight in self.weights.items():
            self.average[name].lerp_(weight, 1 - decay)

    @torch.no_grad()
    def swap(self) -> None:
        """Exchange weights and average; call it twice to get back."""
        for name, weight in self.weights.items():
            held = weight.detach().clone()
            weight.copy_(self.average[name])
            self.average[name].copy_(held)
