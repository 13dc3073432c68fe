"""Writing the `scenes` files: pictures, annotations, triplets, and a summary with the ceilings."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from xretrieve.data.scenes.build import Picture, build_split
from xretrieve.data.scenes.ceiling import ceilings
from xretrieve.data.scenes.options import VERSION, SceneOptions
from xretrieve.data.scenes.render import Box, png_bytes, render
from xretrieve.utils.files import atomic_folder

SPLITS = ("train", "val", "test")


def generate(folder: str | Path, options: SceneOptions, progress: Callable[[int, int], None] | None = None) -> Path:
    """Write the whole dataset to ``folder``, which appears only when it is complete.

    Args:
        folder: where; an existing one is replaced.
        options: what to make.
        progress: called with (pictures done, pictures in all).

    Returns:
        ``folder`` with ``images/<id>.png``, ``annotations.jsonl``, ``triplets.jsonl`` and ``meta.json``.
    """
    folder = Path(folder)
    total, done = sum(getattr(options, split) for split in SPLITS), 0
    meta: dict[str, Any] = {"name": "scenes", "version": VERSION, "options": asdict(options), "splits": {}}
    with atomic_folder(folder) as part:
        (part / "images").mkdir()
        with (
            open(part / "annotations.jsonl", "w", encoding="utf-8", newline="\n") as rows,
            open(part / "triplets.jsonl", "w", encoding="utf-8", newline="\n") as triplets,
        ):
            for split in SPLITS:
                pictures, changes = build_split(options, split)
                for picture in pictures:
                    pixels, boxes = render(picture.scene, picture.seed, options.size)
                    (part / "images" / f"{picture.id}.png").write_bytes(png_bytes(pixels))
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
