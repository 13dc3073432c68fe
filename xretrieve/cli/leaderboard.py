"""``xretrieve leaderboard``: what `xretrieve bench` has measured on this machine, and how to make a row again."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from xretrieve.cli.options import AsJson

LEADERBOARD = Path("runs/leaderboard.jsonl")
File = Annotated[Path, typer.Option(help="The leaderboard file.")]

app = typer.Typer(add_completion=False)


@app.callback(invoke_without_command=True)
def rows(
    context: typer.Context,
    data: Annotated[str, typer.Option(help="Only this dataset.")] = "",
    protocol: Annotated[str, typer.Option(help="Only this protocol.")] = "",
    file: File = LEADERBOARD,
    as_json: AsJson = False,
) -> None:
    """Print what was measured, the best first; `xretrieve leaderboard show N` says how row N is made again."""
    if context.invoked_subcommand is not None:
        return
    from xretrieve.bench.leaderboard import computed_in, shown

    found = shown(file, data, protocol)
    if as_json:
        print(json.dumps(found, indent=2, ensure_ascii=False))
        return
    if not found:
        print(f"nothing in {file}{' of that kind' if data or protocol else ''}; `xretrieve bench SUITE` fills it")
        return
    from itertools import groupby

    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table

    for title, group in groupby(found, lambda one: f"{one['dataset']}/{one['split']}, protocol {one['protocol']}"):
        table = Table(title=title, title_justify="left", box=SIMPLE_HEAD, pad_edge=False)
        for heading in ("row", "model", "seed", "metric", "value", "CPU s", "in"):
            right = heading in ("row", "value", "CPU s")
            table.add_column(heading, justify="right" if right else "left", overflow="fold")
        for one in group:
            span = "" if one["low"] is None else f"\n{one['low']:.1f}..{one['high']:.1f}"
            table.add_row(str(one["number"]), one["model"], "" if one["seed"] is None else str(one["seed"]),
                          one["metric"], f"{one['value']:.1f}{span}",
                          f"{one['cpu_seconds']:.0f}" if one["cpu_seconds"] else "", computed_in(one))  # fmt: skip
        Console().print(table)


@app.command()
def show(
    number: Annotated[int, typer.Argument(help="Of the row, first column of `xretrieve leaderboard`.")],
    file: File = LEADERBOARD,
    as_json: AsJson = False,
) -> None:
    """Print the recipe of a row, with the commands that train it again; of a pretrained model the command alone."""
    from xretrieve.bench.leaderboard import again, entry

    one = entry(number, file)
    print(json.dumps(one, indent=2, ensure_ascii=False) if as_json else again(one, file), end="\n" if as_json else "")
