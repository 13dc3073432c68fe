"""What training says while it runs, on stderr: a bar per epoch on a terminal, elsewhere a line after each epoch."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from xretrieve.training.recipe import StageConfig

Shown = bool | Literal["lines"] | None
VALIDATED = ("headline", "rsum")  # the number of a validation that a line shows: the first that is there


class Bar:
    """A bar per epoch, or a line.

    Args:
        shown: True for the bar, "lines" for a line after each epoch, False for neither; None takes the bar where stderr
            is a terminal, else the lines.
        name: of the recipe, in the lines: trainings may run side by side.
    """

    def __init__(self, shown: Shown = None, name: str = "") -> None:
        terminal = sys.stderr.isatty()
        self.shown = shown is True or (shown is None and terminal)
        self.lines = shown == "lines" or (shown is None and not terminal)
        self.name = name
        self._bar: Any = None
        self._task: Any = None

    def start(self, text: str, total: int, done: int = 0) -> None:
        """Begin an epoch of ``total`` steps, ``done`` of them already made."""
        if not self.shown:
            return
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        self.stop()
        columns = [
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[said]}"),
        ]
        self._bar = Progress(*columns, console=Console(stderr=True), transient=True)
        self._bar.start()
        self._task = self._bar.add_task(text, total=total, completed=done, said="")

    def advance(self, said: str) -> None:
        """One step further."""
        if self._bar is not None:
            self._bar.update(self._task, advance=1, said=said)

    def epoch(self, rows: Sequence[dict[str, Any]], stages: Sequence[StageConfig], number: int) -> None:
        """An epoch of stage ``number`` is over; its row is the last one of the log."""
        if self.lines:
            print(epoch_line(self.name, rows, stages, number), file=sys.stderr, flush=True)

    def stop(self) -> None:
        """Take the bar away."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None


def epoch_line(name: str, rows: Sequence[dict[str, Any]], stages: Sequence[StageConfig], number: int) -> str:
    """What the last row of a log says, and how long the rest may take.

    The time left is that of this stage, at the pace of its epochs so far; later stages are named, as their epochs may
    be quicker or slower.

    Args:
        name: of the recipe.
        rows: of the log; the last one belongs to the stage.
        stages: of the recipe.
        number: of the stage.
    """
    stage, row = stages[number], rows[-1]
    said = [f"loss {row['loss']:.3f}"] if "loss" in row else []
    said += [f"validation {key} {row[key]:.1f}" for key in VALIDATED if key in row][:1]
    own = [float(r["seconds"]) for r in rows[-row["epoch"] :]]
    said.append(f"{own[-1]:.1f} s")
    left = (stage.epochs - row["epoch"]) * sum(own) / len(own)
    later = [f"{s.name} ({_epochs(s.epochs)})" for s in stages[number + 1 :] if not s.skip]
    here = " in this stage" if later else ""
    ahead = [f"about {duration(left)} left{here}"] if row["epoch"] < stage.epochs else []
    ahead += [f"then {', '.join(later)}"] if later else []
    tail = f"; {', '.join(ahead)}" if ahead else ""
    return f"{name + ', ' if name else ''}{stage.name} {row['epoch']}/{stage.epochs}: {', '.join(said)}{tail}"


def _epochs(count: int) -> str:
    return "1 epoch" if count == 1 else f"{count} epochs"


def duration(seconds: float) -> str:
    """A length of time for people.

    >>> duration(12.3), duration(150), duration(7260)
    ('12 s', '2 min 30 s', '2 h 1 min')
    """
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"
