"""`bench demo`: the whole job on the built-in pictures, from nothing to a report and a searchable index."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from xretrieve.data.base import RetrievalDataset
from xretrieve.data.cache import FeatureCache
from xretrieve.errors import XRetrieveError
from xretrieve.evaluation import Report, evaluate
from xretrieve.gallery import Gallery
from xretrieve.query import ImageText, MultiText, Query, Text
from xretrieve.ranking import Ranking
from xretrieve.training import train
from xretrieve.training.build import build_matcher, load_split
from xretrieve.training.recipe import Recipe
from xretrieve.training.recipes import load_recipe
from xretrieve.training.run import Run
from xretrieve.utils.files import write_json
from xretrieve.utils.paths import is_file, is_folder, is_there
from xretrieve.utils.processes import side_by_side, silent

# What the demo trains, in this order; the first one answers the queries, the other two tasks have reports apart.
RECIPES = (
    "image_text/scenes-dual", "image_text/scenes-sgr", "image_text/scenes-tshsr", "multi_query/scenes-hmrn-t2i",
    "composed/scenes-progressive",
)  # fmt: skip
SET_EPOCHS = 5  # of recipes of task multi_query: validation R@1 of 60 instead of 80 after 8, in 0.6 of the time
WARM = {"image_text": (2, 1), "composed": (1, 4)}  # epochs of each stage where the encoders are trained already
MARKER = "demo.json"


@dataclass
class Demo:
    """What the demo made.

    Args:
        folder: runs, report and index.
        reports: one per trained recipe of task image_text, in order, then the untrained model.
        rounds: of query sets, one per trained recipe of task multi_query, then the first recipe's matcher, which takes
            the mean of the sentences' scores; empty without such a recipe.
        changes: of a picture and a change, one per trained recipe of task composed, then the first recipe's matcher,
            which takes the sum of both vectors; empty without such a recipe.
        gallery: the test pictures, indexed with the first recipe's matcher.
        rankings: answers to a few queries.
        cut: of recipes that had fewer epochs than they say, for time: name -> (epochs here, epochs of the recipe).
        seconds: wall time of the whole.
    """

    folder: Path
    reports: list[Report]
    rounds: list[Report]
    changes: list[Report]
    gallery: Gallery
    rankings: list[Ranking]
    cut: dict[str, tuple[int, int]]
    seconds: float


def run_demo(
    out: str | Path = "runs/demo",
    *,
    recipes: tuple[str, ...] = RECIPES,
    overrides: list[str] | None = None,
    jobs: int = 1,
    progress: bool = False,
    say: Callable[[str], None] = silent,
) -> Demo:
    """Generate `scenes`, train, evaluate, index, search; write ``report.html`` into ``out``.

    Recipes of task multi_query are reported in ``query_sets/report.html``, those of task composed in
    ``changes/report.html``.

    Args:
        out: the demo's folder. An earlier demo there is replaced; any other folder with content is refused.
        recipes: names of recipes over `scenes`.
        overrides: ``key=value`` for every recipe (a smaller data set, fewer epochs).
        jobs: recipes trained at once (:func:`xretrieve.utils.processes.side_by_side`), once the first is trained.
        progress: bars on stderr, of one job.
        say: receives one line before each step.
    """
    started, out = time.perf_counter(), Path(out)
    chosen = [load_recipe(name, overrides) for name in recipes]
    _open(out)
    write_json(out / MARKER, {"recipes": list(recipes), "overrides": overrides or []})
    whole = {recipe.name: _epochs(recipe) for recipe in chosen}
    runs = [_train(chosen[0], out, "", progress, say)]
    others = []
    for recipe in chosen[1:]:
        if _warms(recipe):
            _warm_start(recipe, runs[0])
        begins = f", with the encoders of {chosen[0].name}" if recipe.start else ""
        if recipe.task == "multi_query":
            recipe.stages[0].epochs = min(SET_EPOCHS, recipe.stages[0].epochs)
        others.append((recipe, out, begins, progress and jobs == 1, say))
    runs += side_by_side(_train, others, jobs)
    say("measuring the first model untrained beside it, indexing and searching the test pictures ...")
    test = load_split(chosen[0].dataset, "test")
    reports = [run.report for run in runs if run.recipe.task == "image_text"] + [_untrained(chosen[0], test)]
    rounds = _beside(runs, "multi_query", test, out / "query_sets", name="mean similarity", combine="mean_similarity")
    changes = _beside(runs, "composed", test, out / "changes", name="sum of vectors")
    gallery = Gallery.build(runs[0].matcher(), test, out / "scenes.xr", cache=FeatureCache(), progress=progress)
    queries: dict[str, Query] = {
        "text": Text(test.captions[0]),
        "multi_text": MultiText([region.text for region in test.regions[0][:3]]),
    }
    if test.triplets:
        asked = test.triplets[0]
        queries["image_text"] = ImageText(test.images[asked.reference], asked.texts[0])
    rankings = [gallery.search(query, k=5) for query in queries.values()]
    for ranking, kind in zip(rankings, queries, strict=True):
        ranking.to_html(out / f"search_{kind}.html")
    reports[0].save(out, rows=reports, log=runs[0].folder / "log.csv")
    cut = {run.recipe.name: (_epochs(run.recipe), whole[run.recipe.name]) for run in runs}
    cut = {name: (here, full) for name, (here, full) in cut.items() if here < full}
    return Demo(out, reports, rounds, changes, gallery, rankings, cut, time.perf_counter() - started)


def _epochs(recipe: Recipe) -> int:
    return sum(stage.epochs for stage in recipe.stages)


def _train(recipe: Recipe, out: Path, begins: str, progress: bool, say: Callable[[str], None]) -> Run:
    say(f"training {recipe.name}{begins}: {_epochs(recipe)} epochs on {recipe.dataset.name} ...")
    return train(recipe, out=out / recipe.name.rsplit("/", 1)[-1], progress=progress)


def _warms(recipe: Recipe) -> bool:
    """Whether trained encoders spare it epochs; a dual encoder of image_text is trained from its start weights."""
    return recipe.task in WARM and not (recipe.task == "image_text" and recipe.stages[0].loss is not None)


def _warm_start(recipe: Recipe, run: Run) -> None:
    """Take the encoders of a finished run; fewer epochs do then."""
    recipe.start = str(run.folder)
    for epochs, stage in zip(WARM[recipe.task], recipe.stages, strict=False):
        stage.epochs = min(epochs, stage.epochs)


def _untrained(recipe: Recipe, test: RetrievalDataset) -> Report:
    """The same architecture with its start weights: what chance gives on this test."""
    torch.manual_seed(recipe.seed)
    captions = [text for split in ("train", "val") for text in load_split(recipe.dataset, split).captions]
    name = f"{recipe.name.rsplit('/', 1)[-1]}, untrained"
    return evaluate(build_matcher(recipe, captions), test, protocol=recipe.protocol, name=name)


def _beside(
    runs: list[Run], task: str, test: RetrievalDataset, folder: Path, name: str, combine: str = ""
) -> list[Report]:
    """What was trained for another task, beside the first model without training for it; also written."""
    own = [run for run in runs if run.recipe.task == task]
    if not own:
        return []
    plain = evaluate(runs[0].matcher(), test, protocol=own[0].recipe.protocol, combine=combine,
                     name=f"{runs[0].recipe.name}, {name}")  # fmt: skip
    reports = [*(run.report for run in own), plain]
    reports[0].save(folder, rows=reports, log=own[0].folder / "log.csv")
    return reports


def _open(out: Path) -> None:
    if is_folder(out) and any(out.iterdir()):
        if not is_file(out / MARKER):
            raise XRetrieveError(f"{out} holds something that is not a demo; give another folder with --out")
        shutil.rmtree(out)
    elif is_there(out) and not is_folder(out):
        raise XRetrieveError(f"{out} is a file; give a folder with --out")
    out.mkdir(parents=True, exist_ok=True)
