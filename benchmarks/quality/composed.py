"""The table of composed queries: every head and baseline, with and without each stage, strict and relaxed.

    python benchmarks/quality/composed.py [KEY=VALUE ...] [--data products] [--seeds 0 1 2]
        [--rows tirg progressive ...] [--out runs/composed/products]

The rows are those of ``xretrieve.bench.composed_cells``. A cell is one row trained with one seed, in OUT/cells; one
that is finished is not trained again, one that was stopped goes on, so rows and seeds can be added later. After every
cell OUT/table.md and OUT/table.json are written anew.
"""

from __future__ import annotations

from pathlib import Path

from xretrieve.bench.composed_cells import ROWS, ComposedCells
from xretrieve.bench.script import parser, run


def main(arguments: list[str] | None = None) -> None:
    """Make the cells that the command line asks for."""
    options = parser(__doc__, "keys of every row's recipe", ROWS)
    options.add_argument("--data", default="products", help="dataset with recipes composed/DATA-...")
    a = options.parse_args(arguments)
    run(ComposedCells(a.data, a.out or Path("runs/composed") / a.data, a.overrides), a.rows, a.seeds)


if __name__ == "__main__":
    main()
