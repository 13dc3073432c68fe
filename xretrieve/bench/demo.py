"""`bench demo`: the whole job on the built-in pictures, from nothing to a report and a searchable index."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from xretrieve.bench.drawing import drawn_beside_imports, encode_test
from xretrieve.errors import XRetrieveError
from xretrieve.training.recipes import load_recipe
from xretrieve.utils.files import write_json
from xretrieve.utils.paths import is_file, is_folder, is_there
from xretrieve.utils.processes import Workers, silent

if TYPE_CHECKING:  # they load torch, which takes seconds: it is loaded while the pictures are drawn
    from xretrieve.data.base import RetrievalDataset
    from xretrieve.evaluation import Report
    from xretrieve.evaluation.leads import Lead
    from xretrieve.gallery import Gallery
    from xretrieve.ranking import Ranking
    from xretrieve.training.bar import Shown
    from xretrieve.training.recipe import Recipe
    from xretrieve.training.run import Run

# What the demo trains, in this order and as the recipes say; the first one answers the queries.
RECIPES = (
    "image_text/scenes-dual-frozen", "image_text/scenes-tshsr-frozen", "multi_query/scenes-hmrn-t2i-frozen",
    "multi_query/scenes-drilldown-frozen", "multi_query/scenes-mean-similarity-frozen",
    "composed/scenes-progressive-frozen", "composed/scenes-sum-frozen",
)  # fmt: skip
# A paper's model and the plain baseline that it must beat, of one task each.
PAIRS = (
    ("image_text/scenes-tshsr-frozen", "image_text/scenes-dual-frozen"),
    ("multi_query/scenes-hmrn-t2i-frozen", "multi_query/scenes-drilldown-frozen"),
    ("multi_query/scenes-hmrn-t2i-frozen", "multi_query/scenes-mean-similarity-frozen"),
    ("composed/scenes-progressive-frozen", "composed/scenes-sum-frozen"),
)
FOLDERS = {"multi_query": "query_sets", "composed": "changes"}  # of the reports beside the first one
MARKER = "demo.json"


@dataclass
class Demo:
    """What the demo made.

    Args:
        folder: runs, report and index.
        reports: one per trained recipe of task image_text, in order, then the first one's model untrained.
        rounds: of query sets, one per trained recipe of task multi_query.
        changes: of a picture and a change, one per trained recipe of task composed.
        leads: how far each paper's model is ahead of its baseline.
        gallery: the test pictures, indexed with the first recipe's matcher.
        rankings: answers to a few queries.
        seconds: wall time of the whole.
    """

    folder: Path
    reports: list[Report]
    rounds: list[Report]
    changes: list[Report]
    leads: list[Lead]
    gallery: Gallery
    rankings: list[Ranking]
    seconds: float


def run_demo(
    out: str | Path = "runs/demo",
    *,
    recipes: tuple[str, ...] = RECIPES,
    overrides: list[str] | None = None,
    jobs: int = 1,
    progress: Shown = False,
    say: Callable[[str], None] = silent,
    show: Callable[[Report], None] | None = None,
) -> Demo:
    """Generate `scenes`, train, evaluate, index, search; write ``report.html`` into ``out``.

    Recipes of task multi_query are reported in ``query_sets/report.html``, those of task composed in
    ``changes/report.html``.

    Args:
        out: the demo's folder. An earlier demo there is replaced; any other folder with content is refused.
        recipes: names of recipes over `scenes`.
        overrides: ``key=value`` for every recipe (a smaller data set, fewer epochs).
        jobs: recipes trained at once (:class:`xretrieve.utils.processes.Workers`), once the first is trained.
        progress: as for :func:`xretrieve.train`; with several jobs a bar becomes a line per epoch.
        say: receives one line before each step.
        show: receives the first recipe's report as soon as it is there.
    """
    started, out = time.perf_counter(), Path(out)
    chosen = [load_recipe(name, overrides) for name in recipes]
    _open(out)
    write_json(out / MARKER, {"recipes": list(recipes), "overrides": overrides or []})
    say(f"drawing the pictures of {chosen[0].dataset.name} ...")
    drawn_beside_imports(chosen[0].dataset, jobs)
    with Workers(jobs) as workers:

        def begun(steps: int) -> None:
            if steps == 1:  # now that a core is idle
                workers.start(encode_test, chosen[0])

        def measured(report: Report) -> None:
            if show is not None:
                show(report)
                say(f"the first table is here after {time.perf_counter() - started:.1f} s")

        runs = [_train(chosen[0], out, progress, say, begun, measured)]
        together = "lines" if progress and jobs > 1 else progress
        runs += workers.all(_train, [(recipe, out, together, say) for recipe in chosen[1:]])
    from xretrieve.data.cache import FeatureCache
    from xretrieve.evaluation.leads import lead
    from xretrieve.gallery import Gallery
    from xretrieve.training.build import load_split

    say("measuring the first model untrained beside it, indexing and searching the test pictures ...")
    test = load_split(chosen[0].dataset, "test")
    of_task = {task: [run.report for run in runs if run.recipe.task == task] for task in ("image_text", *FOLDERS)}
    reports = [*of_task["image_text"], _untrained(chosen[0], test)]
    named = {run.recipe.name: run.report for run in runs}
    leads = [lead(named[model], named[plain]) for model, plain in PAIRS if {model, plain} <= named.keys()]
    gallery = Gallery.build(runs[0].matcher(), test, out / "scenes.xr", cache=FeatureCache(), progress=progress is True)
    rankings = _search(gallery, test, out)
    for task, name in FOLDERS.items():
        _write(of_task[task], out / name, runs, leads)
    reports[0].save(out, rows=reports, log=runs[0].folder / "log.csv", leads=leads)
    return Demo(out, reports, of_task["multi_query"], of_task["composed"], leads, gallery, rankings,
                time.perf_counter() - started)  # fmt: skip


def _train(
    recipe: Recipe, out: Path, progress: Shown, say: Callable[[str], None],
    on_step: Callable[[int], None] | None = None, on_report: Callable[[Report], None] | None = None,
) -> Run:  # fmt: skip
    from xretrieve.training import train

    epochs = sum(stage.epochs for stage in recipe.stages if not stage.skip)
    say(f"training {recipe.name}: {epochs} epochs on {recipe.dataset.name} ...")
    folder = out / recipe.name.rsplit("/", 1)[-1]
    return train(recipe, out=folder, progress=progress, on_step=on_step, on_report=on_report)


def _untrained(recipe: Recipe, test: RetrievalDataset) -> Report:
    """The same architecture with its start weights: what chance gives on this test."""
    import torch

    from xretrieve.data.cache import FeatureCache
    from xretrieve.evaluation import evaluate
    from xretrieve.training.build import build_matcher, load_split

    torch.manual_seed(recipe.seed)
    captions = [text for split in ("train", "val") for text in load_split(recipe.dataset, split).captions]
    name = f"{recipe.name.rsplit('/', 1)[-1]}, head untrained"
    return evaluate(build_matcher(recipe, captions), test, protocol=recipe.protocol, cache=FeatureCache(), name=name)


def _search(gallery: Gallery, test: RetrievalDataset, out: Path) -> list[Ranking]:
    """A query of each kind, answered and written as a page."""
    from xretrieve.query import ImageText, MultiText, Query, Text

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
    return rankings


def _write(reports: Sequence[Report], folder: Path, runs: Sequence[Run], leads: Sequence[Lead]) -> None:
    """The page of another task: its first model in full, the others beside it."""
    if not reports:
        return
    own = next(run for run in runs if run.report is reports[0])
    names = {report.name for report in reports}
    reports[0].save(
        folder, rows=reports, log=own.folder / "log.csv", leads=[one for one in leads if one.model in names]
    )


def _open(out: Path) -> None:
    if is_folder(out) and any(out.iterdir()):
        if not is_file(out / MARKER):
            raise XRetrieveError(f"{out} holds something that is not a demo; give another folder with --out")
        shutil.rmtree(out)
    elif is_there(out) and not is_folder(out):
        raise XRetrieveError(f"{out} is a file; give a folder with --out")
    out.mkdir(parents=True, exist_ok=True)
