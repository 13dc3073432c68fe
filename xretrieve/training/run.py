"""`train`: a recipe becomes a run folder."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from xretrieve.config import apply_overrides, from_dict, to_dict
from xretrieve.data.cache import FeatureCache
from xretrieve.data.turns import spoken
from xretrieve.errors import XRetrieveError
from xretrieve.matcher import Matcher
from xretrieve.training.bar import Bar, Shown
from xretrieve.training.build import build_matcher, load_split, test_split
from xretrieve.training.checkpoint import Progress, find_point, load_progress
from xretrieve.training.composed_recipe import stage_notes
from xretrieve.training.loop import Loop
from xretrieve.training.members import train_members
from xretrieve.training.plots import plot_curves
from xretrieve.training.precision import as_started, stage_precisions, trained_in
from xretrieve.training.preflight import preflight
from xretrieve.training.recipe import Recipe
from xretrieve.training.recipes import Overrides, as_items, load_recipe
from xretrieve.training.run_folder import Run, open_folder, save_report
from xretrieve.training.skipped import skipped_warnings
from xretrieve.utils.disk import writing
from xretrieve.utils.files import locked, read_json
from xretrieve.utils.paths import is_file
from xretrieve.utils.processes import external

if TYPE_CHECKING:
    from xretrieve.evaluation.report import Report


def train(
    recipe: str | Path | Recipe,
    *,
    out: str | Path | None = None,
    resume: bool = False,
    overwrite: bool = False,
    devices: int = 1,
    accelerator: str = "auto",
    progress: Shown = None,
    overrides: Overrides = None,
    on_step: Callable[[int], None] | None = None,
    on_report: Callable[[Report], None] | None = None,
    **keys: Any,
) -> Run:
    """Train a recipe and measure it on its test split.

    Args:
        recipe: a name (``image_text/flickr8k-dual``), a YAML file or a :class:`Recipe`.
        out: the run folder; default ``runs/<last part of the recipe's name>``.
        resume: go on from the newest resume point in ``out``; the final weights are those of an unbroken run.
        overwrite: replace a run that lies in ``out``.
        devices: processes; the batch is split over them and the negatives are those of the whole batch. In a script,
            more than one needs ``if __name__ == "__main__":`` around the call. Under torchrun its processes are used.
        accelerator: ``auto``, ``cpu``, ``cuda`` or ``mps``.
        progress: True for a bar on stderr, "lines" for a line there after each epoch with the time left, False for
            neither; None: the bar on a terminal, else the lines.
        overrides: single keys, ``{"stages.0.lr": 1e-3}`` or ``["stages.0.lr=1e-3"]``.
        on_step: called with the number of optimizer steps done, after each; an exception of it stops the run.
        on_report: called with the report as soon as it is measured, before its page is drawn.
        keys: top-level keys of the recipe, for example ``seed=1``.

    Raises:
        XRetrieveError: a wrong recipe, missing data, a folder that already holds a run, a loss that is not finite.
    """
    chosen = resolve(recipe, [*as_items(overrides), *as_items(keys)])
    folder = Path(out) if out is not None else Path("runs") / chosen.name.rsplit("/", 1)[-1]
    if chosen.members:
        how = {"devices": devices, "accelerator": accelerator, "progress": progress, "on_step": on_step}
        run = train_members(chosen, folder, train, resume=resume, overwrite=overwrite, **how)
        if on_report is not None:
            on_report(run.report)
        return run
    if resume:
        chosen = as_started(folder, chosen)
    preflight(chosen)
    fabric = _fabric(devices, accelerator)
    if os.environ.get("LOCAL_RANK", "0") != "0":
        return _train(fabric, chosen, folder, devices, progress, on_step, on_report)
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
    with locked(folder, wait=False):
        open_folder(folder, chosen, resume, overwrite)
        if is_file(folder / "report.json"):
            return Run.open(folder)
        return _train(fabric, chosen, folder, devices, progress, on_step, on_report)


def _train(
    fabric: Any, chosen: Recipe, folder: Path, devices: int, progress: Shown, on_step: Callable[[int], None] | None,
    on_report: Callable[[Report], None] | None,
) -> Run:  # fmt: skip
    cuda = [fabric.device] if fabric.device.type == "cuda" else []
    with torch.random.fork_rng(devices=cuda):  # the caller's random state is left as it was
        if devices > 1 and not external():
            _spawn(fabric, chosen, folder, progress, on_step)
        else:
            fabric.launch()
            _process(fabric, chosen, folder, progress, on_step)
        if not fabric.is_global_zero:  # only under torchrun: the first process measures
            raise SystemExit(0)
        return finish(folder, chosen, fabric.device, on_report)


def resolve(recipe: str | Path | Recipe, overrides: Overrides = None) -> Recipe:
    """A recipe by name, file or object, with single keys set."""
    if isinstance(recipe, Recipe):
        return from_dict(Recipe, apply_overrides(to_dict(recipe), as_items(overrides)), where=recipe.name)
    return load_recipe(recipe, overrides)


def _fabric(devices: int, accelerator: str) -> Any:
    from lightning_fabric import Fabric
    from lightning_fabric.strategies import DDPStrategy

    strategy: Any = "auto"
    if devices > 1 or external():
        # A head need not use every parameter in every step. Processes are spawned: a call from Python works too.
        strategy = DDPStrategy(find_unused_parameters=True, **({} if external() else {"start_method": "spawn"}))
    logging.getLogger("lightning_fabric").setLevel(logging.WARNING)
    try:
        return Fabric(accelerator=accelerator, devices=devices, strategy=strategy)
    except (ValueError, RuntimeError) as error:
        raise XRetrieveError(f"devices={devices}, accelerator={accelerator!r}: {error}") from error


def _process(fabric: Any, recipe: Recipe, folder: Path, shown: Shown, on_step: Callable[[int], None] | None) -> None:
    """What each process does: build, restore, train."""
    point = find_point(folder)
    at = load_progress(point) if point is not None else Progress()
    at.precision = fabric.broadcast(stage_precisions(recipe, at, fabric.device, fabric.is_global_zero))
    bar = Bar(shown if fabric.is_global_zero else False, recipe.name)
    torch.manual_seed(recipe.seed)
    data = (load_split(recipe.dataset, "train"), load_split(recipe.dataset, "val"))
    if recipe.task == "multi_query":  # its captions are the turns; vocabularies come from training text alone
        data = (spoken(data[0]), spoken(data[1]))
        captions = data[0].captions
    elif recipe.task == "composed":
        from xretrieve.training.triplets import fill_attributes, triplet_data

        data = tuple(triplet_data(recipe, data))
        recipe = fill_attributes(recipe, data[0])
        captions = data[0].captions + data[1].captions
    else:
        captions = data[0].captions + data[1].captions
    matcher = build_matcher(recipe, captions)
    try:
        Loop(fabric, recipe, folder, matcher, data, FeatureCache(), point, at, bar, on_step).run()
    finally:
        bar.stop()


def _spawn(fabric: Any, *arguments: Any) -> None:
    """Run :func:`_process` in the fabric's processes; bad input found there is the same one-line error here."""
    from torch.multiprocessing import ProcessRaisedException

    try:
        fabric.launch(_process, *arguments)
    except ProcessRaisedException as error:
        kind, _, said = str(error).strip().rpartition("\n")[2].partition(": ")
        if kind.endswith(XRetrieveError.__name__):
            raise XRetrieveError(said) from None
        raise


def finish(
    folder: Path, recipe: Recipe, device: torch.device | str = "cpu",
    on_report: Callable[[Report], None] | None = None,
) -> Run:  # fmt: skip
    """Measure the best matcher on the test split, and draw the curves; report.json is written last."""
    from xretrieve.evaluation import evaluate

    point = find_point(folder)
    if point is None:
        raise XRetrieveError(f"{folder} holds no trained weights (no last/)")
    rows = read_json(point / "state.json")["rows"]
    matcher = Matcher.load(folder / "matcher").to(device).eval()
    test = test_split(recipe.dataset)
    report = evaluate(matcher, test, protocol=recipe.protocol, cache=FeatureCache(), combine=recipe.combine)
    report.warnings += skipped_warnings(folder)
    report.precision |= trained_in(folder)
    if recipe.task == "composed":
        from xretrieve.evaluation.composed_report import ComposedReport, trained

        assert isinstance(report, ComposedReport)
        report.warnings += stage_notes(recipe, matcher)
        report.about |= trained(to_dict(recipe), report.headline.name)
    if on_report is not None:
        on_report(report)
    plot_curves(rows, folder / "curves.png", recipe.name)
    return Run(folder, recipe, save_report(report, recipe, folder), rows)
