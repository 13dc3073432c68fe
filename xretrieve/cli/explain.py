"""``xretrieve explain INDEX "a dog in the snow"``: why a picture was found."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from xretrieve.cli.options import AsJson, CandidateModel, GalleryModel, ModelWeights

if TYPE_CHECKING:
    from xretrieve.ranking import Hit, Ranking

app = typer.Typer(add_completion=False)
FORMATS = (".png", ".html")


@app.command()
def explain(
    gallery: Annotated[Path, typer.Argument(metavar="INDEX", help="A gallery made by `xretrieve index`.")],
    words: Annotated[
        list[str],
        typer.Argument(metavar="TEXT", help="What the picture shows; with --image, what should be different."),
    ],
    more: Annotated[
        list[str] | None, typer.Option("--and", help="Another detail of the same picture; repeatable.")
    ] = None,
    image: Annotated[Path | None, typer.Option(help="A reference picture.")] = None,
    rank: Annotated[int, typer.Option(help="Which result to explain, from 1.", min=1)] = 1,
    out: Annotated[
        Path | None, typer.Option(help="Draw it: FILE.png (a figure) or FILE.html (a page to click through).")
    ] = None,
    where: Annotated[
        list[str] | None, typer.Option(metavar="KEY=VALUE", help="Only pictures with this metadata.")
    ] = None,
    rerank: Annotated[
        str | None, typer.Option(help="As in `xretrieve search`: a number of candidates, or all.")
    ] = None,
    model: GalleryModel = None,
    weights: ModelWeights = None,
    coarse: CandidateModel = None,
    as_json: AsJson = False,
) -> None:
    """Say which words found which regions of one result (or what each detail scored), and draw it over the picture."""
    from xretrieve.cli.queries import make_query, one_text, open_gallery, parse_rerank, parse_where
    from xretrieve.errors import XRetrieveError

    if out is not None and out.suffix.lower() not in FORMATS:
        raise XRetrieveError(f"--out {out}: write a file name that ends in .png or .html")
    text = one_text(words)
    query, wanted = make_query(text, more or [], image), parse_where(where or [])
    opened = open_gallery(gallery, model, weights, coarse)
    ranking = opened.search(query, k=rank, where=wanted, rerank=parse_rerank(rerank))
    if len(ranking) < rank:
        raise XRetrieveError(
            f"--rank {rank}: there are {len(ranking)} results" + (f"; {ranking.note}" * bool(ranking.note))
        )
    told = ranking.explain(rank - 1)
    if out is not None:
        draw(told, ranking[rank - 1], " and ".join([*words, *(more or [])]), out)
    if as_json:
        typer.echo(json.dumps(told, indent=2, ensure_ascii=False))
        return
    print_explanation(told, ranking)
    if out is not None:
        typer.echo(f"drawn: {out}")


def draw(told: dict[str, Any], hit: Hit, text: str, out: Path) -> None:
    """Write a figure or a page; a hit without attention is an error, one without a picture gets an empty sheet."""
    from xretrieve.data.pictures import read_picture
    from xretrieve.errors import XRetrieveError
    from xretrieve.utils.files import atomic_path, write_text

    if "attention" not in told:
        raise XRetrieveError(
            "there is nothing to draw: this result was scored by one vector per picture; the parts' scores are all "
            "there is (leave out --out)"
        )
    if told["attention"]["layout"] is None:
        raise XRetrieveError(
            f"where the regions of {hit.id} lie is not known, so nothing can be drawn: regions need a boxes file, and "
            "pictures must still be there (leave out --out)"
        )
    picture = read_picture(hit.path) if hit.path is not None else None
    if out.suffix.lower() == ".html":
        from xretrieve.explain.page import page

        write_text(out, page(told, picture, text))
        return
    from xretrieve.explain.figure import figure

    drawn = figure(told, picture, text)
    with atomic_path(out) as part:
        part.write_bytes(drawn)


def print_explanation(told: dict[str, Any], ranking: Ranking) -> None:
    """The parts of the query, and a table of the words, or of the sentences of a query set."""
    typer.echo(f"{told['id']}: rank {told['rank']}, score {told['score']:.4f}")
    attention = told.get("attention")
    if attention is not None and attention["of"] == "sentences":
        print_sentences(told)
    else:
        for part in told["parts"]:
            weight = f"  weight {100 * part['weight']:.0f} %" if "weight" in part else ""
            typer.echo(f"  {part['score']:.4f}{weight}  {part.get('text') or part.get('image') or 'picture'}")
            if "attributes" in part:
                each = ", ".join(f"{name} {100 * share:.0f} %" for name, share in part["attributes"].items())
                typer.echo(f"          {each}")
        if attention is not None:
            print_words(attention)
    if ranking.note:
        typer.echo(f"note: {ranking.note}")


def print_words(attention: dict[str, Any]) -> None:
    """What each word looks at, and what looks at it."""
    streams = attention["streams"]
    columns = ["word"]
    columns += ["looks most at", "share", "match"] if "t2i" in streams else []
    columns += ["looked at most by", "share"] if "i2t" in streams else []
    rows = []
    for place, word in enumerate(attention["words"]):
        cells = [word]
        if "t2i" in streams:
            weights = streams["t2i"]["weights"][place]
            cells += [region(attention, weights), f"{100 * max(weights):.0f} %",
                      f"{streams['t2i']['match'][place]:.2f}"]  # fmt: skip
        if "i2t" in streams:
            weights = [row[place] for row in streams["i2t"]["weights"]]
            cells += [region(attention, weights), f"{100 * max(weights):.0f} %"]
        rows.append(cells)
    print_table(columns, rows)


def print_sentences(told: dict[str, Any]) -> None:
    """Each sentence of a query set: its score alone, what it finds where, its part in the whole; then the levels."""
    attention, first = told["attention"], told["parts"][0]
    more = {"reads": "reasoning reads", "slot": "slot", "counts": "counts"}
    shown = {key: title for key, title in more.items() if key in first}
    rows = []
    for part, weights in zip(told["parts"], attention["streams"]["t2i"]["weights"], strict=True):
        cells = [part["text"], f"{part['score']:.4f}", f"{part['found']:.4f}", region(attention, weights),
                 f"{100 * max(weights):.0f} %"]  # fmt: skip
        rows.append(cells + [str(part[k] + 1) if k == "slot" else f"{100 * part[k]:.0f} %" for k in shown])
    print_table(["sentence", "alone", "found", "looks most at", "share", *shown.values()], rows)
    if "levels" in told:
        terms = [f"{one['weight']:.3g} x {one['value']:.4f} ({name})" for name, one in told["levels"].items()]
        typer.echo("score = " + " + ".join(terms))


def print_table(columns: list[str], rows: list[list[str]]) -> None:
    """Text to the left, numbers to the right."""
    from rich import box
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    left = ("word", "sentence", "looks most at", "looked at most by")
    for title in columns:
        table.add_column(title, justify="left" if title in left else "right", overflow="fold")
    for row in rows:
        table.add_row(*map(escape, row))
    Console().print(table)


def region(attention: dict[str, Any], weights: list[float]) -> str:
    """The region of the highest weight, in words."""
    place = max(range(len(weights)), key=weights.__getitem__)
    layout = attention["layout"] or {"grid": None, "boxes": None}
    if layout["grid"] is not None:
        row, column = divmod(place, layout["grid"][1])
        return f"row {row + 1}, column {column + 1}"
    if layout["boxes"] is not None:
        return "box " + ", ".join(f"{x:g}" for x in layout["boxes"][place])
    return f"region {place + 1}"
