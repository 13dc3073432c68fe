"""Recipes with `members`: every member is trained into its own folder, then their average is measured."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from xretrieve.config import to_dict
from xretrieve.data.base import RetrievalDataset
from xretrieve.data.cache import FeatureCache
from xretrieve.ensemble import FILE, Ensemble
from xretrieve.errors import XRetrieveError
from xretrieve.evaluation.report import Report
from xretrieve.loading import load_one
from xretrieve.training.build import load_split
from xretrieve.training.preflight import preflight
from xretrieve.training.recipe import MemberConfig, Recipe
from xretrieve.training.recipes import as_items, load_recipe
from xretrieve.training.run_folder import Run, open_folder, save_report
from xretrieve.training.skipped import skipped_warnings
from xretrieve.utils.files import atomic_folder, read_json
from xretrieve.utils.paths import expand, is_file, is_folder
from xretrieve.utils.processes import external

KEPT = ("recipe.yaml", "log.csv", "curves.png", "matcher", "report.json", "report.html", "ranks.npz", "skipped.json")


def member_source(recipe: Recipe, member: MemberConfig) -> Recipe | Path:
    """What a member is made from: its recipe with the ensemble's dataset, protocol, seed and overrides, or the folder
    of a finished run."""
    folder = expand(member.recipe)
    if is_file(folder / "recipe.yaml"):
        if member.overrides:
            raise XRetrieveError(f"member {member.recipe} is a run that is there already: it takes no overrides")
        single = not Run.open(folder).recipe.members  # an unfinished run is an error that says how to finish it
    else:
        common = {"dataset": to_dict(recipe.dataset), "protocol": recipe.protocol, "seed": recipe.seed}
        changes = [as_items(keys) for keys in (common, flat(recipe.overrides), flat(member.overrides))]
        made = load_recipe(member.recipe, sum(changes, []))
        single = not made.members
    if not single:
        raise XRetrieveError(f"member {member.recipe} is an ensemble itself; list its members instead")
    return folder if is_file(folder / "recipe.yaml") else made


def flat(keys: dict[str, Any], before: str = "") -> dict[str, Any]:
    """Nested keys as dotted ones, so that overrides may be written either way.

    >>> flat({"head.options.dim": 8, "stages": {"0": {"epochs": 1}}})
    {'head.options.dim': 8, 'stages.0.epochs': 1}
    """
    out: dict[str, Any] = {}
    for key, value in keys.items():
        name = f"{before}{key}"
        out |= flat(value, f"{name}.") if isinstance(value, dict) and value else {name: value}
    return out


def train_members(
    recipe: Recipe, folder: Path, train: Callable[..., Run], *, resume: bool, overwrite: bool, **how: Any
) -> Run:  # fmt: skip
    """Train what is not there yet, then measure the average: the run folder of a recipe with ``members``.

    Args:
        recipe: with ``members``.
        folder: the run folder; a member lies in ``members/<name>/`` and is a run folder itself.
        train: :func:`xretrieve.training.train`, which trains one member.
        resume, overwrite, how: as in :func:`xretrieve.training.train`; a finished member is not trained again.
    """
    if external():
        raise XRetrieveError("under torchrun, train the members one by one and list their run folders as members")
    sources = {member.name: member_source(recipe, member) for member in recipe.ensemble}
    for source in sources.values():
        if isinstance(source, Recipe):
            preflight(source)
    open_folder(folder, recipe, resume, overwrite)
    if is_file(folder / "report.json"):
        return Run.open(folder)
    runs = []
    for name, source in sources.items():
        place = folder / "members" / name
        if isinstance(source, Recipe):
            runs.append(train(source, out=place, resume=True, **how))
        else:
            runs.append(_copy(source, place))
    matchers = {name: load_one(run.folder) for name, run in zip(sources, runs, strict=True)}
    ensemble = Ensemble(matchers, recipe.fusion, recipe.name, str(folder)).to(_device(how.get("accelerator", "auto")))
    ensemble.describe(folder)
    return _measure(ensemble, recipe, folder, runs)


def _device(accelerator: str) -> Any:
    from lightning_fabric import Fabric

    return Fabric(accelerator=accelerator, devices=1).device


def _copy(source: Path, place: Path) -> Run:
    """A finished run as a member: its weights and reports are copied, so that the ensemble is whole by itself."""
    if not is_file(place / "report.json"):
        with atomic_folder(place) as part:
            for name in KEPT:
                if is_folder(source / name):
                    shutil.copytree(source / name, part / name)
                elif is_file(source / name):
                    shutil.copy2(source / name, part / name)
    return Run.open(place)


def _measure(ensemble: Ensemble, recipe: Recipe, folder: Path, runs: list[Run]) -> Run:
    from xretrieve.evaluation import evaluate
    from xretrieve.evaluation.rows import member_row

    test, cache = load_split(recipe.dataset, "test"), FeatureCache()
    report = evaluate(ensemble, test, protocol=recipe.protocol, cache=cache)
    rows = [_own_report(run, matcher, report, test, cache) for run, matcher in zip(runs, ensemble.members, strict=True)]
    report.members = [member_row(row) for row in rows]
    said = [warning for run in runs for warning in skipped_warnings(run.folder)]
    report.warnings += list(dict.fromkeys(said))
    return Run(folder, recipe, save_report(report, recipe, folder, rows), [])


def member_reports(folder: Path, report: Report) -> list[Report]:
    """Of the run folder of an ensemble: its members' own reports, where they can stand beside this one."""
    from xretrieve.evaluation.html import comparable

    names = read_json(folder / FILE)["members"] if is_file(folder / FILE) else []
    places = [folder / "members" / name for name in names]
    found = [Report.load(place) for place in places if is_file(place / "report.json")]
    return [own for own in found if comparable(own, report) and own.image_ids == report.image_ids]


def _own_report(run: Run, matcher: Any, report: Report, test: RetrievalDataset, cache: FeatureCache) -> Report:
    """The member's report; measured again where its run was on other data or under another protocol."""
    from xretrieve.evaluation import evaluate
    from xretrieve.evaluation.html import comparable

    if comparable(run.report, report) and run.report.image_ids == report.image_ids:
        return run.report
    return evaluate(matcher, test, protocol=report.protocol, cache=cache, name=run.recipe.name)
