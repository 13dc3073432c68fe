"""``xretrieve evaluate RUN``: the numbers of one model on one split, as a report."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

app = typer.Typer(add_completion=False)


@app.command()
def evaluate(
    run: Annotated[str, typer.Argument(help="A run folder, or a model name such as open_clip:ARCH/TAG.")],
    weights: Annotated[Path | None, typer.Option(help="Weights file of a pretrained model: no download.")] = None,
    dataset: Annotated[str | None, typer.Option(help="Dataset name; default: the run's own.")] = None,
    root: Annotated[Path | None, typer.Option(help="Data root; default: XRETRIEVE_DATA, else ./data.")] = None,
    split: Annotated[str, typer.Option(help="train, val or test.")] = "test",
    layout: Annotated[str | None, typer.Option(help="karpathy, precomp, ...; default: what is there.")] = None,
    protocol: Annotated[
        str | None, typer.Option(help="E.g. flickr-1k, coco-5k, full, flickr8k-5, rounds; default: the usual one.")
    ] = None,
    combine: Annotated[
        str, typer.Option(help="Query sets: head, mean_similarity, rank_fusion or paragraph; default: the recipe's.")
    ] = "",
    out: Annotated[Path | None, typer.Option(help="Folder of the report; default: the run folder.")] = None,
    trec: Annotated[Path | None, typer.Option(help="Also write TREC run and qrels files to this folder.")] = None,
    json: Annotated[bool, typer.Option("--json", help="Print the report as JSON.")] = False,
    batch_size: Annotated[int, typer.Option(help="Images encoded at once.", min=1)] = 64,
    bootstrap: Annotated[int, typer.Option(help="Resamples of the intervals; 0 for none.", min=0)] = 1000,
    seed: Annotated[int, typer.Option(help="Of the resamples and the choice of samples.", min=0)] = 0,
    no_cache: Annotated[bool, typer.Option("--no-cache", help="Encode anew and store nothing.")] = False,
) -> None:
    """Evaluate a run or a pretrained model under a named protocol; writes report.html, report.json and ranks.npz."""
    from xretrieve.data import datasets
    from xretrieve.evaluation.evaluator import evaluate as run_evaluation
    from xretrieve.evaluation.protocols import get_protocol
    from xretrieve.evaluation.published import published_rows
    from xretrieve.evaluation.rows import member_row
    from xretrieve.matcher import load
    from xretrieve.training.members import member_reports

    if protocol is not None:
        get_protocol(protocol)  # a wrong name should not cost a model's loading time
    recipe = _recipe(run)
    own = recipe.get("dataset", {})
    name = dataset or own.get("name")
    if name is None:
        from xretrieve.errors import XRetrieveError

        raise XRetrieveError(f"{run} has no recipe.yaml that names a dataset; write --dataset NAME")
    datasets.info(name)  # so should a wrong dataset
    matcher = load(run, weights)
    at_home = name == own.get("name")
    options = own.get("options", {}) if at_home else {}
    data = datasets.load(
        name,
        root=root or (own.get("root") if at_home else None),
        split=split,
        layout=layout or (own.get("layout") if at_home else None),
        **options,
    )
    own_protocol = recipe.get("protocol") if at_home and split == "test" else None
    if recipe.get("task") == "multi_query":
        own_protocol = own_protocol or "rounds"  # another split or dataset: of any size
    chosen = get_protocol(protocol or own_protocol, name, len(data))
    own_combine = str(recipe.get("combine") or "") if chosen.task == "multi_query" else ""
    usual = chosen == get_protocol(own_protocol, name, len(data)) and combine in ("", own_combine)
    cache = None
    if not no_cache:
        from xretrieve.data.cache import FeatureCache

        cache = FeatureCache()
    progress = sys.stderr.isatty() and not json
    report = run_evaluation(
        matcher,
        data,
        chosen,
        cache,
        batch_size,
        progress,
        bootstrap,
        seed,
        name=_label(run, recipe) + (f", {combine.replace('_', ' ')}" if combine not in ("", own_combine) else ""),
        trec=trec,
        combine=combine or own_combine,
    )
    published = published_rows(name, report.protocol.name) if split == "test" else []
    report.published = [row for row in published if row.name in (recipe.get("published") or [])]
    members = member_reports(Path(run), report)
    report.members = [member_row(member) for member in members]
    place = out or _folder(run, name, split, at_home or not own, "" if usual else f"{chosen.name}-{combine}".strip("-"))
    folder = report.save(place, rows=members, published=published)
    if json:
        print(report.to_json())
        return
    from rich.console import Console

    console = Console()
    console.print(report)
    console.print(f"written: {folder / 'report.html'}", soft_wrap=True, highlight=False)


def _recipe(run: str) -> dict[str, Any]:
    """The recipe of a run as plain keys, empty for a model name; ``dataset: NAME`` and ``{name: NAME}`` both work."""
    from xretrieve.training.recipes import read_recipe

    path = Path(run) / "recipe.yaml"
    if not path.is_file():
        return {}
    recipe = read_recipe(path)
    if isinstance(recipe.get("dataset"), str):
        recipe["dataset"] = {"name": recipe["dataset"]}
    return recipe


def _label(run: str, recipe: dict[str, Any]) -> str:
    return str(recipe.get("name") or (Path(run).resolve().name if Path(run).is_dir() else run))


def _folder(run: str, dataset: str, split: str, at_home: bool, other: str = "") -> Path:
    """The run folder for its own test split and protocol; anything else beside it, so that it replaces nothing."""
    what = "-".join(part for part in (dataset, split, other) if part)
    if not Path(run).is_dir():
        return Path("runs") / re.sub(r"[^\w.-]+", "-", f"{run}-{what}")
    return Path(run) if at_home and split == "test" and not other else Path(run) / what
