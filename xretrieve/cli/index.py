"""``xretrieve index PHOTOS``: build or update a gallery."""

from __future__ import annotations

import json
import shlex
import sys
import time
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from xretrieve.cli.options import AsJson, ScorePrecision
from xretrieve.utils.allocation import keep_freed_memory
from xretrieve.utils.paths import expand, is_there

if TYPE_CHECKING:
    from xretrieve.gallery import Gallery

app = typer.Typer(add_completion=False)
DEFAULT_MODEL = "open_clip:ViT-B-32/laion2b_s34b_b79k"
COARSE = {
    "none": "no coarse space: a search scores every picture",
    "head": "candidates come from the head's own coarse space",
    "bound": "a search is exact: a bound leaves out what cannot be among the hits",
}
SHOWN = 10  # failed pictures, and those that are gone, that are named on the terminal


@app.command()
def index(
    folders: Annotated[
        list[Path] | None,
        typer.Argument(metavar="[PHOTOS]", help="A folder of pictures, or one picture; left out with --dataset."),
    ] = None,
    model: Annotated[str | None, typer.Option(help=f"A run folder or a model name [default: {DEFAULT_MODEL}].")] = None,
    weights: Annotated[Path | None, typer.Option(help="Weights file of a pretrained model: no download.")] = None,
    coarse: Annotated[
        str | None,
        typer.Option(help="For runs whose head compares words and regions: a dual encoder that picks the candidates."),
    ] = None,
    tokens: Annotated[
        str, typer.Option(help="How regions are kept for such runs: float16, or int8 (half the bytes).")
    ] = "float16",
    out: Annotated[
        Path | None,
        typer.Option(help="The gallery's folder [default: the name of PHOTOS or of the dataset + .xr, here]."),
    ] = None,
    index_name: Annotated[
        str | None,
        typer.Option("--index", help="auto, flat (exact), hnsw, ivfpq or faiss-flat [default: auto]."),
    ] = None,
    recall: Annotated[
        float | None,
        typer.Option(
            metavar="SHARE",
            help="Choose the effort of an approximate index so that it finds this share of the 10 nearest, e.g. 0.99.",
        ),
    ] = None,
    option: Annotated[
        list[str] | None,
        typer.Option("--option", "-o", metavar="KEY=VALUE", help="An option of the index, e.g. -o ef_search=256."),
    ] = None,
    dataset: Annotated[str | None, typer.Option(help="Index a dataset's images under their own ids.")] = None,
    root: Annotated[Path | None, typer.Option(help="Data root of --dataset; default XRETRIEVE_DATA or ./data.")] = None,
    split: Annotated[str, typer.Option(help="Split of --dataset.")] = "test",
    add: Annotated[
        bool, typer.Option("--add", help="Add to the gallery: only new and changed pictures are encoded.")
    ] = False,
    prune: Annotated[
        bool,
        typer.Option("--prune", help="With --add: remove the pictures of this folder whose file is gone or excluded."),
    ] = False,
    include: Annotated[
        list[str] | None,
        typer.Option(
            metavar="PATTERN", help="Take only pictures that match, e.g. 'holiday' or '2019/*.jpg'; repeatable."
        ),
    ] = None,
    exclude: Annotated[
        list[str] | None,
        typer.Option(metavar="PATTERN", help="Leave out pictures and folders that match; repeatable, kept by --add."),
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the gallery.")] = False,
    batch_size: Annotated[int, typer.Option(min=1, help="Pictures per step of the model.")] = 64,
    cache: Annotated[
        bool,
        typer.Option(
            "--cache/--no-cache", help="Keep what the model computed: a stopped build then goes on where it was."
        ),
    ] = True,
    precision: ScorePrecision = "auto",
    as_json: AsJson = False,
) -> None:
    """Build a gallery over a folder of pictures or a dataset, or add to one."""
    from xretrieve.cli.queries import open_gallery
    from xretrieve.config import apply_overrides
    from xretrieve.data.cache import FeatureCache
    from xretrieve.errors import XRetrieveError
    from xretrieve.gallery import Gallery
    from xretrieve.gallery.build import check_out
    from xretrieve.loading import load_one
    from xretrieve.utils.precision import check

    keep_freed_memory()
    photos = _one_folder(folders or [], out)
    if (photos is None) == (dataset is None):
        raise XRetrieveError(
            "what should be indexed? Give a folder of pictures, or --dataset NAME"
            if photos is None
            else "give a folder or --dataset, not both"
        )
    check(precision)
    if add and (overwrite or option or index_name or recall is not None or precision != "auto"):
        raise XRetrieveError(
            "--add keeps the gallery and its index; leave out --overwrite, --index, --option, --recall and --precision"
        )
    if photos is not None and not is_there(expand(photos)):  # before a model is fetched
        raise XRetrieveError(f"no folder and no picture at {photos}")
    if prune and not add:
        raise XRetrieveError("--prune removes from a gallery that is there; write --add too")
    if (include or exclude) and dataset is not None:
        raise XRetrieveError(
            "--include and --exclude choose among the pictures of a folder; leave them out with --dataset"
        )
    out = out or Path((dataset or photos.resolve().name or "photos") + ".xr")  # type: ignore[union-attr]
    source: Any = photos
    if dataset is not None:
        from xretrieve.data import datasets

        source = datasets.load(dataset, root=root, split=split)
    keep = FeatureCache() if cache else None
    progress = sys.stderr.isatty()
    if add:
        gallery = open_gallery(out, model, weights, coarse)
        gallery.prepare()  # loaded before the clock starts
        start = time.perf_counter()
        changes = gallery.add(source, batch_size=batch_size, cache=keep, progress=progress, include=include,
                              exclude=exclude)  # fmt: skip
        if prune:
            changes.notes += gallery.remove([*changes.gone, *changes.excluded])
        done, failed = {**vars(changes), "added": len(changes.added), "replaced": len(changes.replaced)}, changes.failed
        here = set(changes.gone)
        done |= {"pruned": prune, "away": gallery.away, "gone_elsewhere": [i for i in gallery.gone if i not in here]}
    else:
        check_out(out, overwrite)
        matcher, other = load_one(model or DEFAULT_MODEL, weights), load_one(coarse) if coarse else None
        start = time.perf_counter()
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "index .* finds")  # the report says it
            gallery = Gallery.build(
                matcher,
                source,
                out,
                index=index_name or "auto",
                batch_size=batch_size,
                cache=keep,
                progress=progress,
                overwrite=overwrite,
                coarse=other,
                tokens=tokens,
                recall=recall,
                precision=precision,
                include=include or (),
                exclude=exclude or (),
                **apply_overrides({}, option or []),
            )
        idle = [pattern for about in gallery.info.get("folders", {}).values() for pattern in about["idle"]]
        done, failed = {"added": len(gallery), "left_out": gallery.left_out, "idle": idle}, gallery.failed
    seconds = time.perf_counter() - start
    rate = (done["added"] + done.get("replaced", 0)) / seconds
    size = sum(path.stat().st_size for path in out.rglob("*") if path.is_file())
    following = f'xretrieve search {shlex.quote(str(out))} "a dog in the snow"'
    for name, value in (("model", model), ("weights", weights), ("coarse", coarse)):
        following += f" --{name} {shlex.quote(str(value))}" if add and value else ""
    result = {
        "gallery": str(out),
        "images": len(gallery),
        **done,
        "failed": failed,
        "seconds": round(seconds, 3),
        "images_per_second": round(rate, 1),
        "bytes": size,
        "patterns": gallery.info.get("patterns", {}),
        "index": gallery.info["index"],
        "matcher": gallery.info["matcher"],
        "coarse": gallery.info.get("coarse"),
        "scored_in": gallery.scored_in,
        "next": following,
    }
    if as_json:
        typer.echo(json.dumps(result, indent=2, ensure_ascii=False))
        return
    _report(result, gallery)


