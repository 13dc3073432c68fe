"""Options that take several values after one another: ``--seeds 0 1 2`` as well as ``--seeds 0 --seeds 1``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from typer.core import TyperCommand


def spread(args: Sequence[str], names: Sequence[str]) -> list[str]:
    """Repeat an option before each of the values that follow it, up to the next option or ``key=value``.

    >>> spread(["--seeds", "0", "1", "--out", "a"], ["--seeds"])
    ['--seeds', '0', '--seeds', '1', '--out', 'a']
    """
    out: list[str] = []
    current = ""
    for arg in args:
        if arg.startswith("-"):
            current = arg if arg in names else ""
        elif current and "=" in arg:
            current = ""
        elif current and out[-1] != current:
            out.append(current)
        out.append(arg)
    return out


def several(*names: str) -> type[TyperCommand]:
    """A command class whose options of these names take several values."""

    class Several(TyperCommand):
        def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
            return super().parse_args(ctx, spread(args, names))

    return Several
