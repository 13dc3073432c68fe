"""A progress bar on stderr."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


def bar(jobs: Sequence[Any], what: str, progress: bool) -> Any:
    """The jobs, with a progress bar on stderr if wanted."""
    if not progress:
        return jobs
    from rich.console import Console
    from rich.progress import track

    return track(jobs, what, console=Console(stderr=True), transient=True)
