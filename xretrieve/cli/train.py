"""``xretrieve train RECIPE [key=value ...]``: a recipe becomes a run folder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(add_completion=False)


@app.command()
def train(
    recipe: Annotated[str | None, typer.Argument(help="A recipe's name, or a YAML file (see --list).")] = None,
    overrides: Annotated[list[str] | None, typer.Argument(help="Keys to change: seed=1 stages.0.lr=1e-3")] = None,
    out: Annotated[Path | None, typer.Option(help="The run folder [default: runs/<recipe>].")] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with the run in the folder, exactly as if it had not stopped.")
    ] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the run in the folder.")] = False,
    devices: Annotated[int, typer.Option(min=1, help="Processes; the batch is split over them.")] = 1,
    accelerator: Annotated[str, typer.Option(help="auto, cpu, cuda or mps.")] = "auto",
    list_: Annotated[bool, typer.Option("--list", help="Name the recipes and stop.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="The report as JSON on stdout, nothing else.")] = False,
) -> None:
    """Train a recipe, measure it on its test split, and write the run folder."""
    from xretrieve.errors import XRetrieveError
    from xretrieve.training import list_recipes, load_recipe

    if list_:
        rows = [{"name": name, "description": load_recipe(name).description} for name in list_recipes()]
        typer.echo(
            json.dumps(rows, indent=2) if as_json else "\n".join(f"{r['name']:<36} {r['description']}" for r in rows)
        )
        return
    if recipe is None:
        raise XRetrieveError("which recipe? `xretrieve train --list` names them")
    from xretrieve.training import train as run_training
    from xretrieve.utils.allocation import keep_freed_memory

    keep_freed_memory()

    run = run_training(
        recipe,
        out=out,
        resume=resume,
        overwrite=overwrite,
        devices=devices,
        accelerator=accelerator,
        overrides=overrides,
    )
    missed = run.missed()
    if as_json:
        typer.echo(
            json.dumps(
                {"folder": str(run.folder), "report": run.report.to_dict(), "log": run.log, "missed": missed},
                ensure_ascii=False,
            )
        )
        return
    from rich.console import Console

    Console().print(run.report)
    holds = "members/, report.html" if run.recipe.members else "log.csv, curves.png, matcher/, report.html"
    typer.echo(f"run folder: {run.folder} (recipe.yaml, {holds})")
    for name, text in missed.items():
        typer.echo(f"note: expected by the recipe, not met: {name} {text}", err=True)
