"""``xretrieve serve INDEX``: a search page and a REST API over a gallery."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from xretrieve.cli.options import CandidateModel, GalleryModel, ModelWeights

app = typer.Typer(add_completion=False)


@app.command()
def serve(
    gallery: Annotated[Path, typer.Argument(metavar="INDEX", help="A gallery made by `xretrieve index`.")],
    host: Annotated[str, typer.Option(help="Address to listen on; 0.0.0.0 for every machine around.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port; 0 takes any free one.")] = 8765,
    show: Annotated[bool, typer.Option("--open", help="Open the page in a browser.")] = False,
    token: Annotated[
        str, typer.Option(envvar="XRETRIEVE_TOKEN", help="Callers must send it (Authorization: Bearer TOKEN).")
    ] = "",
    option: Annotated[
        list[str] | None,
        typer.Option("--option", "-o", metavar="KEY=VALUE", help="A limit, e.g. -o max_k=500 (docs/serve.md)."),
    ] = None,
    workers: Annotated[int, typer.Option(help="Processes that answer; the model is in memory once (Linux).")] = 1,
    model: GalleryModel = None,
    weights: ModelWeights = None,
    coarse: CandidateModel = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the address as JSON.")] = False,
) -> None:
    """Serve a search page and a REST API until Ctrl-C."""
    from xretrieve.app.settings import Settings
    from xretrieve.cli.queries import open_gallery
    from xretrieve.config import apply_overrides, from_dict
    from xretrieve.errors import XRetrieveError

    given = apply_overrides({}, option or [])
    if {"host", "port", "token"} & set(given):
        raise XRetrieveError("write --host, --port and --token instead of -o")
    settings = from_dict(Settings, {"host": host, "port": port, "token": token, **given}, "serve")
    opened = open_gallery(gallery, model, weights, coarse)
    if not settings.loopback and not token:
        typer.echo(f"warning: anybody who reaches {host} can search and see these pictures; give a --token", err=True)

    def say(address: str) -> None:
        about = f"{opened.path}: {len(opened)} pictures at {address} (Ctrl-C stops)"
        line = json.dumps({"gallery": str(opened.path), "pictures": len(opened), "address": address})
        print(line if as_json else about, flush=True)

    from xretrieve.app.run import serve as run

    run(opened, settings, show, say, workers)
