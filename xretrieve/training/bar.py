"""The progress bar of training: rich, on stderr, on a terminal only."""

from __future__ import annotations

import sys
from typing import Any


class Bar:
    """A bar per epoch.

    Args:
        shown: True or False; None shows it when stderr is a terminal.
    """

    def __init__(self, shown: bool | None = None) -> None:
        self.shown = sys.stderr.isatty() if shown is None else shown
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

    def stop(self) -> None:
        """Take the bar away."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None