def _one_folder(folders: list[Path], out: Path | None) -> Path | None:
    """The folder to index; of several, the error says how one after the other comes into the same gallery."""
    if len(folders) > 1:
        from xretrieve.errors import XRetrieveError

        first, second = (shlex.quote(str(folder)) for folder in folders[:2])
        place = shlex.quote(str(out or f"{folders[0].resolve().name}.xr"))
        raise XRetrieveError(
            f"index takes one folder at a time: first `xretrieve index {first} --out {place}`, then "
            f"`xretrieve index {second} --out {place} --add`"
        )
    return folders[0] if folders else None


def _told(about: dict[str, Any]) -> str:
    """An index in a line: what it is, how it searches, what it finds."""
    recall = about.get("recall")
    if recall is None:  # `auto` is the flat index while there are few
        return "flat, exact" if about["name"] in ("auto", "flat") else f"{about['name']}, exact"
    how = [f"{about['codes']} codes and exact scores"] if "codes" in about else []
    how += [f"{option}={value}" for option, value in about.get("chosen", {}).items()]
    how += [f"recall@{recall['k']} against exact search {recall['value']:.4f} ({recall['queries']} {recall['kind']}"]
    return ", ".join([about["name"], *how]) + (")" if recall["kind"] == "captions" else "; texts may be found less)")


