"""``xretrieve search INDEX "a dog in the snow"``: search a gallery."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from xretrieve.cli.options import AsJson, CandidateModel, GalleryModel, ModelWeights
from xretrieve.cli.queries import (
    make_query,
    one_text,
    open_gallery,
    parse_blend,
    parse_rerank,
    parse_where,
    print_ranking,
)

app = typer.Typer(add_completion=False)


@app.command()
def search(
    gallery: Annotated[Path, typer.Argument(metavar="INDEX", help="A gallery made by `xretrieve index`.")],
    words: Annotated[
        list[str] | None,
        typer.Argument(metavar="[TEXT]", help="What the picture shows; with --image, what should be different."),
    ] = None,
    more: Annotated[
        list[str] | None, typer.Option("--and", help="Another detail of the same picture; repeatable.")
    ] = None,
    image: Annotated[Path | None, typer.Option(help="A reference picture.")] = None,
    k: Annotated[int, typer.Option("-k", help="Results.")] = 10,
    where: Annotated[
        list[str] | None,
        typer.Option(
            metavar="KEY=VALUE", help="Only pictures with this metadata; repeat a key for any of several values."
        ),
    ] = None,
    rerank: Annotated[
        str | None,
        typer.Option(
            metavar="N|all|auto",
            help="For heads that compare words and regions: candidates they score, 0 for the coarse order, all, or "
            "auto, what `xretrieve tune` found [default: auto where it was run, else 100, all without a coarse space].",
        ),
    ] = None,
    blend: Annotated[
        str | None,
        typer.Option(
            metavar="SHARE|auto",
            help="For those heads: share of their score in a hit's, the rest is the coarse score's, 1 to 0 [default: "
            "what `xretrieve tune` found, else 1].",
        ),
    ] = None,
    explain: Annotated[
        bool, typer.Option("--explain", help="The score of each text and picture of the query beside each result.")
    ] = False,
    interactive: Annotated[
        bool,
        typer.Option(
            "--interactive", help="A session: every line you write is one more sentence about the picture (/help)."
        ),
    ] = False,
    combine: Annotated[
        str,
        typer.Option(
            metavar="WAY",
            help="With --interactive, how sentences become one query: head, mean_similarity, rank_fusion or paragraph.",
        ),
    ] = "",
    html: Annotated[Path | None, typer.Option(help="Also write one page with the pictures.")] = None,
    model: GalleryModel = None,
    weights: ModelWeights = None,
    coarse: CandidateModel = None,
    as_json: AsJson = False,
) -> None:
    """Search with a text, several texts (--and), a picture (--image), or a picture and a change."""
    from xretrieve.errors import XRetrieveError

    wanted, text = parse_where(where or []), one_text(words or [])
    if interactive:
        from xretrieve.cli.interactive import Shell
        from xretrieve.gallery.search import check_k

        check_k(k)
        first = check_interactive(
            text, more or [], {"--image": image, "--rerank": rerank, "--blend": blend, "--html": html}
        )
        session = open_gallery(gallery, model, weights, coarse).session(combine, wanted)
        if not Shell(session, k, as_json, explain).run(first):
            raise typer.Exit(2)
        return
    query = make_query(text, more or [], image)
    if combine:
        raise XRetrieveError("--combine belongs to --interactive; write both")
    opened = open_gallery(gallery, model, weights, coarse)
    ranking = opened.search(query, k=k, where=wanted, rerank=parse_rerank(rerank), blend=parse_blend(blend))
    told = [ranking.explain(place)["parts"] for place in range(len(ranking))] if explain else None
    if html is not None:
        ranking.to_html(html)
    if as_json:
        result = ranking.to_json()
        for hit, parts in zip(result["hits"], told or [], strict=False):
            hit["parts"] = parts
        typer.echo(json.dumps(result, indent=2, ensure_ascii=False))
        return
    print_ranking(ranking, told)
    if html is not None:
        typer.echo(f"page: {html}")


def check_interactive(text: str | None, more: list[str], others: dict[str, Any]) -> list[str]:
    """The first sentences of a session; options that do not go with one are an error."""
    from xretrieve.errors import XRetrieveError

    wrong = [name for name, value in others.items() if value is not None]
    if wrong:
        raise XRetrieveError(f"{wrong[0]} does not go with --interactive: a session takes sentences, and is exact")
    return [*([text] if text is not None else []), *more]
