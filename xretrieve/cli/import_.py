"""``xretrieve import CHECKPOINT``: a published checkpoint becomes a run folder."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(add_completion=False)


@app.command(name="import")
def import_(
    checkpoint: Annotated[Path, typer.Argument(help="A .pth.tar file of SCAN, SGRAF or HMRN, a .pkl of Drill-down.")],
    family: Annotated[str, typer.Option(help="scan, sgr, saf, hmrn or drilldown.")],
    vocab: Annotated[Path, typer.Option(help="The *_vocab.json file it was trained with.")],
    out: Annotated[Path, typer.Option(help="Run folder to make.")],
    head: Annotated[
        list[str] | None, typer.Option(help="Head option that the file does not tell, as key=value; repeatable.")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print what was made as JSON.")] = False,
) -> None:
    """Turn a published checkpoint into a run folder, without executing anything from it."""
    from xretrieve.config import apply_overrides
    from xretrieve.interop.checkpoints import import_checkpoint

    matcher = import_checkpoint(checkpoint, family, out, vocab, apply_overrides({}, head or []))
    if json:
        import json as text

        print(text.dumps({"out": str(out), "name": matcher.name, "family": family, "head": matcher.head.config}))
        return
    print(f"written: {out}  ({matcher.name}; evaluate it with `xretrieve evaluate {out} --dataset NAME`)")
