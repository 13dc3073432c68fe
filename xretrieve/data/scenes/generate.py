"""Writing the `scenes` files: pictures, annotations, triplets, and a summary with the ceilings."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from xretrieve.data.scenes.build import Picture, build_split
from xretrieve.data.scenes.ceiling import ceilings
from xretrieve.data.scenes.options import VERSION, SceneOptions
from xretrieve.data.scenes.render import Box, png_bytes, render
from xretrieve.data.scenes.scene import Scene
from xretrieve.utils.files import atomic_folder
from xretrieve.utils.processes import side_by_side

SPLITS = ("train", "val", "test")
CHUNK = 64  # pictures that a process draws before it hands them over


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
    total, done = sum(getattr(options, split) for split in SPLITS), 0
    meta: dict[str, Any] = {"name": "scenes", "version": VERSION, "options": asdict(options), "splits": {}}
    with atomic_folder(folder) as part:
        (part / "images").mkdir()
        built = {split: build_split(options, split) for split in SPLITS}
        drawn = _drawn([picture for pictures, _ in built.values() for picture in pictures], options.size, jobs)
        with (
            open(part / "annotations.jsonl", "w", encoding="utf-8", newline="\n") as rows,
            open(part / "triplets.jsonl", "w", encoding="utf-8", newline="\n") as triplets,
        ):
            for split, (pictures, changes) in built.items():
                for picture, (png, boxes) in zip(pictures, drawn):  # noqa: B905  the rest is of the next splits
                    (part / "images" / f"{picture.id}.png").write_bytes(png)
                    rows.write(json.dumps(_row(picture, split, boxes, options.size)) + "\n")
                    done += 1
                    if progress is not None:
                        progress(done, total)
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
                if pictures and split != "train":  # a score on the training pictures needs no ceiling
                    meta["splits"][split]["ceiling"] = ceilings(pictures, changes)
        (part / "meta.json").write_text(json.dumps(meta, indent=2) + "\n", encoding="utf-8")
    return folder


def _drawn(pictures: list[Picture], size: int, jobs: int) -> Iterator[tuple[bytes, list[Box]]]:
    """Each picture as a PNG, and the boxes of its things."""
    looks = [(picture.scene, picture.seed) for picture in pictures]
    chunks = [(looks[start : start + CHUNK], size) for start in range(0, len(looks), CHUNK)]
    if jobs == 1:
        return (one for chunk in chunks for one in _draw(*chunk))
    return (one for made in side_by_side(_draw, chunks, jobs) for one in made)


def _draw(looks: list[tuple[Scene, str]], size: int) -> list[tuple[bytes, list[Box]]]:
    drawn = [render(scene, seed, size) for scene, seed in looks]
    return [(png_bytes(pixels), boxes) for pixels, boxes in drawn]


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
