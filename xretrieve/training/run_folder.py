"""`Run`: the folder that a training writes, how it begins, and its report."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from xretrieve.config import first_difference, to_dict
from xretrieve.errors import XRetrieveError
from xretrieve.matcher import Matcher
from xretrieve.training.checkpoint import clean, find_point, load_progress
from xretrieve.training.log import read_log
from xretrieve.training.recipe import Recipe
from xretrieve.training.recipes import load_recipe, save_recipe
from xretrieve.utils.atomic import finish_files
from xretrieve.utils.paths import is_file

if TYPE_CHECKING:
    from xretrieve.ensemble import Ensemble
    from xretrieve.evaluation.report import Report

OURS = ("recipe.yaml", "log.csv", "curves.png", "report.json", "report.html", "ranks.npz", "skipped.json",
        "ensemble.json")  # fmt: skip


@dataclass
class Run:
    """The folder that a training wrote.

    Args:
        folder: where it lies.
        recipe: as resolved.
        report: the test split under the recipe's protocol.
        log: one row per epoch (stage, epoch, step, loss, lr, grad_norm, validation recalls, seconds, ...); empty for an
            ensemble, whose members have their own.
    """

    folder: Path
    recipe: Recipe
    report: Report
    log: list[dict[str, Any]]

    @classmethod
    def open(cls, folder: str | Path) -> Run:
        """Read a finished run."""
        from xretrieve.evaluation.report import Report

        folder = Path(folder)
        if not is_file(folder / "report.json"):
            raise XRetrieveError(
                f"{folder} holds no finished run (no report.json); "
                f"`xretrieve train RECIPE --out {folder} --resume` finishes it"
            )
        recipe = load_recipe(folder / "recipe.yaml")
        log = [] if recipe.members else read_log(folder / "log.csv")
        return cls(folder, recipe, Report.load(folder), log)

    def matcher(self) -> Matcher | Ensemble:
        """The best matcher of the run, or the ensemble of its members', on the CPU."""
        if self.recipe.members:
            from xretrieve.ensemble import Ensemble

            return Ensemble.load(self.folder)
        return Matcher.load(self.folder / "matcher")

    def members(self) -> list[Run]:
        """The runs that an ensemble averages; empty for a single model."""
        return [Run.open(self.folder / "members" / member.name) for member in self.recipe.ensemble]

    def missed(self) -> dict[str, str]:
        """Metrics of the recipe's ``expect`` that the report does not meet, with what was measured and expected."""
        values = {name: self.report[name].value for name in self.recipe.expect}
        return {
            name: f"{values[name]:.1f} is not within {low:g} to {high:g}"
            for name, (low, high) in self.recipe.expect.items()
            if not low <= values[name] <= high
        }


def open_folder(folder: Path, recipe: Recipe, resume: bool, overwrite: bool) -> None:
    """Make the run folder and write the recipe into it; a run that lies there is an error, or goes on, or goes."""
    stored = folder / "recipe.yaml"
    finish_files(folder)
    if resume and is_file(stored):
        before, now = to_dict(load_recipe(stored)), to_dict(recipe)
        changed = first_difference(before, now)
        if changed:
            raise XRetrieveError(
                f"cannot resume {folder}: it was started with another value of {changed}; take another --out"
            )
    elif not overwrite and _holds_steps(folder):
        raise XRetrieveError(
            f"{folder} already holds a run: --resume continues it, --overwrite replaces it, --out DIR goes elsewhere"
        )
    elif overwrite or is_file(stored):
        for name in OURS:
            (folder / name).unlink(missing_ok=True)
        for name in ("matcher", "last", "tensorboard", "members"):
            shutil.rmtree(folder / name, ignore_errors=True)
    clean(folder)
    save_recipe(recipe, stored)


def _holds_steps(folder: Path) -> bool:
    """Whether there is anything to lose: a start that failed at once leaves a recipe and the start weights only."""
    point = find_point(folder)
    started = is_file(folder / "report.json") or (point is not None and load_progress(point).total > 0)
    return started or any(_holds_steps(member) for member in folder.glob("members/*"))


def save_report(report: Report, recipe: Recipe, folder: Path, rows: Sequence[Report] = ()) -> Report:
    """Write a report on the recipe's own test split, with the published figures that belong beside it."""
    from xretrieve.evaluation.published import published_rows

    report.published = published_rows(recipe.dataset.name, recipe.protocol, recipe.published)
    report.save(folder, rows=rows, published=published_rows(recipe.dataset.name, recipe.protocol))
    return report
