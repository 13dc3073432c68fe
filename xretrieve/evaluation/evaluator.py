"""`evaluate`: encode, score, rank, resample, report."""

from __future__ import annotations

import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from xretrieve.errors import XRetrieveError
from xretrieve.evaluation.composed_protocols import ComposedProtocol
from xretrieve.evaluation.data_digests import data_digests
from xretrieve.evaluation.heat import sample_heats
from xretrieve.evaluation.measure import measure
from xretrieve.evaluation.metrics import Setting, fold_members
from xretrieve.evaluation.protocol import Protocol
from xretrieve.evaluation.protocols import RoundsProtocol, get_protocol
from xretrieve.evaluation.provenance import identity, row_name, scored_in, stamp, versions
from xretrieve.evaluation.ranks import check_scores, rank_counts
from xretrieve.evaluation.report import Report
from xretrieve.evaluation.samples import choose_samples, pictures_of, thumbnail
from xretrieve.utils.precision import scoring_in
from xretrieve.utils.progress import bar

if TYPE_CHECKING:
    from xretrieve.data.base import RetrievalDataset


def evaluate(
    matcher: Any,
    dataset: RetrievalDataset,
    protocol: str | Protocol | None = None,
    cache: Any = None,
    batch_size: int = 64,
    progress: bool = False,
    bootstrap: int = 1000,
    seed: int = 0,
    *,
    name: str = "",
    trec: str | Path | None = None,
    combine: str = "",
    allow_missing: bool | None = None,
    precision: str | None = None,
) -> Report:
    """Rank every image for every caption and every caption for every image; or all images for every query set.

    Args:
        matcher: a :class:`xretrieve.Matcher`, or anything with its ``encode_images``, ``encode_texts`` and ``score``.
        dataset: one split.
        protocol: a name (:func:`list_protocols`); None takes the usual one of the dataset, else ``full``.
        cache: a feature cache, or None to encode anew.
        batch_size: images encoded at once.
        progress: show a bar on stderr.
        bootstrap: resamples of the 95 % intervals, 0 for none.
        seed: of the resamples and of the choice of samples.
        name: the row's name in tables; the matcher's own by default.
        trec: a folder for TREC run and qrels files of both directions (of every round, for query sets).
        combine: for query sets, how sentences become a set: by the ``head``, or ``mean_similarity``, ``rank_fusion``
            or ``paragraph`` (:mod:`xretrieve.heads.fusion`).
        allow_missing: for composed queries, evaluate although photos are missing; None: as the dataset says.
        precision: ``auto``, ``32``, ``bf16`` or ``fp16``, of scores that are made token by token; None: the matcher's
            own (:attr:`xretrieve.Matcher.precision`), ``auto`` unless it was set. The report says what was used.

    A protocol of the task ``composed`` gives a :class:`~xretrieve.evaluation.composed_report.ComposedReport`, one of
    the task ``multi_query`` a :class:`~xretrieve.evaluation.round_report.RoundsReport`.
    """
    if precision is not None and hasattr(matcher, "precision"):
        with scoring_in(matcher, precision):
            return evaluate(matcher, dataset, protocol, cache, batch_size, progress, bootstrap, seed, name=name,
                            trec=trec, combine=combine, allow_missing=allow_missing)  # fmt: skip
    protocol = get_protocol(protocol, dataset.name, len(dataset))
    if isinstance(protocol, ComposedProtocol):
        from xretrieve.evaluation.composed import evaluate_composed

        if combine:
            raise XRetrieveError(f"combine={combine!r} is for query sets; {protocol.name!r} ranks composed queries")
        return evaluate_composed(
            matcher,
            dataset,
            protocol,
            cache,
            batch_size,
            progress,
            bootstrap,
            seed,
            name=name,
            trec=trec,
            allow_missing=allow_missing,
        )
    protocol.check(len(dataset), dataset.coverage)  # before the hours of encoding
    wall, cpu = time.perf_counter(), time.process_time()
    if isinstance(protocol, RoundsProtocol):
        from xretrieve.evaluation.rounds import evaluate_rounds

        report: Report = evaluate_rounds(
            matcher,
            dataset,
            protocol,
            cache,
            batch_size,
            progress,
            bootstrap,
            seed,
            name=name,
            trec=trec,
            combine=combine,
        )
        report.seconds = {"wall": time.perf_counter() - wall, "cpu": time.process_time() - cpu, **report.seconds}
        return report
    if combine:
        raise XRetrieveError(f"combine={combine!r} is for query sets; protocol {protocol.name!r} ranks single captions")
    scores, parts = score_matrix(
        matcher, dataset, cache=cache, batch_size=batch_size, progress=progress, folds=protocol.folds
    )
    report = evaluate_scores(
        scores,
        dataset.owner,
        protocol=protocol,
        dataset=dataset.name,
        split=dataset.split,
        image_ids=dataset.image_ids,
        caption_ids=dataset.caption_ids,
        captions=dataset.captions,
        images=dataset.images,
        expected_images=dataset.expected_images,
        bootstrap=bootstrap,
        seed=seed,
        name=row_name(matcher, name),
        trec=trec,
    )
    report.dataset |= {"layout": dataset.layout, **data_digests(dataset.image_ids, dataset.metadata, dataset.captions)}
    report.matcher, report.precision = identity(matcher), scored_in(matcher)
    report.heats = sample_heats(matcher, dataset, report.samples, cache)
    report.seconds = {"wall": time.perf_counter() - wall, "cpu": time.process_time() - cpu, **parts}
    return report


