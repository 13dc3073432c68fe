"""``xretrieve data list | check | prepare | show``."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import typer

from xretrieve.cli.options import AsJson
from xretrieve.config import apply_overrides
from xretrieve.errors import XRetrieveError

app = typer.Typer(help="List, check, prepare and show datasets.", add_completion=False)

ROOT = typer.Option(None, "--root", help="Data root; default XRETRIEVE_DATA or ./data.")
LAYOUT = typer.Option(None, "--layout", help="E.g. karpathy, precomp, photos, regions; default: what is there.")
OPTIONS = typer.Option([], "--option", "-o", metavar="KEY=VALUE", help="A loader option, e.g. -o photos=flickr8k.")


@app.callback(invoke_without_command=True)
def overview(context: typer.Context) -> None:
    """List, check, prepare and show datasets."""
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())


@app.command("list")
def list_datasets(root: str | None = ROOT, as_json: AsJson = False) -> None:
    """Name the datasets, their tasks, and what of each lies under the data root."""
    from xretrieve.data import datasets
    from xretrieve.utils.files import data_root
    from xretrieve.utils.paths import is_folder
    from xretrieve.utils.plugins import usable

    rows = []
    for name, card in usable(datasets.names(), datasets.info).items():
        rows.append(
            {
                "name": name,
                "title": card.title if card else name,
                "tasks": list(card.tasks) if card else [],
                "found": datasets.found(name, root),
            }
        )
    if as_json:
        _print_json({"root": str(data_root(root)), "datasets": rows})
        return
    from rich.table import Table

    folder = data_root(root)
    table = Table("name", "tasks", f"found under {folder}{'' if is_folder(folder) else ' (no such folder)'}")
    for row in rows:
        nothing = "made on demand" if row["name"] == "scenes" else "nothing"
        table.add_row(row["name"], ", ".join(row["tasks"]), "\n".join(row["found"]) or nothing)
    _console().print(table)


@app.command()
def check(
    names: list[str] = typer.Argument(None, metavar="[NAME]...", help="Datasets; default: all under the root."),
    root: str | None = ROOT,
    split: str | None = typer.Option(None, "--split", help="One split; default: all."),
    layout: str | None = LAYOUT,
    read: bool = typer.Option(False, "--read", help="Decode every picture and scan every feature row."),
    option: list[str] = OPTIONS,
    as_json: AsJson = False,
) -> None:
    """Say what is here, what is missing and what that does to a score. Exit status 1: a split cannot be evaluated."""
    from xretrieve.data import check as checks
    from xretrieve.data import datasets
    from xretrieve.utils.files import data_root
    from xretrieve.utils.plugins import usable

    there = {} if names else usable(datasets.names(), lambda name: datasets.found(name, root))
    chosen = names or [name for name, found in there.items() if found]
    if not chosen:
        raise XRetrieveError(f"no dataset under {data_root(root)}; `xretrieve data list` names them; set --root")
    options = apply_overrides({}, option)
    reports = []
    for name in chosen:
        bar = _progress(f"reading {name}", read)
        reports.append(checks.check(name, root, split, layout=layout, read=read, progress=bar, **options))
    if as_json:
        _print_json([report.to_json() for report in reports] if len(reports) != 1 else reports[0].to_json())
    else:
        for report in reports:
            _print_report(report)
    if not all(report.ok for report in reports):
        raise typer.Exit(1)


@app.command()
def show(
    name: str = typer.Argument(..., help="Dataset."),
    ids: list[str] = typer.Argument(None, metavar="[ID]...", help="Image ids; default: the first few."),
    root: str | None = ROOT,
    split: str = typer.Option("test", "--split", help="Split."),
    layout: str | None = LAYOUT,
    n: int = typer.Option(3, "--n", "-n", min=1, help="Number of images."),
    seed: int | None = typer.Option(None, "--seed", help="Draw the images at random with this seed."),
    page: Path | None = typer.Option(None, "--html", help="Also write them, with their pictures, as one web page."),
    option: list[str] = OPTIONS,
    as_json: AsJson = False,
) -> None:
    """Show a few images with their captions and regions."""
    from xretrieve.data import datasets
    from xretrieve.data import show as showing
    from xretrieve.utils.files import write_text

    data = datasets.load(name, root, split, layout, **apply_overrides({}, option))
    shown = showing.examples(data, n, seed, ids or ())
    if page:
        write_text(page, showing.page(data, shown))
    if as_json:
        _print_json(
            {
                "name": data.name,
                "split": data.split,
                "layout": data.layout,
                "images": len(data),
                "captions": len(data.captions),
                "coverage": data.coverage,
                "examples": shown,
            }
        )
        return
    typer.echo(
        f"{data.name} {data.split} ({data.layout}): {len(data):,} of {data.expected_images:,} images, "
        f"{len(data.captions):,} captions"
    )
    for example in shown:
        typer.echo(f"\n{example['id']}  {example['image']}")
        boxed = {region["text"] for region in example["regions"]}  # said with their box below
        for text in (text for text in example["captions"] if text not in boxed):
            typer.echo(f"  - {text}")
        for region in example["regions"]:
            typer.echo(f"  [{', '.join(f'{v:g}' for v in region['box'])}] {region['text']}")
        for triplet in example["triplets"]:
            typer.echo(f"  -> {triplet['target']}: {' / '.join(triplet['texts'])}")
    if page:
        typer.echo(f"\nwrote {page}")


@app.command()
def prepare(
    name: str = typer.Argument(..., help="Dataset; `scenes` is generated."),
    root: str | None = ROOT,
    split: list[str] = typer.Option([], "--split", help="Splits to work on; default train, val and test."),
    layout: str | None = LAYOUT,
    extract: bool = typer.Option(False, "--extract", help="Write the json out of the zip, the lists or the pickle."),
    vocab: bool = typer.Option(False, "--vocab", help="Build a vocabulary from the train and val captions."),
    min_count: int = typer.Option(4, "--min-count", min=1, help="Words seen less often become the unknown word."),
    features: bool = typer.Option(False, "--features", help="Convert region features: each image once, no pickle."),
    half: bool = typer.Option(False, "--half", help="With --features of visual_genome: float16, half the size."),
    replace: bool = typer.Option(False, "--replace", help="With --features: overwrite the old files."),
    out: Path | None = typer.Option(None, "--out", help="Where: file of the json or vocabulary, root of features."),
    backbone: str | None = typer.Option(None, "--backbone", help="Fill the feature cache with it, e.g. timm:NAME."),
    weights: str | None = typer.Option(None, "--weights", help="Local weights file of the backbone."),
    backbone_option: list[str] = typer.Option([], "--backbone-option", metavar="KEY=VALUE", help="Its options."),
    option: list[str] = OPTIONS,
    as_json: AsJson = False,
) -> None:
    """Do once what training needs: json, vocabulary, lean features, warm cache, generated pictures."""
    from xretrieve.data import datasets
    from xretrieve.data import prepare as work

    options = apply_overrides({}, option)
    datasets.info(name)  # an unknown name is said before anything else
    if out and sum((extract, vocab, features)) > 1:
        raise XRetrieveError("--out goes with one of --extract, --vocab and --features at a time")
    done: dict[str, Any] = {}
    if extract:
        files = [str(path) for path in work.extract(name, root, out)]
        done["json"] = files if len(files) > 1 else files[0]
    if features:
        bar = _progress(f"converting {name}", not as_json)
        done["features"] = work.convert(name, root, out, replace=replace, splits=split, half=half, progress=bar)
    if vocab:
        path, words = work.build_vocabulary(name, root, out, min_count, layout, **options)
        done["vocabulary"] = {"path": str(path), "words": words, "min_count": min_count}
    if backbone:
        chosen = {**options, **({"layout": layout} if layout else {})}
        done["cache"] = work.warm_features(
            name,
            root,
            split or ["train", "val", "test"],
            backbone,
            weights,
            progress=_terminal() and not as_json,
            backbone_options=apply_overrides({}, backbone_option),
            **chosen,
        )
    if name == "scenes" and not done:
        for one in split or ["train", "val", "test"]:
            data = datasets.load(name, root, one, **options)
            done[one] = {
                "images": len(data),
                "captions": len(data.captions),
                "triplets": len(data.triplets),
                "folder": str(Path(str(data.images[0])).parent),
            }
    if not done:
        raise XRetrieveError(f"say what to prepare for {name}: --extract, --vocab, --features or --backbone NAME")
    if as_json:
        _print_json(done)
    else:
        for what, result in done.items():
            typer.echo(f"{what}: {_plain(result)}")


def _print_report(report: Any) -> None:
    from rich.markup import escape
    from rich.table import Table

    console = _console()
    asked = any(s.queries for s in report.splits)
    last = "composed queries" if asked else "regions"
    table = Table("split", "layout", "images", "captions", "distinct", "words mean/max", last)
    for s in report.splits:
        words = f"{s.words_mean:.1f} / {s.words_max}" if s.captions else ""
        table.add_row(
            s.split,
            s.layout or "-",
            f"{s.images:,} of {s.expected_images:,}",
            f"{s.captions:,}",
            f"{s.distinct_captions:,}",
            words,
            f"{s.queries_here:,} of {s.queries:,}" if asked else f"{s.regions:,}" if s.regions else "",
        )
    where = f"under {report.root}" if report.name != "scenes" else "(generated)"
    console.print(f"\n[bold]{escape(report.name)}[/bold] {escape(where)}")
    console.print(table)
    incomplete = False
    for s in report.splits:
        said = [s.effect]
        if s.missing:
            said.append(f"missing {_first(s.missing, s.first_missing)}")
        if s.broken:
            said.append(f"broken {_first(s.broken, s.first_broken)}")
        said += s.notes
        incomplete |= bool(s.missing or s.broken or not s.usable)
        colour = "green" if s.effect == "complete" else "yellow" if s.usable else "red"
        console.print(f"[{colour}]{escape(s.split)}[/{colour}]: {escape(said[0])}")
        for line in said[1:]:
            console.print(f"  {escape(line)}")
    if incomplete:
        console.print(f"get it: {escape(report.url)}")
        if report.put:
            console.print(f"put it: {escape(report.put)}")
    console.print(f"terms: {escape(report.terms)}")
    if not report.read:
        console.print("pictures and features were not opened; --read does that")


def _first(count: int, names: list[str]) -> str:
    return f"{count:,}: {', '.join(names)}{', ...' if count > len(names) else ''}"


def _plain(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{k} {_plain(v)}" for k, v in value.items())
    return (", ".join(map(str, value)) or "none") if isinstance(value, list) else str(value)


def _print_json(value: Any) -> None:
    typer.echo(json.dumps(value, indent=2, ensure_ascii=False))


def _console() -> Any:
    from rich.console import Console

    return Console(highlight=False, soft_wrap=not sys.stdout.isatty(), width=None if sys.stdout.isatty() else 140)


def _terminal() -> bool:
    return sys.stderr.isatty()


def _progress(label: str, wanted: bool) -> Any:
    """A progress bar on the terminal's error stream, or nothing."""
    if not wanted or not _terminal():
        return iter
    from rich.console import Console
    from rich.progress import track

    def wrap(items: Iterable[Any]) -> Iterable[Any]:
        return track(list(items), description=label, console=Console(stderr=True))

    return wrap
