"""``check``: what of a dataset is here, what is missing, and what that does to a score measured on it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from xretrieve.data import datasets
from xretrieve.data.annotations import SPLITS, Annotations, ImageRecord, NothingFoundError
from xretrieve.data.base import FeatureRow
from xretrieve.data.info import DatasetInfo
from xretrieve.data.picture_index import picture_problem
from xretrieve.data.precomp import bad_feature_rows, feature_header, padded_rows
from xretrieve.data.triplet_annotations import TripletAnnotations
from xretrieve.errors import UnknownNameError, XRetrieveError
from xretrieve.utils.files import data_root

SAMPLE = 50  # images whose rows are looked at without --read
FIRST = 5  # how many names of missing or broken files a report lists
Progress = Callable[[Iterable[Any]], Iterable[Any]]


@dataclass
class SplitCheck:
    """What was found of one split. ``usable``: can be evaluated; ``found``: there is at least an annotation file."""

    split: str
    usable: bool
    found: bool = True
    layout: str = ""
    source: str = ""
    images: int = 0
    expected_images: int = 0
    captions: int = 0
    distinct_captions: int = 0
    words_mean: float = 0.0
    words_max: int = 0
    captions_per_image: tuple[int, int] = (0, 0)
    regions: int = 0
    queries: int = 0
    queries_here: int = 0
    missing: int = 0
    first_missing: list[str] = field(default_factory=list)
    broken: int = 0
    first_broken: list[str] = field(default_factory=list)
    effect: str = ""
    notes: list[str] = field(default_factory=list)


@dataclass
class CheckReport:
    """The splits of one dataset, and where to get what is missing."""

    name: str
    root: str
    read: bool
    splits: list[SplitCheck]
    url: str = ""
    terms: str = ""
    put: str = ""

    @property
    def ok(self) -> bool:
        """True when every split that was checked can be evaluated."""
        return bool(self.splits) and all(s.usable for s in self.splits)

    def to_json(self) -> dict[str, Any]:
        """The report as plain values."""
        return {**asdict(self), "ok": self.ok}


def check(
    name: str,
    root: str | Path | None = None,
    split: str | None = None,
    *,
    layout: str | None = None,
    read: bool = False,
    progress: Progress = iter,
    **options: Any,
) -> CheckReport:
    """Look at one split, or at all standard splits of a dataset (extra ones, such as val2017, where they are there).

    Args:
        name: dataset name.
        root: data root.
        split: one split; None for all.
        layout: look at this layout only.
        read: decode every picture and scan every feature row instead of looking at sizes only.
        progress: wraps the loop over images, for a progress bar.
        options: those of the dataset's loader.

    Raises:
        XRetrieveError: unknown dataset, split, layout or option; what is wrong with the files is in the report.
    """
    card = datasets.info(name)
    asked = [split] if split else [*(card.splits if card else ("train", "val", "test"))]
    report = CheckReport(name, str(data_root(root)), read, [], *((card.url, card.terms, card.put) if card else ()))
    for one in asked:
        report.splits.append(_check_split(name, root, one, layout, read, progress, card, options))
    for one in card.extra_splits if card and not split else ():
        found = _check_split(name, root, one, layout, read, progress, card, options)
        if found.found:
            report.splits.append(found)
    return report


def _check_split(
    name: str,
    root: str | Path | None,
    split: str,
    layout: str | None,
    read: bool,
    progress: Progress,
    card: DatasetInfo | None,
    options: dict[str, Any],
) -> SplitCheck:
    try:
        found = datasets.annotations(name, root, split, layout, **options)
        found = found or _as_annotations(name, root, split, options)
    except UnknownNameError:
        raise  # a slip in the call, not something about the files
    except XRetrieveError as error:
        there = not isinstance(error, NothingFoundError)
        # the loader's message ends by sending the reader to this check
        said = str(error).removeprefix(f"{name}/{split}: ").partition(". `xretrieve data check")[0]
        return SplitCheck(SPLITS.get(split, split), usable=False, found=there, effect=f"cannot be evaluated: {said}")
    captions = found.captions
    words = [len(text.split()) for text in captions]
    per_image = [len(record.captions) for record in found.images]
    result = SplitCheck(
        split=found.split,
        usable=True,
        layout=found.layout,
        source=found.source,
        expected_images=len(found.images),
        captions=len(captions),
        distinct_captions=len(set(captions)),
        words_mean=round(sum(words) / max(len(words), 1), 2),
        words_max=max(words, default=0),
        captions_per_image=(min(per_image, default=0), max(per_image, default=0)),
        regions=sum(len(record.regions) for record in found.images),
    )
    here = [record for record in found.images if record.image is not None]
    broken = list(_broken(here, read, progress))
    result.images, result.missing, result.broken = len(here), len(found.missing), len(broken)
    result.first_missing, result.first_broken = found.missing[:FIRST], broken[:FIRST]
    result.usable = len(here) > len(broken) and bool(captions)
    if isinstance(found, TripletAnnotations):
        present = {record.id for record in here}
        result.queries = len(found.queries)
        result.queries_here = sum(not found.lost(query, present) for query in found.queries)
        result.usable = len(here) > len(broken) and result.queries_here > 0
    result.effect = _effect(result, found)
    result.notes = _notes(result, found, card, read)
    return result


def _as_annotations(name: str, root: str | Path | None, split: str, options: dict[str, Any]) -> Annotations:
    """A dataset whose loader cannot list absent pictures, seen as annotations with nothing missing."""
    if name == "scenes" and not datasets.found(name, root):  # loading would generate it, and a check changes nothing
        raise NothingFoundError("not generated yet: `xretrieve data prepare scenes` does that, as does its first use")
    data = datasets.load(name, root, split, **options)
    texts: list[list[int]] = [[] for _ in data.image_ids]
    for caption, row in enumerate(data.owner):
        texts[row].append(caption)
    regions = data.regions or [[] for _ in data.image_ids]
    records = [
        ImageRecord(i, image, [data.captions[c] for c in own], [data.caption_ids[c] for c in own], meta, list(boxes))
        for i, image, own, meta, boxes in zip(data.image_ids, data.images, texts, data.metadata, regions, strict=True)
    ]
    first = data.images[0] if data.images else None
    source = str(first.path if isinstance(first, FeatureRow) else first.parent) if first else str(data_root(root))
    return Annotations(name, data.split, data.layout, source, records)


def _broken(records: Sequence[ImageRecord], read: bool, progress: Progress) -> Iterable[str]:
    """Names of the pictures and feature rows that are there but useless, each with the reason."""
    for record in progress(records):
        if isinstance(record.image, FeatureRow):
            if read:
                for row, why in bad_feature_rows(record.image.path, [record.image.row]):
                    yield f"{record.id} (row {row} {why})"
        elif record.image is not None and (problem := picture_problem(record.image, read)):
            yield f"{record.image} ({problem})"


def _effect(result: SplitCheck, found: Annotations) -> str:
    """One sentence on what the state of the files does to a score."""
    n, whole = result.images, result.expected_images
    if not n:
        return (
            f"cannot be evaluated: the {'annotations' if result.queries else 'captions'} of {whole:,} images are here "
            "but no picture or feature file; looked in "
            f"{'; '.join(found.looked_for)}{found.expected}" + (f". {found.hint}" if found.hint else "")
        )
    if isinstance(found, TripletAnnotations) and not result.queries_here:
        return f"cannot be evaluated: {n:,} of {whole:,} photos are here, but no query has both of its own"
    if not result.usable:
        return f"cannot be evaluated: all {n:,} pictures or feature rows are broken"
    parts = []
    if n < whole:
        parts.append(
            f"the gallery is {n:,} of {whole:,} images, "
            f"so recalls are higher than the full protocol's and not comparable"
            + (f" (looked{found.expected.removeprefix(',')})" if found.expected else "")
        )
    if isinstance(found, TripletAnnotations):
        parts += _of_queries(result, found)
    if result.broken:
        parts.append(f"evaluation would stop at {result.broken:,} broken pictures or rows; get them again")
    return "; ".join(parts) or "complete"


def _of_queries(result: SplitCheck, found: TripletAnnotations) -> list[str]:
    """What the state of the files does to composed queries."""
    said = []
    lost = result.queries - result.queries_here
    if lost:
        reach = 100 * result.queries_here / result.queries
        said.append(
            f"{lost:,} of {result.queries:,} queries lost a photo: a score is given over the {result.queries_here:,} "
            f"others, and over all with those as misses (at most {reach:.1f} %); evaluate with --allow-missing"
        )
    if found.hidden:
        said.append("its targets are not public: queries can be answered, not scored")
    return said


def _notes(result: SplitCheck, found: Annotations, card: DatasetInfo | None, read: bool) -> list[str]:
    notes = list(found.notes)
    images_of: dict[str, set[int]] = {}
    for row, record in enumerate(found.images):
        for text in record.captions:
            images_of.setdefault(text, set()).add(row)
    shared = sum(len(rows) for rows in images_of.values() if len(rows) > 1)
    if shared:
        notes.append(
            f"{shared:,} captions are word for word those of another image too: "
            "text-to-image R@1 has a ceiling below 100, and training should mask duplicates"
        )
    low, high = result.captions_per_image
    if low != high and (card is None or "image_text" in card.tasks):
        notes.append(f"images have {low} to {high} captions; captions_per_image={low} gives each the same number")
    official = {**card.splits, **card.extra_splits}.get(result.split, (0, 0)) if card else (0, 0)
    if official[0] and official[0] != result.expected_images:
        notes.append(f"the annotations list {result.expected_images:,} images; the official split has {official[0]:,}")
    rows = [record.image for record in found.images if isinstance(record.image, FeatureRow)]
    if rows:
        header = feature_header(rows[0].path)
        stored = "five times each" if header.shape[0] == result.captions != len(rows) else "once"
        n, regions, width = header.shape
        notes.append(f"features: {n:,} rows of {regions} x {width} {header.dtype}, stored {stored}")
        looked = rows if read else rows[:: max(1, len(rows) // SAMPLE)]
        padded = [zeros for zeros in padded_rows(header.path, [row.row for row in looked]) if 0 < zeros < regions]
        if padded:
            notes.append(
                f"regions of nothing but zeros, {sum(padded):,} in {len(padded):,} of {len(looked):,} images that were "
                "looked at, are padding: they are masked"
            )
    return notes
