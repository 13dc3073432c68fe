"""Evaluation of composed queries: the rank of the target among each query's candidates, under named protocols."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from xretrieve.data.base import RetrievalDataset
from xretrieve.data.modifications import query_texts
from xretrieve.data.triplets import ComposedDataset, composed
from xretrieve.errors import XRetrieveError
from xretrieve.evaluation.candidates import (
    CandidateCounts,
    average_precision,
    candidate_counts,
    member_counts,
    removed,
)
from xretrieve.evaluation.composed_metrics import (
    MAP_K,
    ComposedCounts,
    ComposedSetting,
)
from xretrieve.evaluation.composed_protocols import USUAL, ComposedProtocol, find, usual
from xretrieve.evaluation.composed_report import ComposedReport
from xretrieve.evaluation.composed_samples import choose_composed_samples, composed_pictures
from xretrieve.evaluation.composed_vectors import Asked, Vectors, asked
from xretrieve.evaluation.data_digests import data_digests
from xretrieve.evaluation.measure import measure
from xretrieve.evaluation.metrics import values_of
from xretrieve.evaluation.provenance import identity, row_name, scored_in, stamp, versions
from xretrieve.evaluation.samples import thumbnail

BLOCK = 512  # queries scored at once
Score = Callable[[np.ndarray, np.ndarray], np.ndarray]  # query rows (q,), image rows (g,) -> (q, g)


def evaluate_composed(
    matcher: Any,
    dataset: RetrievalDataset,
    protocol: str | ComposedProtocol | None = None,
    cache: Any = None,
    batch_size: int = 64,
    progress: bool = False,
    bootstrap: int = 1000,
    seed: int = 0,
    *,
    name: str = "",
    trec: str | Path | None = None,
    allow_missing: bool | None = None,
    vectors: Vectors | None = None,
) -> ComposedReport:
    """Rank the gallery for every composed query.

    Args:
        matcher, cache, batch_size, progress: see :class:`~xretrieve.evaluation.composed_vectors.Vectors`.
        dataset: a split with triplets.
        protocol: a name; None takes the usual one of the dataset.
        bootstrap, seed: resamples of the 95 % intervals over pairs, 0 for none.
        name: the row's name in tables.
        trec: a folder for a TREC run and qrels.
        allow_missing: evaluate although photos are missing; None: as the dataset says.
        vectors: already encoded, for several protocols in turn.

    Raises:
        XRetrieveError: a protocol of another dataset, hidden targets, or missing photos that nobody allowed.
    """
    data = composed(dataset)
    chosen = _protocol(protocol, data)
    check_scored(data, chosen, data.allow_missing if allow_missing is None else allow_missing)
    wall, cpu = time.perf_counter(), time.process_time()
    vectors = vectors or Vectors(matcher, data, cache, batch_size, progress)
    queries, _ = vectors.queries(chosen.mode)

    def score(rows: np.ndarray, images: np.ndarray) -> np.ndarray:
        return vectors.scores(chosen.mode, rows, images)

    report = _report(score, queries, data, chosen, bootstrap, seed)
    report.name, report.matcher, report.precision = row_name(matcher, name), identity(matcher), scored_in(matcher)
    report.samples = choose_composed_samples(score, report.counts, queries, data, chosen, seed=seed)
    row = {image: i for i, image in enumerate(data.image_ids)}
    shown = {image: thumbnail(data.images[row[image]]) for image in composed_pictures(report.samples)}
    report.thumbnails = {image: jpeg for image, jpeg in shown.items() if jpeg is not None}
    report.seconds = {"wall": time.perf_counter() - wall, "cpu": time.process_time() - cpu}
    if trec is not None:
        from xretrieve.evaluation.composed_lists import write_composed

        write_composed(trec, score, queries, data, chosen, tag=report.name)
    return report


def evaluate_all(
    matcher: Any, dataset: RetrievalDataset, protocols: Sequence[str | ComposedProtocol] | None = None,
    cache: Any = None, batch_size: int = 64, progress: bool = False, bootstrap: int = 1000, seed: int = 0, *,
    name: str = "", allow_missing: bool | None = None,
) -> list[ComposedReport]:  # fmt: skip
    """One report for each protocol (those of the dataset for None); every image is encoded once.

    A protocol whose gallery list is not here is left out; when none is left that is an error.
    """
    data = composed(dataset)
    wanted = [_protocol(p, data) for p in protocols or USUAL.get(data.name, (None,))]
    here = [p for p in wanted if _listed(data, p)]
    if not here:
        raise XRetrieveError(f"{data.name}/{data.split} has no gallery of the protocols "
                             f"{', '.join(p.name for p in wanted)}")  # fmt: skip
    for protocol in here:
        check_scored(data, protocol, data.allow_missing if allow_missing is None else allow_missing)
    vectors = Vectors(matcher, data, cache, batch_size, progress)
    return [
        evaluate_composed(matcher, data, p, cache, batch_size, progress, bootstrap, seed, name=name,
                          allow_missing=allow_missing, vectors=vectors)
        for p in here
    ]  # fmt: skip


def evaluate_composed_scores(
    scores: Any, dataset: RetrievalDataset, protocol: str | ComposedProtocol | None = None, *, bootstrap: int = 1000,
    seed: int = 0, name: str = "scores", allow_missing: bool | None = None,
) -> ComposedReport:  # fmt: skip
    """The same from scores (Q, N) of every query (:func:`asked`) and every image of the dataset, for other tools."""
    data = composed(dataset)
    chosen = _protocol(protocol, data)
    check_scored(data, chosen, data.allow_missing if allow_missing is None else allow_missing)
    queries, scores = asked(data, chosen.mode), np.asarray(scores)
    if scores.shape != (len(queries), len(data)):
        raise XRetrieveError(
            f"scores of composed queries are queries x images {(len(queries), len(data))}, got {scores.shape}"
        )
    report = _report(lambda rows, images: scores[np.ix_(rows, images)], queries, data, chosen, bootstrap, seed)
    report.name = name
    return report


def composed_metrics(scores: Any, dataset: RetrievalDataset, protocol: str | ComposedProtocol | None = None) -> dict[
    str, float
]:  # fmt: skip
    """The metrics alone, for validation while training; missing photos are taken as they are."""
    report = evaluate_composed_scores(scores, dataset, protocol, bootstrap=0, allow_missing=True)
    return dict(report.metrics.values)


def _protocol(protocol: str | ComposedProtocol | None, data: ComposedDataset) -> ComposedProtocol:
    if protocol is None:
        return usual(data.name)
    from xretrieve.evaluation.protocols import get_protocol

    chosen = (find(protocol) or get_protocol(protocol)) if isinstance(protocol, str) else protocol
    if not isinstance(chosen, ComposedProtocol):
        raise XRetrieveError(f"protocol {chosen.name!r} is not one of composed queries; {data.name} has "
                             f"{', '.join(USUAL.get(data.name, (usual(data.name).name,)))}")  # fmt: skip
    chosen.fits(data.name)
    return chosen


def _listed(data: ComposedDataset, protocol: ComposedProtocol) -> bool:
    return any(name.partition("/")[0] == protocol.rule for name in data.galleries)


def check_scored(data: ComposedDataset, protocol: ComposedProtocol, allow: bool) -> None:
    """Errors before the hours of training or encoding: another dataset's protocol, hidden targets, missing photos."""
    protocol.fits(data.name)
    where = f"{data.name}/{data.split}"
    if data.hidden:
        raise XRetrieveError(f"{where}: its targets are not public; evaluate --split val (for CIRR test1, --server "
                             "FOLDER writes the files of its evaluation server)")  # fmt: skip
    if protocol.rule == "val-list" and not _listed(data, protocol):
        raise XRetrieveError(f"protocol {protocol.name!r} needs VAL's own list; put it to shoes/val/eval_im_names.txt "
                             "(yanbeic/VAL, datasets/shoes)")  # fmt: skip
    galleries = [data.gallery(protocol.rule, category) for category in data.categories]
    gone = sum(gallery.listed - len(gallery.rows) for gallery in galleries)
    if (gone or data.lost) and not allow:
        first = list(dict.fromkeys(i for lost in data.lost for i in lost.missing))[:3]
        named = f" (first: {', '.join(first)})" if first else ""
        raise XRetrieveError(
            f"{where}: {gone:,} of {sum(g.listed for g in galleries):,} gallery photos and {len(data.lost):,} queries "
            f"are missing{named}. allow_missing=true (--allow-missing) evaluates what is here, and prints both values"
        )


