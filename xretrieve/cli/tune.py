"""``xretrieve tune INDEX``: how many candidates a search re-ranks, and how much of the first stage's score it keeps."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from xretrieve.cli.options import AsJson, CandidateModel, GalleryModel, ModelWeights, ScorePrecision

if TYPE_CHECKING:
    from xretrieve.gallery import Gallery

app = typer.Typer(add_completion=False)


@app.command()
def tune(
    gallery: Annotated[Path, typer.Argument(metavar="INDEX", help="A gallery whose head re-ranks candidates.")],
    dataset: Annotated[
        str | None, typer.Option(help="Where the captions come from; default: the dataset the run was trained on.")
    ] = None,
    root: Annotated[Path | None, typer.Option(help="Data root; default: XRETRIEVE_DATA, else ./data.")] = None,
    split: Annotated[str, typer.Option(help="A split that no result is reported on.")] = "val",
    queries: Annotated[int, typer.Option(min=1, help="Captions (or query sets), evenly spread over the split.")] = 1000,
    most_lost: Annotated[
        float, typer.Option(help="Points of recall that leaving candidates out may cost; less is asked for.")
    ] = 0.1,
    model: GalleryModel = None,
    weights: ModelWeights = None,
    coarse: CandidateModel = None,
    precision: ScorePrecision = "auto",
    as_json: AsJson = False,
) -> None:
    """Measure both stages on validation data, and keep the best way to combine them in the index."""
    from xretrieve.cli.queries import open_gallery
    from xretrieve.data.cache import FeatureCache
    from xretrieve.evaluation.cascade import check_tunable
    from xretrieve.evaluation.cascade import tune as measure
    from xretrieve.training.build import load_split
    from xretrieve.training.recipes import dataset_config
    from xretrieve.utils.precision import check

    check(precision)
    opened = open_gallery(gallery, model, weights, coarse)
    check_tunable(opened)
    run = str(getattr(opened.matcher, "source", "") or opened.info["matcher"]["name"])
    data = load_split(dataset_config(run, dataset, root), split)
    chosen = measure(
        opened, data, queries, most_lost, FeatureCache(), progress=sys.stderr.isatty(), precision=precision
    )
    if as_json:
        typer.echo(json.dumps(chosen, indent=2))
        return
    print_cascade(chosen, opened)


def print_cascade(chosen: dict[str, Any], gallery: Gallery) -> None:
    """What was measured as a table, and what searches do from now on."""
    from rich import box
    from rich.console import Console
    from rich.table import Table

    from xretrieve.gallery.blend import scaled

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("order")
    table.add_column("candidates", justify="right")
    for k in chosen["ks"]:
        table.add_column(f"R@{k}", justify="right")
    table.add_column("lost", justify="right")
    names = {"coarse": "first stage", "head": "head alone", "blend": f"blend {chosen['blend']:g}"}
    for key, name in names.items():
        table.add_row(name, "all", *(f"{value:.2f}" for value in chosen["recall"][key]), "")
    for row in chosen["by_rerank"]:
        cells = [f"{value:.2f}" for value in row["recall"]]
        table.add_row(names["blend"], str(row["rerank"]), *cells, f"{row['lost']:.2f}")
    asked = f"{chosen['queries']} {chosen['kind']} of {chosen['dataset']}/{chosen['split']}"
    typer.echo(f"{asked} in {chosen['images']} pictures, scored in {chosen['scored_in']}")
    Console().print(table)
    count = scaled(chosen, len(gallery))
    more = f", for {chosen['rerank']} in {chosen['images']} pictures" if count != chosen["rerank"] else ""
    typer.echo(
        f"{gallery.path}: searches re-rank {count} candidates{more} ({chosen['lost']:.2f} points lost, under "
        f"{chosen['most_lost']:g} asked for) and take {100 * chosen['blend']:.0f} % of their score from the head"
    )
