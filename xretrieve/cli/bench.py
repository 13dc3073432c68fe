"""``xretrieve bench``: suites that train and measure."""

from __future__ import annotations

import json
import os
import shutil
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from xretrieve.cli.leaderboard import LEADERBOARD
from xretrieve.cli.options import several
from xretrieve.utils.allocation import keep_freed_memory

LIST = "Name the suites, their protocols, and what of their data is missing."
JOBS = "Trainings at once, each a process of its own with its share of the cores; each may take some GB."
OUT = Path("runs/bench")


class Suites(TyperGroup):
    """A word that is no command of its own is a suite or a recipe: `bench scenes` is `bench run scenes`."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """The command and what is left for it."""
        return super().resolve_command(ctx, args if args[0] in self.commands else ["run", *args])


app = typer.Typer(cls=Suites, add_completion=False)


@app.callback(invoke_without_command=True)
def suites(
    context: typer.Context,
    list_: Annotated[bool, typer.Option("--list", help=LIST)] = False,
    as_json: Annotated[bool, typer.Option("--json", help="With --list: JSON and nothing else.")] = False,
) -> None:
    """Measure models: `bench demo` (no data, minutes), `bench claims` (the papers' claims), `bench SUITE` or RECIPE.

    SUITE is a dataset; its recipes are trained and measured, and pretrained models beside them.
    """
    if context.invoked_subcommand is not None:
        keep_freed_memory()
        return
    if not list_:
        typer.echo(context.get_help())
        return
    from xretrieve.bench.suites import describe

    told = describe()
    if as_json:
        print(json.dumps(told, indent=2, ensure_ascii=False))
        return
    for suite in told:
        print(f"{suite['name']}: {len(suite['recipes'])} recipes; {'; '.join(suite['protocols'])}")
        print(f"  data: {suite['missing'] or 'here'}")
    print("claims: the three papers' claims, on scenes and every real set that is here")
    print("demo: the whole job on the built-in pictures")


def say(line: str) -> None:
    """Progress goes to stderr."""
    print(line, file=sys.stderr, flush=True)


@app.command(cls=several("--models", "--seeds"), hidden=True)
def run(
    targets: Annotated[list[str], typer.Argument(metavar="SUITE|RECIPE... [KEY=VALUE]...", help="See bench --list.")],
    models: Annotated[
        list[str] | None,
        typer.Option(help="Recipes, open_clip:ARCH/TAG, transformers:NAME, run folders; `recipes` and `zero-shot` are "
                     "many at once. Default: recipes."),
    ] = None,
    seeds: Annotated[list[int] | None, typer.Option(help="Of every recipe. Default: 0.")] = None,
    out: Annotated[Path, typer.Option(help="Runs and tables, a folder for each suite.")] = OUT,
    leaderboard: Annotated[Path, typer.Option(help="File that the results are added to.")] = LEADERBOARD,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object instead of tables.")] = False,
) -> int:  # fmt: skip
    """Train and measure the models of a suite or one recipe: one table, and a line each in the leaderboard."""
    from xretrieve.bench.leaderboard import append, entries
    from xretrieve.bench.suites import RECIPES, run_suite
    from xretrieve.errors import XRetrieveError

    names, overrides = [t for t in targets if "=" not in t], [t for t in targets if "=" in t]
    if not names:
        raise XRetrieveError("which suite or recipe? `xretrieve bench --list` names them")
    results, added = [], []
    for name in names:
        result = run_suite(name, out, models or [RECIPES], seeds or [0], overrides, say)
        numbers = append(entries(result.cells), leaderboard) if result.cells and result.table else []
        results.append(result)
        added += numbers
        if not as_json and result.table:
            print((result.folder / "table.md").read_text(encoding="utf-8"))
            print(f"written: {result.folder}; leaderboard {leaderboard}: rows {', '.join(map(str, numbers))}")
        if not as_json:
            for why in dict.fromkeys(result.skipped.values()):
                print(f"skipped: {', '.join(m for m, own in result.skipped.items() if own == why)}: {why}")
    if as_json:
        told = [{"name": r.name, "folder": str(r.folder), "table": r.table, "skipped": r.skipped} for r in results]
        print(json.dumps({"suites": told, "leaderboard": str(leaderboard), "rows": added}, ensure_ascii=False))
    return 0 if all(result.table for result in results) else 1


@app.command(cls=several("--data", "--seeds", "--only"))
def claims(
    quick: Annotated[bool, typer.Option("--quick", help="Minutes instead of hours: not the measured result.")] = False,
    data: Annotated[
        list[str] | None, typer.Option(help="Datasets. Default: scenes and every real set that is here.")
    ] = None,
    seeds: Annotated[list[int] | None, typer.Option(help="Default: 0 1 2; with --quick 0.")] = None,
    only: Annotated[list[str] | None, typer.Option(help="Claims: rounds, streams, stages. Default: all.")] = None,
    out: Annotated[
        Path | None, typer.Option(help="Cells and report. Default: runs/claims; with --quick runs/claims-quick.")
    ] = None,
    report_only: Annotated[
        bool, typer.Option("--report-only", help="Train nothing; write the report from the finished cells.")
    ] = False,
    jobs: Annotated[int, typer.Option(help=JOBS, min=1)] = 1,
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as JSON.")] = False,
) -> int:
    """Measure the three papers' claims: HMRN and Drill-down by round, two streams and context, stages and weights.

    Every row trained with every seed is a cell; finished ones are kept, so a stopped run goes on where it was.
    """
    from xretrieve.bench.claims_report import save, terminal, to_dict
    from xretrieve.bench.claims_run import run_claims

    place = out or Path("runs/claims-quick" if quick else "runs/claims")
    report = run_claims(place, quick, data or (), seeds or (), not report_only, only or (), say, jobs)
    page = save(report, place)
    if as_json:
        print(json.dumps(to_dict(report), indent=2, ensure_ascii=False))
        return 1 if report.stopped else 0
    print(terminal(report))
    print(f"written: {page}, report.md, report.json, plots/")
    return 1 if report.stopped else 0


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
    jobs: Annotated[int, typer.Option(help=JOBS, min=1)] = 2,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object instead of a table.")] = False,
) -> int:
    """Generate pictures, train, evaluate, index and search: the whole job on built-in data."""
    from rich.console import Console

    from xretrieve.bench.demo import run_demo

    console = Console()
    shown: Any = True if sys.stderr.isatty() else "lines"
    first = None if as_json else console.print
    result = run_demo(out, overrides=overrides, jobs=jobs, progress=shown, say=say, show=first)
    if as_json:
        told = {name: [one.to_dict() for one in getattr(result, name)]
                for name in ("reports", "rounds", "changes", "leads")}  # fmt: skip
        found = [ranking.to_json() for ranking in result.rankings]
        print(json.dumps({"folder": str(out), "seconds": result.seconds, **told, "rankings": found}))
        return 0
    from xretrieve.cli.queries import print_ranking
    from xretrieve.evaluation.composed_terminal import models_table
    from xretrieve.evaluation.leads import leads_table
    from xretrieve.evaluation.round_terminal import rounds_lines, rounds_table
    from xretrieve.evaluation.terminal import rows_table
    from xretrieve.ranking import describe_query

    console.print(rows_table(result.reports))
    if result.rounds:
        console.print(rounds_table(result.rounds, title="several sentences about one picture"))
        print("\n".join(rounds_lines(result.rounds[0])))
    if result.changes:  # a picture and a change
        console.print(models_table(result.changes))
    console.print(leads_table(result.leads))
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
