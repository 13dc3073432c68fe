"""What the verbs that search share: the gallery that is opened, the query that is asked, the ranking as a table."""

from __future__ import annotations

import json
import logging
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:
    from xretrieve.gallery import Gallery
    from xretrieve.query import Query
    from xretrieve.ranking import Ranking


def open_gallery(folder: Path, model: str | None, weights: Path | None, coarse: str | None) -> Gallery:
    """The gallery, with the matchers that are given in place of those it names. A terminal is told what is loaded."""
    say_what_is_loaded(folder)
    from xretrieve.errors import XRetrieveError
    from xretrieve.gallery import Gallery

    if weights and not model:
        raise XRetrieveError("--weights belongs to --model; write both")
    opened = Gallery.open(folder)  # a wrong folder should not cost a model's loading time
    if model or coarse:
        from xretrieve.loading import load

        matcher = load(model, weights) if model else None
        opened = Gallery.open(folder, matcher, load(coarse) if coarse else None)
    return opened


def say_what_is_loaded(folder: Path) -> None:
    """One line for each thing that takes a moment, on a terminal's stderr."""
    if not sys.stderr.isatty():
        return
    print(f"opening {folder}", file=sys.stderr, flush=True)
    log = logging.getLogger("xretrieve.loading")
    if not log.handlers:
        log.addHandler(logging.StreamHandler())
        log.setLevel(logging.INFO)


def one_text(words: list[str]) -> str | None:
    """The text of a query; several are a text without its quotes, or details without ``--and``: an error.

    >>> one_text(["a dog in the snow"])
    'a dog in the snow'
    """
    if len(words) > 1:
        from xretrieve.errors import XRetrieveError

        raise XRetrieveError(
            f'one text is looked for: put quotes around it ("{" ".join(words)}"), and --and before another detail'
        )
    return words[0] if words else None


def parse_rerank(value: str | None) -> int | str | None:
    """``--rerank``: whole numbers as such, anything else as written (``Gallery.search`` judges it).

    >>> parse_rerank("50"), parse_rerank("all"), parse_rerank(None)
    (50, 'all', None)
    """
    try:
        return int(value) if value is not None else None
    except ValueError:
        return value


def parse_blend(value: str | None) -> float | str | None:
    """``--blend``: numbers as such, anything else as written (``Gallery.search`` judges it)."""
    try:
        return float(value) if value is not None else None
    except ValueError:
        return value


def make_query(text: str | None, more: list[str], image: Path | None) -> Query:
    """The query that the command line's words make."""
    from xretrieve.errors import XRetrieveError
    from xretrieve.query import Image, ImageText, MultiText, Text

    if text is None and more:
        raise XRetrieveError('--and adds to a text: write xretrieve search INDEX "first detail" --and "second detail"')
    if image is not None:
        return Image(image) if text is None else ImageText(image, " and ".join([text, *more]))
    if text is None:
        raise XRetrieveError("nothing to search for: give a text, --image PICTURE, or both")
    return MultiText([text, *more]) if more else Text(text)


def parse_where(items: list[str]) -> dict[str, list[Any]]:
    """``key=value`` strings to a filter. A value that can be read as a number or a truth value also matches as such.

    >>> parse_where(["split=test", "year=2020", "split=val"])
    {'split': ['test', 'val'], 'year': ['2020', 2020]}
    """
    from xretrieve.errors import XRetrieveError

    wanted: dict[str, list[Any]] = {}
    for item in items:
        key, equals, value = item.partition("=")
        if not key or not equals:
            raise XRetrieveError(f"--where {item!r}: write key=value, for example split=test")
        wanted.setdefault(key, []).append(value)
        try:
            parsed = json.loads(value)
        except ValueError:
            continue
        if isinstance(parsed, (bool, int, float)):
            wanted[key].append(parsed)
    return wanted


def print_ranking(ranking: Ranking, told: list[list[dict[str, Any]]] | None = None) -> None:
    """The hits as a table; ``told`` adds a column for each part of the query (`Ranking.explain`), of a composed query
    with its weight."""
    from rich import box
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("rank", justify="right")
    table.add_column("score", justify="right")
    table.add_column("id", overflow="fold")
    for part in told[0] if told else []:
        weight = f" ({100 * part['weight']:.0f} %)" if "weight" in part else ""
        table.add_column(escape((part.get("text") or "picture") + weight), justify="right")
    for place, hit in enumerate(ranking):
        parts = [f"{part['score']:.4f}" for part in told[place]] if told else []
        table.add_row(str(hit.rank), f"{hit.score:.4f}", escape(hit.id), *parts)
    if len(ranking):
        Console().print(table)
    if ranking.note:
        typer.echo(f"note: {ranking.note}")
