"""Ranked lists of composed queries as files: TREC run and qrels, and the two files of CIRR's evaluation server."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from xretrieve.data.triplets import ComposedDataset, composed
from xretrieve.errors import XRetrieveError
from xretrieve.evaluation.candidates import ordered, removed
from xretrieve.evaluation.composed_protocols import ComposedProtocol, find
from xretrieve.evaluation.composed_vectors import Asked, Vectors
from xretrieve.evaluation.trec import trec_id
from xretrieve.utils.files import write_text

DEPTH = 100  # of TREC runs
BEST, BEST_OF_SUBSET = 50, 3  # what CIRR's server reads
LIMIT = 5 * 2**20  # bytes that it takes
Score = Callable[[np.ndarray, np.ndarray], np.ndarray]


def write_composed(
    folder: str | Path, score: Score, queries: Asked, data: ComposedDataset, protocol: ComposedProtocol,
    *, tag: str = "xretrieve", block: int = 512,
) -> Path:  # fmt: skip
    """Write ``composed.run`` and ``composed.qrels`` (relevant: the target)."""
    folder, lines, qrels = Path(folder), [], []
    for row, places, values, gallery in _lists(score, queries, data, protocol, DEPTH, block):
        name = trec_id(queries.ids[row])
        for rank, (place, value) in enumerate(zip(places, values, strict=True), 1):
            image = trec_id(data.image_ids[gallery[place]])
            lines.append(f"{name} Q0 {image} {rank} {value:.9g} {trec_id(tag) or 'xretrieve'}\n")
        target = data.triplets[queries.pair[row]].target
        qrels.append(f"{name} 0 {trec_id(data.image_ids[target])} 1\n")
    write_text(folder / "composed.run", "".join(lines))
    write_text(folder / "composed.qrels", "".join(qrels))
    return folder


def write_cirr(
    folder: str | Path, matcher: Any, dataset: Any, *, cache: Any = None, batch_size: int = 64, progress: bool = False
) -> list[Path]:
    """Write ``recall.json`` and ``recall_subset.json`` for CIRR's server: the 50 best, and the 3 best of each subset.

    Args:
        folder: where.
        dataset: a split of CIRR with all its photos, usually ``test`` (test1).
    """
    data = composed(dataset)
    if data.name != "cirr":
        raise XRetrieveError(f"the server's files are for cirr, not for {data.name}")
    if data.lost or len(data) < data.expected_images:
        raise XRetrieveError(
            f"cirr/{data.split}: {data.expected_images - len(data):,} photos are missing; the server wants a list for "
            "every query, ranked among all images"
        )
    vectors = Vectors(matcher, data, cache, batch_size, progress)
    queries, _ = vectors.queries("single")
    rule = next(iter(data.galleries))
    protocol = find("cirr")
    assert protocol is not None
    gallery = data.gallery(rule).rows

    def score(rows: np.ndarray, images: np.ndarray) -> np.ndarray:
        return vectors.scores("single", rows, images)

    best: dict[str, Any] = {"version": "rc2", "metric": "recall"}
    subset: dict[str, Any] = {"version": "rc2", "metric": "recall_subset"}
    for row, places, _, _ in _lists(score, queries, data, protocol, len(data), 512, rule):
        triplet = data.triplets[queries.pair[row]]
        names = [data.image_ids[gallery[p]] for p in places]
        members = {data.image_ids[m] for m in triplet.members}
        best[triplet.id] = names[:BEST]
        subset[triplet.id] = [name for name in names if name in members][:BEST_OF_SUBSET]
    written = []
    for values in (best, subset):
        text = json.dumps(values, ensure_ascii=False, separators=(",", ":"))
        if len(text.encode()) > LIMIT:
            raise XRetrieveError(f"{values['metric']}.json would have {len(text.encode()):,} bytes; the server takes "
                                 f"{LIMIT:,}")  # fmt: skip
        path = Path(folder) / f"{values['metric']}.json"
        write_text(path, text)
        written.append(path)
    return written


def _lists(
    score: Score, queries: Asked, data: ComposedDataset, protocol: ComposedProtocol, depth: int, block: int,
    rule: str = "",
) -> Iterator[tuple[int, list[int], list[float], np.ndarray]]:  # fmt: skip
    """Each query's row, its best gallery positions and their scores, and the gallery's image rows."""
    category = np.array([data.triplets[p].category for p in queries.pair], dtype=str)
    for one in dict.fromkeys(category.tolist()):
        gallery = data.gallery(rule or protocol.rule, one).rows
        place = np.full(len(data), -1)
        place[gallery] = np.arange(len(gallery))
        own = np.flatnonzero(category == one)
        for start in range(0, len(own), block):
            rows = own[start : start + block]
            scores = score(rows, gallery)
            gone = place[queries.reference[rows]] if protocol.reference == "removed" else np.full(len(rows), -1)
            listed = ordered(scores, removed(scores.shape, gone), depth).tolist()
            for line, row in enumerate(rows):
                kept = [p for p in listed[line] if p >= 0]
                yield int(row), kept, scores[line, kept].tolist(), gallery
