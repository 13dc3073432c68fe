"""The command line that the scripts in ``benchmarks/quality`` share."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from xretrieve.bench.cells import Cells


def parser(doc: str | None, overrides: str, rows: Sequence[Any]) -> argparse.ArgumentParser:
    """``[KEY=VALUE ...] [--rows ...] [--seeds ...] [--out DIR]``."""
    made = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help=overrides)
    made.add_argument("--rows", nargs="+", help=f"of {', '.join(row.name for row in rows)}; default: all")
    made.add_argument("--seeds", nargs="+", type=int, default=[0])
    made.add_argument("--out", type=Path)
    return made


def run(cells: Cells, names: Sequence[str] | None, seeds: Sequence[int]) -> None:
    """Make the cells, say how far it is, and print the table."""
    for table in cells.run(names, seeds):
        print(f"{len(table['rows'])} rows, written to {cells.out}/table.md", flush=True)
    print((cells.out / "table.md").read_text(encoding="utf-8"))
