"""The table of multi-query retrieval: recall after every round, of HMRN, Drill-down and the simple baselines.

    python benchmarks/quality/multi_query.py [KEY=VALUE ...] [--data flickr8k] [--seeds 0 1 2]
        [--rows hmrn-t2i drilldown ...] [--out runs/multi_query/flickr8k]

The rows are those of ``xretrieve.bench.set_cells``. A cell is one row trained with one seed, in OUT/cells; one that is
finished is not trained again, one that was stopped goes on, so rows and seeds can be added later. After every cell
OUT/table.md, OUT/table.json and OUT/rounds.png are written anew.
"""

from __future__ import annotations

from pathlib import Path

from xretrieve.bench.script import parser, run
from xretrieve.bench.set_cells import ROWS, SetCells


def main(arguments: list[str] | None = None) -> None:
    """Make the cells that the command line asks for."""
    options = parser(__doc__, "keys of every row's recipe", ROWS)
    options.add_argument("--data", default="flickr8k", help="dataset with recipes multi_query/DATA-...")
    a = options.parse_args(arguments)
    run(SetCells(a.data, a.out or Path("runs/multi_query") / a.data, a.overrides), a.rows, a.seeds)


if __name__ == "__main__":
    main()
