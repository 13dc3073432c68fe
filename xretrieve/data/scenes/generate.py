"""Writing the `scenes` files: pictures, annotations, triplets, and a summary with the ceilings."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from xretrieve.data.scenes.build import Change, Picture, build_split
from xretrieve.data.scenes.ceiling import ceilings
from xretrieve.data.scenes.options import VERSION, SceneOptions
from xretrieve.data.scenes.render import Box, png_bytes, render
from xretrieve.data.scenes.scene import Scene
from xretrieve.utils.files import atomic_folder
from xretrieve.utils.processes import side_by_side

SPLITS = ("train", "val", "test")
CHUNK = 64  # pictures that a process draws at a time


def generate(
    folder: str | Path, options: SceneOptions, progress: Callable[[int, int], None] | None = None, jobs: int = 1
) -> Path:
    """Write the whole dataset to ``folder``, which appears only when it is complete.

    Args:
        folder: where; an existing one is replaced.
        options: what to make.
        progress: called with (pictures done, pictures in all).
        jobs: processes that draw (:func:`xretrieve.utils.processes.side_by_side`); the files are the same.

    Returns:
        ``folder`` with ``images/<id>.png``, ``annotations.jsonl``, ``triplets.jsonl`` and ``meta.json``.
    """
    folder = Path(folder)
    total, count = sum(getattr(options, split) for split in SPLITS), itertools.count(1)
    meta: dict[str, Any] = {"name": "scenes", "version": VERSION, "options": asdict(options), "splits": {}}
    built: dict[str, tuple[list[Picture], list[Change]]] = {}
    asked: list[str] = []  # the split of each piece of work

    def told(made: Any) -> None:
        if progress is not None and isinstance(made, list):
            for _ in made:
                progress(next(count), total)

    with atomic_folder(folder) as part:
        (part / "images").mkdir()

        def pieces() -> Iterator[tuple[Any, ...]]:
            for split in reversed(SPLITS):  # train last: the words of its pictures are made while others are drawn
                pictures, changes = built[split] = build_split(options, split)
                if pictures and split != "train":  # a score on the training pictures needs no ceiling
                    asked.append(split)
                    yield ceilings, pictures, changes
                for start in range(0, len(pictures), CHUNK):
                    asked.append(split)
                    looks = [(one.id, one.scene, one.seed) for one in pictures[start : start + CHUNK]]
                    yield _draw, part / "images", looks, options.size

        made = side_by_side(_call, pieces(), jobs, told)
        with (
            open(part / "annotations.jsonl", "w", encoding="utf-8", newline="\n") as rows,
            open(part / "triplets.jsonl", "w", encoding="utf-8", newline="\n") as triplets,
        ):
            for split in SPLITS:
                pictures, changes = built[split]
                own = [piece for name, piece in zip(asked, made, strict=True) if name == split]
                drawn = [boxes for piece in own if isinstance(piece, list) for boxes in piece]
                for picture, boxes in zip(pictures, drawn, strict=True):
                    rows.write(json.dumps(_row(picture, split, boxes, options.size)) + "\n")
                for change in changes:
                    triplets.write(
                        json.dumps(
                            {
                                "split": split,
                                "reference": pictures[change.reference].id,
                                "target": pictures[change.target].id,
                                "texts": change.texts,
                                "kind": change.edit.kind,
                            }
                        )
                        + "\n"
                    )
                meta["splits"][split] = {
                    "pictures": len(pictures),
                    "captions": sum(len(p.captions) for p in pictures),
                    "pictures_in_families": sum(p.family_size > 1 for p in pictures),
                    "triplets": len(changes),
                }
                for ceiling in (piece for piece in own if isinstance(piece, dict)):
                    meta["splits"][split]["ceiling"] = ceiling
        (part / "meta.json").write_text(json.dumps(meta, indent=2) + "\n", encoding="utf-8")
    return folder


def _call(work: Callable[..., Any], *arguments: Any) -> Any:
    return work(*arguments)


def _draw(folder: Path, looks: list[tuple[str, Scene, str]], size: int) -> list[list[Box]]:
    """Draw pictures (their ids, scenes and seeds) into a folder; the boxes of their things."""
    drawn = []
    for name, scene, seed in looks:
        pixels, boxes = render(scene, seed, size)
        (folder / f"{name}.png").write_bytes(png_bytes(pixels))
        drawn.append(boxes)
    return drawn


def _row(picture: Picture, split: str, boxes: list[Box], size: int) -> dict[str, Any]:
    scene = picture.scene
    regions = []
    for text, _, subject in picture.turns:
        if isinstance(subject, tuple):
            edges = [round(i * size / 3) for i in range(4)]
            row, col = subject
            box = (edges[col], edges[row], edges[col + 1] - edges[col], edges[row + 1] - edges[row])
        else:
            box = boxes[next(i for i, t in enumerate(scene.things) if t is subject)]
        regions.append({"box": box, "text": text})
    return {
        "id": picture.id,
        "split": split,
        "family": picture.family,
        "family_size": picture.family_size,
        "background": scene.background,
        "objects": [{**asdict(t), "box": box} for t, box in zip(scene.things, boxes, strict=True)],
        "captions": [text for text, _ in picture.captions],
        "regions": regions,
    }