def _named(ids: list[str], what: str) -> None:
    """How many pictures something is true of, and the first of them."""
    if ids:
        names = ", ".join(ids[:SHOWN]) + (", ..." if len(ids) > SHOWN else "")
        typer.echo(f"  {len(ids)} picture{'s' * (len(ids) > 1)} {what}: {names}")


def _report(result: dict[str, Any], gallery: Gallery) -> None:
    known = f"; {result['replaced']} changed, {result['unchanged']} already there" if "unchanged" in result else ""
    copies = result.get("duplicates") or sum(len(m.get("paths", [0])) - 1 for m in gallery.metadata)
    pictures = "1 picture" if result["images"] == 1 else f"{result['images']} pictures"
    typer.echo(f"{result['gallery']}: {pictures}, {result['bytes'] / 2**20:.1f} MiB on disk")
    typer.echo(
        f"  added {result['added']} in {result['seconds']:.1f} s ({result['images_per_second']:.1f} images/s){known}"
        + (f"; {copies} cop{'y' if copies == 1 else 'ies'} of the same content" if copies else "")
    )
    about = result["index"]
    typer.echo(f"  index {_told(about)}")
    for note in result.get("notes", [about.get("note")]):
        if note:
            typer.echo(f"  note: {note}")
    if result["coarse"]:
        by = "bound" if gallery.bounded else result["coarse"]["by"]
        typer.echo("  " + (COARSE[by] if by != "matcher" else f"candidates come from {result['coarse']['name']}"))
        typer.echo(f"  searches score in {result['scored_in']}")
    failed, pruned = result["failed"], result.get("pruned")
    what = "removed" if pruned else "still found; --add --prune removes them"
    _named(result.get("moved", []), "moved, named anew")
    _named(result.get("gone", []), f"no longer on the disk, {what}")
    _named(result.get("excluded", []), f"left out by the patterns now, {what}")
    _named(
        result.get("gone_elsewhere", []), "of other folders no longer on the disk; --add --prune of those removes them"
    )
    _named(result.get("away", []), "not to be reached now (their folder is missing, empty or closed), kept")
    for entry in result["left_out"]:
        typer.echo(f"  left out: {entry['message']}")
    for pattern in result.get("idle", []):
        typer.echo(f"  the pattern {pattern!r} matches nothing; it is compared with paths below the folder")
    if failed:
        typer.echo(f"  {len(failed)} picture{'s' * (len(failed) > 1)} could not be indexed:")
        for entry in failed[:SHOWN]:
            typer.echo(f"    {entry['path']}: {entry['reason']}")
        if len(failed) > SHOWN:
            typer.echo(f"    ... and {len(failed) - SHOWN} more, all in {Path(result['gallery']) / 'gallery.json'}")
    typer.echo(f"search it: {result['next']}")
