"""``xretrieve evaluate RUN``: the numbers of one model on one split, as a report."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from xretrieve.cli.options import ScorePrecision
from xretrieve.utils.paths import is_folder

app = typer.Typer(add_completion=False)


@app.command()
def evaluate(
    run: Annotated[str, typer.Argument(help="A run folder, or a model name such as open_clip:ARCH/TAG.")],
    weights: Annotated[Path | None, typer.Option(help="Weights file of a pretrained model: no download.")] = None,
    dataset: Annotated[str | None, typer.Option(help="Dataset name; default: the run's own.")] = None,
    root: Annotated[Path | None, typer.Option(help="Data root; default: XRETRIEVE_DATA, else ./data.")] = None,
    split: Annotated[
        str | None, typer.Option(help="train, val or test; default: test, or val where test is not public.")
    ] = None,
    layout: Annotated[str | None, typer.Option(help="karpathy, precomp, ...; default: what is there.")] = None,
    protocol: Annotated[
        str | None,
        typer.Option(
            help="E.g. flickr-1k, full, rounds, fashion-iq-val, shoes/all/removed/single; all: every one of the "
            "dataset's (composed queries). Default: the usual one."
        ),
    ] = None,
    combine: Annotated[
        str, typer.Option(help="Query sets: head, mean_similarity, rank_fusion or paragraph; default: the recipe's.")
    ] = "",
    allow_missing: Annotated[
        bool, typer.Option("--allow-missing", help="Composed queries: evaluate although photos are missing.")
    ] = False,
    server: Annotated[Path | None, typer.Option(help="CIRR: write its server's files here, no scores.")] = None,
    out: Annotated[Path | None, typer.Option(help="Folder of the report; default: the run folder.")] = None,
    trec: Annotated[Path | None, typer.Option(help="Also write TREC run and qrels files to this folder.")] = None,
    json: Annotated[bool, typer.Option("--json", help="Print the report as JSON.")] = False,
    batch_size: Annotated[int, typer.Option(help="Images encoded at once.", min=1)] = 64,
    bootstrap: Annotated[int, typer.Option(help="Resamples of the intervals; 0 for none.", min=0)] = 1000,
    seed: Annotated[int, typer.Option(help="Of the resamples and the choice of samples.", min=0)] = 0,
    no_cache: Annotated[bool, typer.Option("--no-cache", help="Encode anew and store nothing.")] = False,
    precision: ScorePrecision = "auto",
) -> None:
    """Evaluate a run or a pretrained model under a named protocol; writes report.html, report.json and ranks.npz."""
    from xretrieve.data import datasets
    from xretrieve.evaluation.evaluator import evaluate as run_evaluation
    from xretrieve.evaluation.protocols import get_protocol
    from xretrieve.evaluation.published import published_rows
    from xretrieve.evaluation.rows import member_row
    from xretrieve.loading import load
    from xretrieve.training.build import load_split
    from xretrieve.training.members import member_reports
    from xretrieve.training.precision import trained_in
    from xretrieve.training.recipes import dataset_config, recipe_of
    from xretrieve.utils.precision import check

    check(precision)
    if protocol not in (None, "all"):
        get_protocol(protocol)  # a wrong name should not cost a model's loading time
    recipe = recipe_of(run)
    own = recipe.get("dataset", {})
    config = dataset_config(run, dataset, root, layout)
    name = config.name
    card = datasets.info(name)  # so should a wrong dataset
    scored = card.scored if card else "test"
    split = split or ("test" if server else scored)
    matcher = load(run, weights)
    matcher.precision = precision
    at_home = name == own.get("name")
    data = load_split(config, split)
    cache = None
    if not no_cache:
        from xretrieve.data.cache import FeatureCache

        cache = FeatureCache()
    progress = sys.stderr.isatty() and not json
    if server is not None:
        from xretrieve.evaluation.composed_lists import write_cirr

        for path in write_cirr(server, matcher, data, cache=cache, batch_size=batch_size, progress=progress):
            print(f"written: {path}")
        return
    task = recipe.get("task")
    same_task = at_home and (split == scored or task == "composed")
    own_protocol = recipe.get("protocol") if same_task else None
    place = out or _folder(run, name, split, at_home or not own, scored=scored)
    if protocol == "all":
        from xretrieve.evaluation.composed import evaluate_all
        from xretrieve.evaluation.composed_report import trained

        reports = evaluate_all(
            matcher, data, None, cache, batch_size, progress, bootstrap, seed, name=_label(run, recipe),
            allow_missing=allow_missing or None,
        )  # fmt: skip
        for report in reports:
            report.about |= trained(recipe, report.headline.name)
            report.precision |= trained_in(Path(run))
        _side_by_side(reports, place, as_json=json, published=split == scored)
        return
    if task == "multi_query":
        own_protocol = own_protocol or "rounds"  # another split or dataset: of any size
    if task == "composed" and own_protocol is None:
        from xretrieve.evaluation.composed_protocols import usual as usual_composed

        own_protocol = usual_composed(name).name
    chosen = get_protocol(protocol or own_protocol, name, len(data))
    own_combine = str(recipe.get("combine") or "") if chosen.task == "multi_query" else ""
    usual = chosen == get_protocol(own_protocol, name, len(data)) and combine in ("", own_combine)
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
        allow_missing=allow_missing or None,
    )
    report.precision |= trained_in(Path(run))
    if chosen.task == "composed":
        from xretrieve.evaluation.composed_report import ComposedReport, trained

        assert isinstance(report, ComposedReport)
        report.about |= trained(recipe, report.headline.name)
    published = published_rows(name, report.protocol.name) if split == scored else []
    # a few rows fit beside one's own in the terminal: those that the recipe names; composed queries have few in all
    named = recipe.get("published") or ([row.name for row in published] if chosen.task == "composed" else [])
    report.published = [row for row in published if row.name in named]
    members = member_reports(Path(run), report)
    report.members = [member_row(member) for member in members]
    if not usual and out is None:
        other = re.sub(r"[^\w.-]+", "-", f"{chosen.name}-{combine}".strip("-"))
        place = _folder(run, name, split, at_home or not own, other, scored)
    folder = report.save(place, rows=members, published=published)
    if json:
        print(report.to_json())
        return
    from rich.console import Console

    console = Console()
    console.print(report)
    console.print(f"written: {folder / 'report.html'}", soft_wrap=True, highlight=False)


def _label(run: str, recipe: dict[str, Any]) -> str:
    return str(recipe.get("name") or (Path(run).resolve().name if is_folder(Path(run)) else run))


def _side_by_side(reports: list[Any], place: Path, as_json: bool, published: bool) -> None:
    """One model under several protocols: a folder for each report, one table, and what others printed for each."""
    import json

    from rich.console import Console

    from xretrieve.evaluation.composed_terminal import beside, side_by_side
    from xretrieve.evaluation.published import published_rows

    for report in reports:
        rows = published_rows(report.dataset["name"], report.protocol.name) if published else []
        report.published = rows
        report.save(place / re.sub(r"[^\w.-]+", "-", report.protocol.name), published=rows)
    if as_json:
        print(json.dumps([report.to_dict() for report in reports], indent=2, ensure_ascii=False))
        return
    console = Console()
    console.print(side_by_side(reports, reports[0].name))
    for report in reports:
        if report.published:
            console.print(beside(report))
        for warning in report.warnings:
            console.print(f"warning, {report.protocol.name}: {warning}", style="yellow", soft_wrap=True)
    console.print(f"written: {place}, a folder for each protocol", soft_wrap=True, highlight=False)


def _folder(run: str, dataset: str, split: str, at_home: bool, other: str = "", scored: str = "test") -> Path:
    """The run folder for its own test split and protocol; anything else beside it, so that it replaces nothing."""
    what = "-".join(part for part in (dataset, split, other) if part)
    if not is_folder(Path(run)):
        return Path("runs") / re.sub(r"[^\w.-]+", "-", f"{run}-{what}")
    return Path(run) if at_home and split == scored and not other else Path(run) / what
