"""Make the built-in encoders of `scenes` again: two trainings on pictures of another seed, then small files and a card.

    python benchmarks/quality/scenes_encoders.py            # about 6 CPU minutes; writes xretrieve/data/scenes/encoders

The vocabulary is that of all sentences of the default train split. `multi_query/encoders-scenes-pictures` trains
pictures and region captions, `image_text/encoders-scenes-captions` captions on top of its pictures. They are stored in
float16.
"""

from __future__ import annotations

import argparse
import platform
from pathlib import Path

import torch
from safetensors.torch import save_file

import xretrieve as xr
from xretrieve.backbones.vocabulary import Vocabulary
from xretrieve.training.recipes import PACKAGE_DATA
from xretrieve.training.run_folder import Run
from xretrieve.utils.files import atomic_path, write_text

RECIPES = {"multi_query/encoders-scenes-pictures": {"pictures": "image", "sentences": "text"},
           "image_text/encoders-scenes-captions": {"captions": "text"}}  # fmt: skip
SHOWN = {"multi_query": ("round10_r1", "round10_r5"), "image_text": ("rsum", "t2i_r1", "i2t_r1")}
CARD = """# The built-in encoders of `scenes`

Small encoders of the drawn pictures and of the sentences about them, so that the `-frozen` recipes and `bench demo`
train heads only. They know nothing but these drawn shapes: they are of no use for photos.

| file | what | how to load it | parameters | bytes |
|---|---|---|---|---|
{files}
| `vocabulary.json` | the {words} words of all sentences of the default train split | | | {vocabulary} |

Made by `python benchmarks/quality/scenes_encoders.py`, which trains two recipes from scratch in float32:

| recipe | seed | epochs | measured on the test split of that set (500 pictures) |
|---|---|---|---|
{runs}

- **Data**: the train split of `scenes` with `seed: 1` (4,000 drawn pictures); the best epoch is chosen on its
  validation split. All other recipes and the demo use the pictures of seed 0: none of these was seen here, neither
  train nor validation nor test. Only the list of words comes from their train split.
- **What they favour**: the picture encoder was trained by HMRN on region captions, the caption encoder by TSHSR. A head
  of the same kind may find more in them than another. The recipes that train everything from scratch (`scenes-dual`,
  `scenes-tshsr`, `scenes-hmrn-t2i`, ...) have no such start.
- **Stored** as float16 safetensors, read as float32. Made with {versions}.
- **Licence**: Apache-2.0, as the rest of the package; pictures and sentences are drawn by it too.
"""


def main() -> None:
    """Train what is missing below --out, write the files and the card."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/scenes-encoders"), help="runs; finished ones are kept")
    parser.add_argument("--to", type=Path, default=PACKAGE_DATA / "scenes" / "encoders", help="files and card")
    given = parser.parse_args()
    write_vocabulary(given.to / "vocabulary.json")
    runs: list[Run] = []
    for recipe, files in RECIPES.items():
        folder = given.out / recipe.rsplit("/", 1)[-1]
        done = (folder / "report.json").is_file()
        runs.append(Run.open(folder) if done else xr.train(recipe, out=folder, resume=True))
        for name, part in files.items():  # the second recipe reads the first one's pictures
            export(runs[-1], part, given.to / f"{name}.safetensors")
    write_text(given.to / "README.md", card(runs, given.to))
    print(given.to / "README.md")


def write_vocabulary(path: Path) -> None:
    """Every word of the captions, region captions and changes of the default train split."""
    data = xr.datasets.load("scenes", split="train")
    said = [region.text for regions in data.regions for region in regions]
    changes = [text for triplet in data.triplets for text in triplet.texts]
    Vocabulary.build([*data.captions, *said, *changes], min_count=1).save(path)


def export(run: Run, part: str, path: Path) -> None:
    """The weights of one side of a run's best matcher, in float16."""
    state = getattr(run.matcher(), part).network.state_dict()
    small = {key: value.half() if value.is_floating_point() else value for key, value in state.items()}
    with atomic_path(path) as partial:
        save_file({key: value.contiguous().clone() for key, value in small.items()}, partial)


def card(runs: list[Run], folder: Path) -> str:
    """What README.md says, from the runs and the files as they are."""
    files, rows = [], []
    for run, parts in zip(runs, RECIPES.values(), strict=True):
        matcher = run.matcher()
        for name, part in parts.items():
            backbone, path = getattr(matcher, part), folder / f"{name}.safetensors"
            count = sum(value.numel() for value in backbone.network.state_dict().values())
            shown = ", ".join(f"{key}: {value}" for key, value in getattr(run.recipe, part).options.items()
                              if key not in ("vocab", "pretrained"))  # fmt: skip
            load = f"weights: built-in:scenes/encoders/{path.name}"
            files.append(
                f"| `{path.name}` | {backbone.name}, {shown} | `{load}` | {count:,} | {path.stat().st_size:,} |"
            )
        found = ", ".join(f"{name} {run.report[name]}" for name in SHOWN[run.recipe.task])
        epochs = sum(stage.epochs for stage in run.recipe.stages)
        rows.append(f"| `{run.recipe.name}` | {run.recipe.seed} | {epochs} | {found} |")
    vocabulary = folder / "vocabulary.json"
    versions = f"torch {torch.__version__.split('+')[0]}, Python {platform.python_version()}, {platform.machine()}"
    return CARD.format(files="\n".join(files), runs="\n".join(rows), words=len(Vocabulary.load(vocabulary)),
                       vocabulary=f"{vocabulary.stat().st_size:,}", versions=versions)  # fmt: skip


if __name__ == "__main__":
    main()
