"""``xretrieve import CHECKPOINT``: a published checkpoint becomes a run folder."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(add_completion=False)


@app.command(name="import")
def import_(
    checkpoint: Annotated[Path, typer.Argument(help="A .pth.tar file in the layout of SCAN or SGRAF.")],
    family: Annotated[str, typer.Option(help="scan, sgr or saf.")],
    vocab: Annotated[Path, typer.Option(help="The *_vocab.json file it was trained with.")],
    out: Annotated[Path, typer.Option(help="Run folder to make.")],
    json: Annotated[bool, typer.Option("--json", help="Print what was made as JSON.")] = False,
) -> None:
    """Turn a published checkpoint into a run folder, without executing anything from it."""
    from xretrieve.interop.checkpoints import import_checkpoint

    matcher = import_checkpoint(checkpoint, family, out, vocab)
    if json:
        import json as text

        print(text.dumps({"out": str(out), "name": matcher.name, "family": family, "head": matcher.head.config}))
        return
    print(f"written: {out}  ({matcher.name}; evaluate it with `xretrieve evaluate {out} --dataset NAME`)")
