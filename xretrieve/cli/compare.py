"""``xretrieve compare RUN RUN``: is the difference more than luck?"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(add_completion=False)


@app.command()
def compare(
    a: Annotated[Path, typer.Argument(help="Folder of an evaluated run.")],
    b: Annotated[Path, typer.Argument(help="Folder of another, evaluated on the same split.")],
    json: Annotated[bool, typer.Option("--json", help="Print the comparison as JSON.")] = False,
    bootstrap: Annotated[int, typer.Option(help="Resamples of the intervals.", min=1)] = 1000,
    seed: Annotated[int, typer.Option(help="Of the resamples.", min=0)] = 0,
) -> None:
    """Compare two evaluated runs image by image: paired bootstrap of every metric, B minus A."""
    from xretrieve.evaluation.comparison import compare as paired
    from xretrieve.evaluation.report import Report

    comparison = paired(Report.load(a), Report.load(b), bootstrap, seed)
    if json:
        from json import dumps

        print(dumps(comparison.to_dict(), indent=2, ensure_ascii=False))
        return
    from rich.console import Console

    Console().print(comparison)
