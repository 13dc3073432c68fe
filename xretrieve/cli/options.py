"""Options that several verbs take, and options of several values: ``--seeds 0 1``, as ``--seeds 0 --seeds 1``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperCommand

GalleryModel = Annotated[
    str | None, typer.Option(help="The run or model that made the gallery, where it is no longer at its place.")
]
ModelWeights = Annotated[Path | None, typer.Option(help="Weights file of --model, where it was made with one.")]
CandidateModel = Annotated[
    str | None, typer.Option(help="The run the candidates come from, where it is no longer at its place.")
]
ScorePrecision = Annotated[
    str,
    typer.Option(
        "--precision", help="Of scores made token by token: auto (bf16 or fp16 where it is native), 32, bf16 or fp16."
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON and nothing else.")]


def spread(args: Sequence[str], names: Sequence[str]) -> list[str]:
    """Repeat an option before each of the values that follow it, up to the next option or ``key=value``.

    >>> spread(["--seeds", "0", "1", "--out", "a"], ["--seeds"])
    ['--seeds', '0', '--seeds', '1', '--out', 'a']
    """
    out: list[str] = []
    current = ""
    for arg in args:
        if arg.startswith("-"):
            current = arg if arg in names else ""
        elif current and "=" in arg:
            current = ""
        elif current and out[-1] != current:
            out.append(current)
        out.append(arg)
    return out


def several(*names: str) -> type[TyperCommand]:
    """A command class whose options of these names take several values."""

    class Several(TyperCommand):
        def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
            return super().parse_args(ctx, spread(args, names))

    return Several
