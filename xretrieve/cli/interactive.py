"""``xretrieve search INDEX --interactive``: sentence after sentence, until the picture is found."""

from __future__ import annotations

import contextlib
import json
import sys
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import typer

from xretrieve.errors import XRetrieveError, unknown

if TYPE_CHECKING:
    from xretrieve.ranking import Ranking
    from xretrieve.session import Session

HELP = """\
Every line is one more sentence about the picture; the ranking is that of all sentences so far.
  /undo           take the last sentence back
  /reset          start over
  /show [K]       the ranking again, with K results from now on
  /explain [RANK] why a result was found
  /help           this text
  /quit           leave (so does Ctrl-D)"""


class Shell:
    """Reads lines, prints rankings.

    Args:
        session: what the sentences are added to.
        k: results per turn.
        as_json: one JSON object a turn, one line each.
        explain: the score of each sentence beside each result.
    """

    def __init__(self, session: Session, k: int, as_json: bool = False, explain: bool = False) -> None:
        self.session, self.k, self.as_json, self.explained = session, k, as_json, explain
        self.left = False
        self.commands: dict[str, Callable[[str], None]] = {
            "/undo": self.undo, "/reset": self.reset, "/show": self.show, "/explain": self.explain,
            "/help": self.help, "/quit": self.quit, "/exit": self.quit,
        }  # fmt: skip

    def run(self, first: list[str]) -> bool:
        """Play the sentences given on the command line, then the lines of the standard input.

        Returns whether every line was taken. What is wrong with a line is said, and the next one is read.
        """
        fine, typed = True, sys.stdin.isatty()
        if typed and not self.as_json:
            typer.echo(HELP)
        for line in self._lines(first, typed):
            try:
                self.take(line)
            except XRetrieveError as error:
                fine = False
                typer.echo(f"error: {error}", err=True)
            except KeyboardInterrupt:
                if not typed:
                    raise
                typer.echo("stopped", err=True)  # this turn, not the session
            sys.stdout.flush()
            if self.left:
                break
        return fine or typed

    def take(self, line: str) -> None:
        """One line: a command or a sentence."""
        if not line.startswith("/"):
            self._turn(lambda: self.session.add(line))
            return
        word, _, rest = line.partition(" ")
        if word not in self.commands:
            raise unknown("command", word, self.commands)
        self.commands[word](rest.strip())

    def undo(self, rest: str) -> None:
        """Take the last sentence back, and show what the others found."""
        self._turn(lambda: self._say(f"taken back: {self.session.undo()}"))

    def reset(self, rest: str) -> None:
        """Start over."""
        self.session.reset()
        self._turn(lambda: None)

    def show(self, rest: str) -> None:
        """The ranking again."""
        self.k = _number(rest, self.k, "/show 20")
        if not len(self.session):
            raise XRetrieveError("nothing has been said yet; write a sentence first")
        self._turn(lambda: None)

    def explain(self, rest: str) -> None:
        """Why a hit was found."""
        from xretrieve.cli.explain import print_explanation

        rank = _number(rest, 1, "/explain 2")
        ranking = self.session.ranking(rank)
        if len(ranking) < rank:
            raise XRetrieveError(f"/explain {rank}: there are {len(ranking)} results")
        told = ranking.explain(rank - 1)
        if self.as_json:
            typer.echo(json.dumps(told, ensure_ascii=False))
        else:
            print_explanation(told, ranking)

    def help(self, rest: str) -> None:
        """What can be written."""
        self._say(HELP)

    def quit(self, rest: str) -> None:
        """Leave."""
        self.left = True

    def _turn(self, change: Callable[[], object]) -> None:
        """Change the session and print the ranking, with the time of both."""
        start = time.perf_counter()
        change()
        ranking = self.session.ranking(self.k) if len(self.session) else None
        self._print(ranking, 1000 * (time.perf_counter() - start))

    def _print(self, ranking: Ranking | None, ms: float) -> None:
        from xretrieve.cli.queries import print_ranking

        turn = len(self.session)
        if ranking is None:
            self._say(json.dumps({"turn": 0, "hits": []}) if self.as_json else "nothing said", always=True)
            return
        told = [ranking.explain(place)["parts"] for place in range(len(ranking))] if self.explained else None
        if self.as_json:
            result = {"turn": turn, "ms": round(ms, 1), **ranking.to_json()}
            for hit, parts in zip(result["hits"], told or [], strict=False):
                hit["parts"] = parts
            typer.echo(json.dumps(result, ensure_ascii=False))
            return
        typer.echo(f"{turn}: " + " · ".join(self.session.texts))
        print_ranking(ranking, told)
        share = f", {100 * (ranking.share or 0):.1f} % of the pictures needed reasoning" * self.session.reasons
        typer.echo(f"{ms:.0f} ms{share}")

    def _say(self, text: str, always: bool = False) -> None:
        """A line for people; ``always`` for programs too."""
        if always or not self.as_json:
            typer.echo(text)

    def _lines(self, first: list[str], typed: bool) -> Iterator[str]:
        """Lines that say something, without the space around them."""
        yield from first
        if typed:
            with contextlib.suppress(ImportError):
                import readline  # noqa: F401  (editing and history of what is typed)
        while True:
            try:
                # the prompt of input() would stand in the output of a pipe
                line = input(f"{len(self.session) + 1}> ") if typed else sys.stdin.readline()
            except EOFError:
                typer.echo()
                return
            except KeyboardInterrupt:
                if not typed:
                    raise
                typer.echo()  # drops the line, as shells do
                continue
            if not typed and not line:
                return
            if line.strip():
                yield line.strip()


def _number(rest: str, usual: int, example: str) -> int:
    if not rest:
        return usual
    if not rest.isdecimal() or int(rest) < 1:
        raise XRetrieveError(f"{rest!r} is no number of results; write for example {example}")
    return int(rest)
