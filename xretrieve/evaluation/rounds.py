"""Evaluation of query sets: the rank of the right image among all images after each round."""

from __future__ import annotations

import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from xretrieve.data.turns import QuerySets, query_sets
from xretrieve.errors import XRetrieveError
from xretrieve.evaluation.measure import measure
from xretrieve.evaluation.protocols import RoundsProtocol
from xretrieve.evaluation.provenance import identity, row_name, scored_in, stamp, versions
from xretrieve.evaluation.ranks import column_counts, top_k
from xretrieve.evaluation.round_metrics import RoundCounts, RoundsSetting
from xretrieve.evaluation.round_report import RoundsReport
from xretrieve.evaluation.round_samples import choose_round_samples, round_pictures
from xretrieve.evaluation.round_scores import RoundScorer
from xretrieve.evaluation.samples import thumbnail
from xretrieve.evaluation.trec import write_rounds
from xretrieve.utils.progress import bar

if TYPE_CHECKING:
    from xretrieve.data.base import RetrievalDataset

DEPTH = 100  # of TREC runs


def evaluate_rounds(
    matcher: Any,
    dataset: RetrievalDataset,
    protocol: RoundsProtocol,
    cache: Any = None,
    batch_size: int = 64,
    progress: bool = False,
    bootstrap: int = 1000,
    seed: int = 0,
    *,
    name: str = "",
    trec: str | Path | None = None,
    combine: str = "",
) -> RoundsReport:
    """Rank all images for every query set after each of its sentences.

    Args:
        matcher: a :class:`xretrieve.Matcher` or an ensemble of them.
        dataset: one split; see :func:`xretrieve.data.turns.query_sets` for its query sets.
        protocol: a protocol of the task ``multi_query``.
        combine: how sentences become a set: by the ``head``, or ``mean_similarity``, ``rank_fusion`` or ``paragraph``.
        cache, batch_size, progress, bootstrap, seed, name, trec: as in :func:`xretrieve.evaluate`.
    """
    warnings = protocol.check(len(dataset), dataset.coverage)
    turns = protocol.rounds(query_sets(dataset).longest)
    sets = query_sets(dataset, turns)
    start = time.perf_counter()
    gallery = matcher.encode_images(
        dataset.images, ids=dataset.image_ids, batch_size=batch_size, cache=cache, progress=progress
    )
    if len(gallery) != len(dataset):
        raise XRetrieveError(f"{dataset.name}/{dataset.split}: {len(gallery)} of {len(dataset)} images were encoded")
    scorer = RoundScorer.encode(matcher, sets, gallery, combine, cache)
    encoded = time.perf_counter()
    counter = Counter(sets, dataset.image_ids, DEPTH if trec is not None else 0)
    for rows in bar(scorer.blocks(), "scoring", progress):
        counter.add(rows, scorer.score(rows).cpu().numpy())
    scored = time.perf_counter()
    report = report_of(counter.counts(), sets, dataset, protocol, bootstrap, seed)
    report.samples = choose_round_samples(
        lambda rows: scorer.score(rows).cpu().numpy(),
        counter.counts(),
        sets,
        dataset.image_ids,
        ties=protocol.ties,
        seed=seed,
    )
    row = {image: i for i, image in enumerate(dataset.image_ids)}
    pictures = {image: thumbnail(dataset.images[row[image]]) for image in round_pictures(report.samples)}
    report.thumbnails = {image: jpeg for image, jpeg in pictures.items() if jpeg is not None}
    report.warnings = [*warnings, *report.warnings]
    report.name, report.matcher = row_name(matcher, name), identity(matcher)
    report.precision = scored_in(matcher)
    report.about |= model_facts(matcher, scorer)
    report.seconds = {"encode": encoded - start, "score": scored - encoded}
    if trec is not None:
        write_rounds(trec, counter.found(), sets.ids, dataset.image_ids, sets.owner, tag=report.name)
    return report


def evaluate_round_scores(
    scores: Any,
    sets: QuerySets,
    dataset: RetrievalDataset,
    protocol: RoundsProtocol,
    *,
    bootstrap: int = 1000,
    seed: int = 0,
    name: str = "scores",
) -> RoundsReport:
    """The same from scores (T, N, M) float32 or float64, rounds x images x sets, for other tools."""
    scores = np.asarray(scores)
    expected = (sets.longest, len(dataset), len(sets))
    if scores.shape != expected:
        raise XRetrieveError(
            f"scores of query sets are rounds x images x sets {expected}, got {scores.shape}; "
            "they are not to be transposed"
        )
    counter = Counter(sets, dataset.image_ids)
    counter.add(np.arange(len(sets)), scores)
    report = report_of(counter.counts(), sets, dataset, protocol, bootstrap, seed)
    report.warnings = [*protocol.check(len(dataset), dataset.coverage), *report.warnings]
    report.samples = choose_round_samples(
        lambda rows: scores[:, :, rows], counter.counts(), sets, dataset.image_ids, ties=protocol.ties, seed=seed
    )
    report.name = name
    return report


