"""``xretrieve export RUN``: what another person needs to use a run, as a folder, as ONNX graphs, or on the Hub."""

from __future__ import annotations

import json
import shlex
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from xretrieve.cli.options import AsJson

if TYPE_CHECKING:
    from xretrieve.sharing import Kind

app = typer.Typer(add_completion=False)


@app.command()
def export(
    run: Annotated[str, typer.Argument(metavar="RUN", help="A run folder, or any other name of a model.")],
    folder: Annotated[bool, typer.Option("--folder", help="Safetensors, configuration, model card [default].")] = False,
    onnx: Annotated[bool, typer.Option("--onnx", help="ONNX graphs of both sides in place of their weights.")] = False,
    hub: Annotated[
        str | None, typer.Option(metavar="OWNER/NAME", help="Upload it as this model of the Hugging Face Hub.")
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(help="The folder to write [default: the name of RUN + -export or -onnx, here; none with --hub]."),
    ] = None,
    license_: Annotated[
        str, typer.Option("--license", help="Of the weights, as the Hub spells it; without it none is stated.")
    ] = "",
    private: Annotated[bool, typer.Option("--private", help="With --hub: a new model is private.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace what lies in --out.")] = False,
    as_json: AsJson = False,
) -> None:
    """Share a run: a folder that `xr.load` reads anywhere, with a model card made of its recipe and its report."""
    from xretrieve.errors import XRetrieveError
    from xretrieve.loading import HUB
    from xretrieve.sharing import export as write
    from xretrieve.sharing.hub import check_name, push

    if folder and onnx:
        raise XRetrieveError("--folder or --onnx, not both; run it twice, with two --out")
    if private and hub is None:
        raise XRetrieveError("--private is for --hub OWNER/NAME")
    kind: Kind = "onnx" if onnx else "folder"
    name = HUB + check_name(hub) if hub else ""
    how: dict[str, Any] = {"kind": kind, "name": name, "license": license_, "overwrite": overwrite}
    result: dict[str, Any] = {"run": run, "kind": kind}
    with tempfile.TemporaryDirectory() as scratch:
        if hub and out is None:
            place = Path(scratch) / hub.rpartition("/")[2]
        else:
            place = out or Path(f"{Path(run).resolve().name}-{'onnx' if onnx else 'export'}")
            result["out"] = str(place)
        result["graphs"] = write(run, place, **how)
        files = [path for path in place.rglob("*") if path.is_file()]
        result |= {"files": len(files), "bytes": sum(path.stat().st_size for path in files)}
        if hub:
            result["url"] = push(place, hub, private)
    result["load"] = f"xr.load({name or str(place)!r})"
    if as_json:
        typer.echo(json.dumps(result, indent=2, ensure_ascii=False))
        return
    typer.echo(f"{result.get('url') or result['out']}: {len(files)} files, {result['bytes'] / 2**20:.1f} MiB")
    for side, about in result["graphs"].items():
        typer.echo(f"  {side}/model.onnx: within {about['largest_difference']:.1g} of torch")
    typer.echo(f"load it: {result['load']}")
    if not hub:
        typer.echo(f"index with it: xretrieve index PHOTOS --model {shlex.quote(str(place))}")