def _report(
    score: Score, queries: Asked, data: ComposedDataset, protocol: ComposedProtocol, bootstrap: int, seed: int
) -> ComposedReport:
    counts = count(score, queries, data, protocol)
    galleries = {category: data.gallery(protocol.rule, category) for category in data.categories}
    here = counts.here
    setting = ComposedSetting(
        protocol.name, data.name, data.split, len(data), int(here.sum()), data.expected_images, protocol.ties, 1,
        bootstrap, seed, protocol.rule, protocol.reference, protocol.mode,
        {category: gallery.listed for category, gallery in galleries.items()},
        {category: len(gallery.rows) for category, gallery in galleries.items()},
        _sizes(counts), int((~here).sum()), counts.unreachable, counts.tied, len(data.triplets),
    )  # fmt: skip
    warnings = [w for c, g in galleries.items() for w in protocol.check_gallery(c, data.split, g.listed)]
    if setting.coverage < 1:
        share = f"{100 * setting.coverage:.4g} %"
        warnings.append(f"only {share} of the gallery's photos are here; a smaller gallery makes recalls higher")
    metrics = measure(setting, partial(ComposedReport.folds, counts, protocol))
    return ComposedReport(
        name="",
        metrics=metrics,
        protocol=protocol,
        counts=counts,
        image_ids=list(data.image_ids),
        caption_ids=[*queries.ids, *(f"lost {k}" for k in range(int((~here).sum())))],
        dataset={"name": data.name, "split": data.split, "layout": data.layout, "images": len(data),
                 "captions": len(queries), "expected_images": data.expected_images,
                 **data_digests(data.image_ids, data.metadata, [t for one in data.triplets for t in one.texts])},
        versions=versions(),
        warnings=warnings,
        created=stamp(),
        about={"data": "; ".join(data.notes)} if data.notes else {},
        with_lost=values_of(metrics.columns) if setting.lost else {},
    )  # fmt: skip