class Counter:
    """Collects the counts of blocks of sets; no block's scores are kept.

    Args:
        sets: all query sets.
        image_ids: names of the gallery, for messages.
        depth: best images to keep of each set and round, 0 for none.
        rounds: how many rounds the scores have; default those of the longest set. 1: only the last one is given.
    """

    def __init__(self, sets: QuerySets, image_ids: Sequence[str], depth: int = 0, rounds: int | None = None) -> None:
        self.sets, self.image_ids = sets, image_ids
        self.depth = min(depth, len(image_ids))
        shape = (sets.longest if rounds is None else rounds, len(sets))
        self._greater, self._equal = np.zeros(shape, np.int64), np.zeros(shape, np.int64)
        self._places = np.zeros((*shape, self.depth), np.int64)
        self._values = np.zeros((*shape, self.depth), np.float32)

    def add(self, rows: np.ndarray, scores: np.ndarray) -> None:
        """Count one block: scores (T, N, b) of the sets ``rows`` (b,)."""
        ids = [self.sets.ids[row] for row in rows]
        for turn, now in enumerate(scores):
            where = f"query set after round {turn + 1}"
            found = column_counts(now, self.sets.owner[rows], self.image_ids, ids, where)
            self._greater[turn, rows], self._equal[turn, rows] = found
            if self.depth:
                self._places[turn, rows], self._values[turn, rows] = top_k(np.ascontiguousarray(now.T), self.depth)

    def counts(self) -> RoundCounts:
        """Of all sets, short ones carried forward."""
        return RoundCounts(self._greater, self._equal, self.sets.owner, self.sets.sizes).carried()

    def found(self) -> tuple[np.ndarray, np.ndarray]:
        """The best images (T, M, depth) and their scores."""
        return self._places, self._values


def report_of(
    counts: RoundCounts,
    sets: QuerySets,
    dataset: RetrievalDataset,
    protocol: RoundsProtocol,
    bootstrap: int,
    seed: int,
) -> RoundsReport:
    """Metrics, intervals and what must be printed beside them."""
    setting = RoundsSetting(
        protocol.name,
        dataset.name,
        dataset.split,
        len(dataset),
        len(sets.texts),
        dataset.expected_images,
        protocol.ties,
        1,
        bootstrap,
        seed,
        len(sets),
        sets.longest,
    )
    return RoundsReport(
        name="",
        metrics=measure(setting, partial(RoundsReport.folds, counts, protocol)),
        protocol=protocol,
        counts=counts,
        image_ids=list(dataset.image_ids),
        caption_ids=list(sets.ids),
        dataset={
            "name": dataset.name,
            "split": dataset.split,
            "layout": dataset.layout,
            "images": len(dataset),
            "captions": len(sets.texts),
            "expected_images": dataset.expected_images,
        },
        versions=versions(),
        created=stamp(),
        about={
            "sentences": f"the first {sets.longest} of each set, {protocol.order}",
            **({"data": "; ".join(dataset.notes)} if dataset.notes else {}),
            "left out": "; ".join(sets.left_out) or "no set",
        },
    )


def model_facts(matcher: Any, scorer: RoundScorer) -> dict[str, str]:
    """What of the model changes the meaning of the numbers, in words."""
    members = list(getattr(matcher, "members", None) or [matcher])
    configs = [getattr(getattr(member, "head", None), "config", {}) for member in members]
    facts = {"sets are scored by": "the head" if scorer.combine == "head" else scorer.combine.replace("_", " ")}
    for key, label in (
        ("direction", "direction"),
        ("weight_horizon", "H (rounds of the round weight)"),
        ("region_norm", "region norm"),
    ):
        found = [str(config[key]) for config in configs if key in config]
        if found:
            facts[label] = " + ".join(dict.fromkeys(found)) + (" (ensemble)" if len(members) > 1 else "")
    names = dict.fromkeys(member.text.name for member in members if hasattr(member, "text"))
    if names:
        facts["tokenizer"] = "that of " + ", ".join(names)
    parts = getattr(scorer.gallery, "parts", [scorer.gallery])
    if parts[0].mask.shape[1]:
        facts["regions per image"] = f"{float(parts[0].mask.sum(1).float().mean()):.1f}"
    return facts
