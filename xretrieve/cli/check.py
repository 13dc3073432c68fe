"""``xretrieve check INDEX``: is every byte as it was written?"""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Annotated

import typer

from xretrieve.cli.options import AsJson

app = typer.Typer(add_completion=False)
SHOWN = 5  # files without a checksum that are named


@app.command()
def check(
    folders: Annotated[list[Path], typer.Argument(metavar="FOLDER", help="An index, a run, or the feature cache.")],
    as_json: AsJson = False,
) -> None:
    """Compare every file with the checksum it was written with; status 1 where one is damaged."""
    from xretrieve.integrity import check_up

    found = [check_up(folder) for folder in folders]
    if as_json:
        told = [{**dataclasses.asdict(one), "folder": str(one.folder)} for one in found]
        typer.echo(json.dumps(told, indent=2, ensure_ascii=False))
    else:
        for one in found:
            typer.echo(f"{one.folder}: {one.files} files, {one.bytes / 2**20:.1f} MiB, {len(one.problems)} damaged")
            for problem in one.problems:
                typer.echo(f"  {problem}")
            if one.unknown:
                names = ", ".join(one.unknown[:SHOWN]) + (", ..." if len(one.unknown) > SHOWN else "")
                typer.echo(f"  without a checksum: {len(one.unknown)} ({names})")
    if any(one.problems for one in found):
        raise typer.Exit(1)
