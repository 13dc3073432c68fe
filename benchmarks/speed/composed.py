"""Composed queries: how fast stage 3 learns from cached features, and how long a search of many items takes.

    python benchmarks/speed/composed.py [KEY=VALUE ...] [--recipes composed/products-progressive composed/products-tirg]
        [--steps 60] [--index INDEX] [--size 100000] [--queries 50] [--indexes flat hnsw] [--noise 0.1]
        [--out FILE.json]

Training: stage 3 of each recipe alone, with the features of its backbones in the cache; queries per CPU second between
the first and the last step, validation and reading left out. Searching: INDEX is a gallery of a composed head over
files; its vectors are repeated up to --size, every copy with noise of its own. A query is a whole `gallery.search` of a
picture file and a text, k = 10; what of it is the model (decoding, both backbones, the head) is told apart, and so is
the same search with a text alone. Medians; one process.
"""

from __future__ import annotations

# ruff: noqa: E402
import argparse
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # run as a file, it finds its neighbours too

from benchmarks.speed.search import K, indexed, waits
from xretrieve.evaluation.provenance import versions
from xretrieve.gallery import Gallery
from xretrieve.gallery.items import Item
from xretrieve.gallery.store import Store
from xretrieve.gallery.vector_index import GalleryIndex
from xretrieve.query import ImageText, Text
from xretrieve.training.recipes import load_recipe
from xretrieve.training.run import train
from xretrieve.utils.files import write_json

CHANGES = ["in blue", "in red", "for women", "for men", "with stripes", "make it a shirt", "for sports", "in black"]


class EnoughError(Exception):
    """All steps that were asked for are measured."""


def training(name: str, steps: int, overrides: list[str] | None = None) -> dict[str, Any]:
    """CPU seconds of ``steps`` optimizer steps of a recipe's stage 3, after one that is not counted."""
    recipe = load_recipe(name, [*(overrides or []), "stages.0.skip=true"])
    stage = recipe.stages[-1]
    at: list[tuple[float, float]] = []

    def step(_: int) -> None:
        at.append((time.process_time(), time.perf_counter()))
        if len(at) > steps:
            raise EnoughError

    with tempfile.TemporaryDirectory() as place:
        try:
            train(recipe, out=Path(place) / "run", on_step=step)
        except EnoughError:
            pass
    each = np.diff(np.array(at), axis=0)  # (steps, 2): CPU and wall seconds
    cpu, wall = np.median(each, axis=0)
    return {"recipe": recipe.name, "head": recipe.head.name if recipe.head else "", "batch": stage.batch_size,
            "steps": len(each), "cpu_ms": 1000 * cpu, "wall_ms": 1000 * wall,
            "queries_per_cpu_s": stage.batch_size / cpu}  # fmt: skip


def grown(source: Gallery, size: int, noise: float, folder: Path) -> Gallery:
    """A gallery of ``size`` items like those of ``source``: the first copy is exact, the others have noise."""
    store, random = Store.open(source.path), np.random.default_rng(0)
    own = store.vectors(store.live()).astype(np.float32)
    vectors = own[np.arange(size) % len(own)]
    vectors[len(own) :] += noise * random.standard_normal(vectors[len(own) :].shape, np.float32) / own.shape[1] ** 0.5
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    place = folder / f"{size}.xr"
    place.mkdir()
    new = Store.create(place, own.shape[1], store.info["matcher"], {"name": "flat", "options": {}})
    new.change(items=[Item(str(row)) for row in range(size)], vectors=vectors, failed=[])
    GalleryIndex(new).write()
    return Gallery(Store.open(place), source.matcher)


@torch.inference_mode()
def searching(index: Path, size: int, queries: int, indexes: list[str], noise: float) -> list[dict[str, Any]]:
    """Waiting times of composed searches of ``size`` items, for each kind of index."""
    source = Gallery.open(index)
    pictures = [path for path in map(source.picture, source.ids[:queries]) if path is not None]
    changes = [f"{CHANGES[i % len(CHANGES)]} {i}" for i in range(queries)]
    asked = {text: ImageText(pictures[i % len(pictures)], text.rsplit(" ", 1)[0]) for i, text in enumerate(changes)}
    rows = [{"what": "model alone", **waits([lambda text: source.matcher.encode_query(asked[text])], changes)}]
    with tempfile.TemporaryDirectory() as place:
        gallery = grown(source, size, noise, Path(place))
        for name in indexes:
            gallery, told = indexed(gallery, name)

            def composed(text: str, gallery: Gallery = gallery) -> Any:
                return gallery.search(asked[text], K)

            def plain(text: str, gallery: Gallery = gallery) -> Any:
                return gallery.search(Text(asked[text].text), K)

            rows.append({"what": f"{name}, picture and change", "size": size, **told, **waits([composed], changes)})
            rows.append({"what": f"{name}, text alone", "size": size, **told, **waits([plain], changes)})
    return rows


def main(arguments: list[str] | None = None) -> dict[str, Any]:
    """Measure, print, and write what ``--out`` asks for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="keys of every recipe")
    parser.add_argument("--recipes", nargs="*", default=["composed/products-progressive", "composed/products-tirg"])
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--index", type=Path)
    parser.add_argument("--size", type=int, default=100_000)
    parser.add_argument("--queries", type=int, default=50)
    parser.add_argument("--indexes", nargs="+", default=["flat", "hnsw"])
    parser.add_argument("--noise", type=float, default=0.1)
    parser.add_argument("--out", type=Path)
    a = parser.parse_args(arguments)
    found = {
        "training": [training(name, a.steps, a.overrides) for name in a.recipes],
        "searching": searching(a.index, a.size, a.queries, a.indexes, a.noise) if a.index else [],
        "versions": versions(),
    }
    for row in found["training"]:
        print(f"{row['recipe']}: {row['cpu_ms']:.0f} CPU ms a step of {row['batch']} ({row['wall_ms']:.0f} ms wall), "
              f"{row['queries_per_cpu_s']:.0f} queries per CPU s")  # fmt: skip
    for row in found["searching"]:
        print(f"{row['what']}: p50 {row['p50_ms']:.1f} ms, p95 {row['p95_ms']:.1f} ms, {row['cpu_ms']:.1f} CPU ms")
    print(", ".join(f"{k} {v}" for k, v in found["versions"].items()))
    if a.out:
        write_json(a.out, found)
    return found


if __name__ == "__main__":
    main()