def score_matrix(
    matcher: Any,
    dataset: RetrievalDataset,
    *,
    cache: Any = None,
    batch_size: int = 64,
    progress: bool = False,
    folds: int = 1,
    block: int = 2048,
) -> tuple[np.ndarray, dict[str, float]]:
    """Scores (N, C) float32 of a whole split, and the wall seconds of encoding and scoring.

    With folds only the pairs inside a fold are scored; the other cells hold NaN and no fold looks at them. Captions of
    like length are scored together, ``block`` at a time, so that little padding is computed.
    """
    import torch

    start = time.perf_counter()
    with torch.inference_mode():
        images = matcher.encode_images(
            dataset.images, ids=dataset.image_ids, batch_size=batch_size, cache=cache, progress=progress
        )
        texts = matcher.encode_texts(dataset.captions, cache=cache)
        if len(images) != len(dataset) or len(texts) != len(dataset.captions):
            raise XRetrieveError(
                f"{dataset.name}/{dataset.split}: {len(images)} of {len(dataset)} images and {len(texts)} of "
                f"{len(dataset.captions)} captions were encoded; look with `xretrieve data check {dataset.name}`"
            )
        encoded = time.perf_counter()
        by_caption = np.full((len(texts), len(images)), np.nan, np.float32) if folds > 1 else None
        if by_caption is None:
            by_caption = np.empty((len(texts), len(images)), np.float32)
        words = np.array([len(caption.split()) for caption in dataset.captions])
        jobs = [
            (columns[i : i + block], rows)
            for rows, members in fold_members(dataset.owner, len(images), folds)
            for columns in [members[np.argsort(words[members], kind="stable")]]
            for i in range(0, len(columns), block)
        ]
        for columns, rows in bar(jobs, "scoring", progress):
            scored = matcher.score(texts[torch.from_numpy(columns)], images[rows])  # (block, fold)
            by_caption[columns, rows] = scored.float().cpu().numpy()
    return by_caption.T, {"encode": encoded - start, "score": time.perf_counter() - encoded}


def evaluate_scores(
    scores: Any,
    owner: Any,
    *,
    protocol: str | Protocol | None = None,
    dataset: str = "scores",
    split: str = "",
    image_ids: Sequence[str] | None = None,
    caption_ids: Sequence[str] | None = None,
    captions: Sequence[str] | None = None,
    images: Sequence[Any] | None = None,
    expected_images: int | None = None,
    bootstrap: int = 1000,
    seed: int = 0,
    name: str = "scores",
    trec: str | Path | None = None,
) -> Report:
    """The same from a score matrix, for ensembles (average the matrices, end the name with a star) and other tools.

    Args:
        scores: (N, C) float32 or float64, images x captions, numpy or torch.
        owner: (C,) the image row of each caption.
        image_ids, caption_ids, captions, images: for messages and samples; numbers stand in for missing ids.
        expected_images: images of the whole split, when some are missing here.
        protocol, bootstrap, seed, name, trec: as in :func:`evaluate`.
    """
    wall, cpu = time.perf_counter(), time.process_time()
    scores, owner = check_scores(scores, owner, image_ids, caption_ids)
    protocol = get_protocol(protocol, dataset, len(scores))
    expected = expected_images if expected_images is not None else len(scores)
    warnings = protocol.check(len(scores), len(scores) / expected if expected else 0.0)
    image_ids = list(image_ids) if image_ids is not None else [str(i) for i in range(len(scores))]
    caption_ids = list(caption_ids) if caption_ids is not None else [str(c) for c in range(len(owner))]
    captions = list(captions) if captions is not None else [f"caption {c}" for c in caption_ids]
    for what, given, size in (("image", image_ids, len(scores)), ("caption", caption_ids, len(owner))):
        if len(given) != size:
            raise XRetrieveError(f"{len(given)} {what} ids for {size} {what}s")
    warnings += protocol.told(dataset, len(scores), len(owner))
    columns = protocol.columns(owner)
    if columns is not None:
        scores, owner = scores[:, columns], owner[columns]
        caption_ids, captions = [caption_ids[c] for c in columns], [captions[c] for c in columns]

    counts = rank_counts(scores, owner, protocol.folds, image_ids, caption_ids)
    setting = Setting(
        protocol.name, dataset, split, len(scores), len(owner), expected, protocol.ties, protocol.folds, bootstrap, seed
    )
    samples = choose_samples(scores, counts, image_ids, caption_ids, captions, ties=protocol.ties, seed=seed)
    if trec is not None:
        from xretrieve.evaluation.trec import write_both

        write_both(trec, scores, counts, image_ids, caption_ids, tag=name)
    row = {image: i for i, image in enumerate(image_ids)}
    thumbnails = {image: thumbnail(images[row[image]]) for image in pictures_of(samples)} if images is not None else {}
    return Report(
        name=name,
        metrics=measure(setting, partial(Report.folds, counts, protocol)),
        protocol=protocol,
        counts=counts,
        image_ids=image_ids,
        caption_ids=caption_ids,
        dataset={
            "name": dataset,
            "split": split,
            "images": len(scores),
            "captions": len(owner),
            "expected_images": expected,
        },
        seconds={"wall": time.perf_counter() - wall, "cpu": time.process_time() - cpu},
        versions=versions(),
        samples=samples,
        thumbnails={image: jpeg for image, jpeg in thumbnails.items() if jpeg is not None},
        warnings=warnings,
        created=stamp(),
    )