def count(score: Score, queries: Asked, data: ComposedDataset, protocol: ComposedProtocol) -> ComposedCounts:
    """Ranks of all queries, category by category; queries without their photos stand at the end, as misses."""
    triplets = [data.triplets[p] for p in queries.pair]
    q = len(triplets)
    target = np.array([t.target for t in triplets], np.int64)
    category = np.array([t.category for t in triplets], dtype=str)
    wide = max((len(t.members) for t in triplets), default=0) if protocol.metrics == "subset" else 0
    counts = {name: CandidateCounts(np.zeros(q, np.int64), np.zeros(q, np.int64), np.zeros(q, bool))
              for name in ("strict", "relaxed", "subset")}  # fmt: skip
    precision = np.zeros(q)
    for one in dict.fromkeys(category.tolist()):
        gallery = data.gallery(protocol.rule, one).rows
        place = np.full(len(data) + 1, -1)  # the last entry stands for "no image"
        place[gallery] = np.arange(len(gallery))
        members = np.flatnonzero(category == one)
        for start in range(0, len(members), BLOCK):
            rows = members[start : start + BLOCK]
            scores, ids = score(rows, gallery), [queries.ids[row] for row in rows]
            own, reference = place[target[rows]], place[queries.reference[rows]]
            kept = removed(scores.shape, reference if protocol.reference == "removed" else np.full(len(rows), -1))
            found = {"strict": candidate_counts(scores, own, kept, ids)}
            if protocol.metrics == "relaxed":
                fits = np.zeros((len(rows), len(gallery) + 1), bool)  # a positive outside the gallery goes last
                for line, row in enumerate(rows):
                    fits[line, place[list(triplets[row].positives or (target[row],))]] = True
                fits = fits[:, :-1]
                found["relaxed"] = candidate_counts(scores, fits, kept, ids)
                precision[rows] = average_precision(scores, fits, kept, [MAP_K])[:, 0]
            if wide:
                small = np.array([[*triplets[r].members, *[-1] * (wide - len(triplets[r].members))] for r in rows])
                found["subset"] = member_counts(scores, place[small], reference, own)
            for name, part in found.items():
                for field in ("greater", "equal", "reachable"):
                    getattr(counts[name], field)[rows] = getattr(part, field)
    if protocol.metrics != "relaxed":
        counts["relaxed"] = counts["strict"]
    return _with_lost(counts, precision, triplets, queries, data, protocol)


def _with_lost(
    counts: dict[str, CandidateCounts], precision: np.ndarray, triplets: Sequence[Any], queries: Asked,
    data: ComposedDataset, protocol: ComposedProtocol,
) -> ComposedCounts:  # fmt: skip
    numbers = [1 if protocol.mode == "mean-orders" else len(query_texts(x.texts, protocol.mode)) for x in data.lost]
    gone = [lost for lost, number in zip(data.lost, numbers, strict=True) for _ in range(number)]
    more = np.repeat(np.arange(len(data.lost)) + len(data.triplets), numbers).astype(np.int64)
    pad = np.zeros(len(gone), np.int64)
    parts = [
        CandidateCounts(*(np.concatenate([getattr(c, f), pad.astype(getattr(c, f).dtype)])
                          for f in ("greater", "equal", "reachable")))
        for c in (counts["strict"], counts["relaxed"], counts["subset"])
    ]  # fmt: skip
    everyone = [*triplets, *gone]
    return ComposedCounts(
        *parts,
        precision=np.concatenate([precision, pad]),
        positives=np.array([max(1, len(getattr(t, "positives", ()))) for t in everyone], np.int64),
        pair=np.concatenate([queries.pair, more]),
        here=np.arange(len(everyone)) < len(triplets),
        category=np.array([t.category for t in everyone], dtype=str),
        kind=np.array([t.kind for t in everyone], dtype=str),
        same_model=np.array([bool(t.extra.get("same_model")) for t in everyone], bool),
    )


def _sizes(counts: ComposedCounts) -> dict[str, int]:
    sizes = {}
    for labels in (counts.category, counts.kind):
        for name in dict.fromkeys(labels.tolist()):
            if name:
                sizes[name] = int((counts.here & (labels == name)).sum())
    if counts.same_model.any():
        sizes["same_model"] = int((counts.here & counts.same_model).sum())
    return sizes
