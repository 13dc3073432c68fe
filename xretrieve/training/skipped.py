"""Pictures that training had to leave out: said once on stderr, kept in the run folder, repeated in its report."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path

from xretrieve.training.build import Split
from xretrieve.utils.files import read_json, write_json

NAME = "skipped.json"
SHOWN = 3  # names in a message


def note_skipped(folder: Path, splits: Iterable[Split]) -> None:
    """Write ``skipped.json`` and say what is in it; nothing where nothing was skipped or it is known already.

    Args:
        folder: the run folder.
        splits: train and validation, with their feeds.
    """
    found = {s.dataset.split: [list(pair) for pair in s.images.failed] for s in splits if s.images.failed}
    if not found or ((folder / NAME).is_file() and read_json(folder / NAME) == found):
        return
    write_json(folder / NAME, found)
    for line in skipped_warnings(folder):
        print(f"warning: {line}", file=sys.stderr)


def skipped_warnings(folder: Path) -> list[str]:
    """One line per split: how many pictures were left out, and the first names with their reasons."""
    if not (folder / NAME).is_file():
        return []
    lines = []
    for split, failed in read_json(folder / NAME).items():
        first = "; ".join(f"{name}: {reason}" for name, reason in failed[:SHOWN])
        more = f"; and {len(failed) - SHOWN} more in {NAME}" if len(failed) > SHOWN else ""
        pictures = "1 picture" if len(failed) == 1 else f"{len(failed)} pictures"
        lines.append(f"{pictures} of {split} could not be read and took no part in training ({first}{more})")
    return lines
