"""``xretrieve import CHECKPOINT``: a published checkpoint becomes a run folder."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(add_completion=False)


@app.command(name="import")
def import_(
    checkpoint: Annotated[
        Path, typer.Argument(help="A .pth.tar file of SCAN, SGRAF or HMRN, a .pkl of Drill-down, a .pt of Combiner.")
    ],
    family: Annotated[str, typer.Option(help="scan, sgr, saf, hmrn, drilldown or combiner.")],
    out: Annotated[Path, typer.Option(help="Run folder to make.")],
    vocab: Annotated[
        Path | None, typer.Option(help="The *_vocab.json file it was trained with (all but combiner).")
    ] = None,
    backbone: Annotated[
        str | None,
        typer.Option(help="combiner: the two-tower model it was trained on, such as open_clip:RN50x4/openai."),
    ] = None,
    weights: Annotated[Path | None, typer.Option(help="combiner: weights file of --backbone.")] = None,
    head: Annotated[
        list[str] | None, typer.Option(help="Head option that the file does not tell, as key=value; repeatable.")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print what was made as JSON.")] = False,
) -> None:
    """Turn a published checkpoint into a run folder, without executing anything from it."""
    from xretrieve.config import apply_overrides
    from xretrieve.interop.checkpoints import import_checkpoint

    own = apply_overrides({}, head or [])
    matcher = import_checkpoint(checkpoint, family, out, vocab, own, backbone, weights)
    if json:
        import json as text

        print(text.dumps({"out": str(out), "name": matcher.name, "family": family, "head": matcher.head.config}))
        return
    print(f"written: {out}  ({matcher.name}; evaluate it with `xretrieve evaluate {out} --dataset NAME`)")
