"""A small Visual Genome in the public layout: lists, region graphs, region files that are pickles, photos."""

from __future__ import annotations

import json
import pickle
import sys
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

TRAIN, VAL, TEST = [11, 17, 3, 400], [18, 20], [25, 9, 58]
PHRASES = ("Red Bus on road", "a man ", "tall tree", "a man", "Tall tree", "blue sky", "two windows")


def region(number: int, phrase: str) -> dict[str, Any]:
    return {"region_id": number, "x": number, "y": 1, "width": 30, "height": 20, "phrase": phrase, "objects": []}


def graph(image: int, phrases: tuple[str, ...] = PHRASES) -> list[dict[str, Any]]:
    """Region ids fall while the file goes on, so file order and id order differ."""
    return [region(1000 * image + len(phrases) - k, phrase) for k, phrase in enumerate(phrases)]


def write_vg(root: Path, *, shape: str = "rg_jsons", nested: bool = True, phrases: tuple[str, ...] = PHRASES) -> Path:
    """Lists and phrases below ``root``; returns the dataset's folder."""
    folder = root / "visual_genome"
    lists, rest = (folder / "caches", folder / "vg") if nested else (folder, folder)
    for place in {lists, rest}:
        place.mkdir(parents=True, exist_ok=True)
    for split, ids in (("train", TRAIN), ("val", VAL), ("test", TEST)):
        (lists / f"vg_{split}.txt").write_text("".join(f"{i}\n" for i in ids))
    (lists / "raw_test.txt").write_text("".join(f"{i}\n" for i in [*TEST, 77]))
    images = [*TRAIN, *VAL, *TEST, 5]  # 5 is in no list
    if shape == "rg_jsons":
        (rest / shape).mkdir()
        for image in images:
            entry = {"image_id": image, "regions": graph(image, phrases)}
            (rest / shape / f"{image}.json").write_text(json.dumps(entry))
    else:
        key = "image_id" if shape == "region_graphs.json" else "id"
        entries = [{key: image, "regions": graph(image, phrases)} for image in images]
        (rest / shape).write_text(json.dumps(entries))
    return folder


def features_of(image: int, regions: int = 4, width: int = 6) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(image)
    return {
        "region_boxes": rng.uniform(0, 100, (regions, 4)).astype(np.float32),
        "region_feats": rng.standard_normal((regions, width)).astype(np.float32),
        "region_clses": rng.integers(0, 1600, regions).astype(np.int32),
    }


def write_features(folder: Path, ids: list[int], protocol: int = 2, **sizes: int) -> Path:
    """One pickle an image, named .npy as the public ones are."""
    raw = folder / "vg" / "region_36_final"
    raw.mkdir(parents=True, exist_ok=True)
    for image in ids:
        (raw / f"{image:012d}.npy").write_bytes(pickle.dumps(features_of(image, **sizes), protocol))
    return raw


def write_photos(folder: Path, ids: list[int]) -> None:
    """Half of them in each of the two public folders."""
    for number, image in enumerate(ids):
        place = folder / "vg" / ("VG_100K" if number % 2 else "VG_100K_2")
        place.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (40, 30), (image % 255, 80, 10)).save(place / f"{image}.jpg")


class Command:
    """Pickles as a call of a function."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.call = function, arguments

    def __reduce__(self) -> Any:
        return self.call


def vocabulary(words: dict[Any, Any], protocol: int) -> bytes:
    """A pickle as the published one: an object of the class Vocabulary of the script that was run."""
    main = sys.modules["__main__"]
    kind = type("Vocabulary", (), {"__module__": "__main__"})
    holder = kind()
    holder.__dict__.update(word2idx=words, idx2word={v: k for k, v in words.items()}, idx=len(words))
    main.Vocabulary = kind  # type: ignore[attr-defined]
    try:
        return pickle.dumps(holder, protocol)
    finally:
        del main.Vocabulary  # type: ignore[attr-defined]
