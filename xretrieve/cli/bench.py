"""``xretrieve bench``: suites that train and measure."""

from __future__ import annotations

import json
import os
import shutil
import sys
from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(help="Run a benchmark suite.", no_args_is_help=True, add_completion=False)


@app.callback()
def suites() -> None:
    """Run a benchmark suite; `demo` needs no data and takes a few minutes."""


def program() -> str:
    """The command as this shell finds it: its path where `make` ran it out of an environment that is not active."""
    return "xretrieve" if shutil.which("xretrieve") else os.path.relpath(Path(sys.executable).with_name("xretrieve"))


@app.command()
def demo(
    overrides: Annotated[
        list[str] | None,
        typer.Argument(metavar="[KEY=VALUE]...", help="Set recipe keys, for example stages.0.epochs=2."),
    ] = None,
    out: Annotated[Path, typer.Option(help="Folder for runs, report and index.")] = Path("runs/demo"),
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object instead of a table.")] = False,
) -> int:
    """Generate pictures, train, evaluate, index and search: the whole job on built-in data."""
    from xretrieve.bench.demo import run_demo

    def say(line: str) -> None:
        print(line, file=sys.stderr, flush=True)

    result = run_demo(out, overrides=overrides, progress=sys.stderr.isatty(), say=say)
    if as_json:
        rows = [report.to_dict() for report in result.reports]
        found = [ranking.to_json() for ranking in result.rankings]
        rounds = [report.to_dict() for report in result.rounds]
        changes = [report.to_dict() for report in result.changes]
        print(json.dumps({"folder": str(out), "seconds": result.seconds, "reports": rows, "rounds": rounds,
                          "changes": changes, "rankings": found}))  # fmt: skip
        return 0
    from rich.console import Console

    from xretrieve.cli.search import print_ranking
    from xretrieve.evaluation.composed_terminal import models_table
    from xretrieve.evaluation.terminal import rows_table
    from xretrieve.ranking import describe_query

    console = Console()
    console.print(result.reports[0])
    console.print(rows_table(result.reports))
    for report in result.rounds:  # of query sets, by their number of sentences
        console.print(report)
    if result.changes:  # a picture and a change
        console.print(models_table(result.changes))
    for ranking in result.rankings:
        words = describe_query(ranking.query)
        parts = [Path(words["image"]).name] if words.get("image") else []
        print("query: " + " + ".join(parts + words["texts"]))
        print_ranking(ranking)
    text = result.rankings[0].query.text
    print(f"\n{result.seconds:.0f} s in all. Look at {out / 'report.html'}, then search yourself:")
    print(f'  {program()} search {result.gallery.path} "{text}"')
    print(f"Or open the search page in your browser:\n  {program()} serve {result.gallery.path} --open")
    return 0
