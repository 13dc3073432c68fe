"""The ablation table of the two-stream model: every row from one base recipe, at the same budget.

    python benchmarks/quality/image_text.py [KEY=VALUE ...] [--base image_text/flickr8k-tshsr] [--seeds 0 1 2]
        [--rows sgr-t2i tshsr ...] [--out runs/ablation]

The rows are those of ``xretrieve.bench.head_cells``: each changes what its name says and nothing else. A cell is one
row trained with one seed, in OUT/cells; one that is finished is not trained again, one that was stopped goes on, so
rows and seeds can be added later. After every cell OUT/table.md and OUT/table.json are written anew.
"""

from __future__ import annotations

from pathlib import Path

from xretrieve.bench.head_cells import ROWS, HeadCells
from xretrieve.bench.script import parser, run
from xretrieve.training.recipes import load_recipe


def main(arguments: list[str] | None = None) -> None:
    """Make the cells that the command line asks for."""
    options = parser(__doc__, "keys of the base recipe, for every row", ROWS)
    options.add_argument("--base", default="image_text/flickr8k-tshsr")
    options.add_argument("--fusion", choices=["mean", "logit"], help="of the averages; default: as the base trains")
    a = options.parse_args(arguments)
    cells = HeadCells(load_recipe(a.base, a.overrides), a.out or Path("runs/ablation"), a.fusion)
    run(cells, a.rows, a.seeds)


if __name__ == "__main__":
    main()
