"""What is killed: every way of writing something that is announced as finished, over small pictures and models.

Each has ``begin`` (what is there before), ``work`` (what is killed), and ``state`` (what a reader finds).
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from xretrieve.bench import leaderboard
from xretrieve.data.pictures import read_picture
from xretrieve.data.shards import ShardWriter, find_shards
from xretrieve.errors import XRetrieveError
from xretrieve.evaluation import Report, evaluate_scores
from xretrieve.gallery import Gallery
from xretrieve.tokens import Prepared, Tokens
from xretrieve.training.checkpoint import Progress, clean, find_point, load_model, load_progress, save_point


class MeanColours:
    """A matcher without weights: a picture is its mean colour."""

    name, source, head = "mean-colours", "", None

    def fingerprint(self) -> str:
        """Of nothing."""
        return "c0105"

    def encode_images(self, items: Any, **how: Any) -> Prepared:
        """Unit vectors (N, 3)."""
        rows = [np.asarray(read_picture(item), np.float32).reshape(-1, 3).mean(0) + 1 for item in items]
        return Prepared.from_pooled(torch.nn.functional.normalize(torch.tensor(np.array(rows)), dim=-1))

    def encode_query(self, query: Any) -> Prepared:
        """A picture's."""
        return self.encode_images([query.image])


@dataclass
class Step:
    """Something that writes.

    Args:
        name: for the table.
        begin: makes what is there before, in an empty folder.
        work: is killed.
        state: what is there, plain values; None for nothing.
    """

    name: str
    begin: Callable[[Path], None]
    work: Callable[[Path], None]
    state: Callable[[Path], Any]


def draw(folder: Path, count: int, seed: int) -> Path:
    """``count`` pictures of noise."""
    folder.mkdir(parents=True, exist_ok=True)
    for i in range(count):
        values = np.random.default_rng(100 * seed + i).integers(0, 256, (4, 4, 3), dtype=np.uint8)
        Image.fromarray(values).save(folder / f"{seed}-{i}.png")
    return folder


def _gallery(place: Path) -> Any:
    try:
        gallery = Gallery.open(place / "g.xr", MeanColours())  # type: ignore[arg-type]
    except XRetrieveError:
        if (place / "g.xr").exists():
            raise
        return None
    store = gallery._store
    vectors = [store.vectors([row])[0].round(5).tolist() for row in store.rows.values()]
    return {"of": sorted(zip(gallery.ids, map(str, vectors), strict=True)), "cascade": gallery.info.get("cascade")}


def _build(place: Path, overwrite: bool = False, index: str = "flat", photos: str = "photos") -> Gallery:
    matcher: Any = MeanColours()
    return Gallery.build(matcher, place / photos, place / "g.xr", index=index, overwrite=overwrite)


def _open(place: Path) -> Gallery:
    return Gallery.open(place / "g.xr", MeanColours())  # type: ignore[arg-type]


def _begin(place: Path, index: str = "flat", more: bool = True) -> None:
    draw(place / "photos", 4, 1)
    draw(place / "other", 3, 2)
    if more:
        _build(place, index=index)


def _fragmented(place: Path) -> None:
    _begin(place)
    gallery = _open(place)
    gallery.add(place / "other")
    gallery.remove("1-0.png")


def _prune(place: Path) -> None:
    gallery = _open(place)
    gallery.remove([id_ for id_ in ("1-0.png", "1-1.png") if id_ in gallery])


def _report(seed: int) -> Report:
    scores = np.random.default_rng(seed).standard_normal((6, 12))
    return evaluate_scores(scores, np.arange(12) // 2, bootstrap=5)


def _read_report(place: Path) -> Any:
    found = Report.load(place / "run")
    return {"rsum": found["rsum"].value, "ranks": found.t2i_ranks.tolist()}


def _point(place: Path, value: float) -> None:
    clean(place / "run")
    modules = torch.nn.ModuleDict({"a": torch.nn.Linear(3, 3)})
    with torch.no_grad():
        modules["a"].weight.fill_(value)
    save_point(place / "run", modules, None, {}, Progress(total=int(value)))


def _read_point(place: Path) -> Any:
    (place / "run").mkdir(exist_ok=True)
    clean(place / "run")
    point = find_point(place / "run")
    if point is None:
        return None
    modules = torch.nn.ModuleDict({"a": torch.nn.Linear(3, 3)})
    load_model(point, modules)
    return [load_progress(point).total, float(modules["a"].weight.detach()[0, 0])]


def _entry(name: str) -> dict[str, Any]:
    return {"fingerprint": name, "dataset": "d", "split": "test", "protocol": "p"}


def _shard(place: Path, key: bytes) -> None:
    if any(key == row.tobytes() for shard in find_shards(place) for row in shard.keys):
        return
    from xretrieve.utils.atomic import tidy_folder

    tidy_folder(place)
    writer = ShardWriter(place)
    writer.add([key], Tokens(torch.ones(1, 2, 3), torch.ones(1, 2, dtype=torch.bool), torch.ones(1, 3)))
    writer.flush()


def _read_shards(place: Path) -> Any:
    return sorted(row.tobytes().hex()[:4] for shard in find_shards(place) if shard.sound() for row in shard.keys)


def steps() -> list[Step]:
    """All of them."""
    board = "leaderboard.jsonl"
    return [
        Step("build", lambda p: _begin(p, more=False), lambda p: None if _gallery(p) else _build(p) and None, _gallery),
        Step("overwrite", _begin, lambda p: _build(p, True, photos="other") and None, _gallery),
        Step("add", _begin, lambda p: _open(p).add(p / "other") and None, _gallery),
        Step("add hnsw", lambda p: _begin(p, "hnsw"), lambda p: _open(p).add(p / "other") and None, _gallery),
        Step("prune", _begin, _prune, _gallery),
        Step("save", _fragmented, lambda p: _open(p).save(), _gallery),
        Step("tune", _begin, lambda p: _open(p).keep_cascade({"rerank": 7}), _gallery),
        Step("report", lambda p: _report(0).save(p / "run") and None, lambda p: _report(1).save(p / "run") and None,
             _read_report),
        Step("resume point", lambda p: _point(p, 1), lambda p: _point(p, 2), _read_point),
        Step("leaderboard", lambda p: leaderboard.append([_entry("a")], p / board) and None,
             lambda p: leaderboard.append([_entry("b")], p / board) and None,
             lambda p: json.loads(json.dumps([one["fingerprint"] for one in leaderboard.read(p / board)]))),
        Step("feature cache", lambda p: _shard(p, b"a" * 32), lambda p: _shard(p, b"b" * 32), _read_shards),
    ]  # fmt: skip
