"""Fashion-IQ (Wu et al., CVPR 2021): dresses, shirts and tops with two relative captions a pair.

Layout of XiaoxiaoGuo/fashion-iq: ``captions/cap.<category>.<split>.json``,
``image_splits/split.<category>.<split>.json`` and ``images/<id>.jpg``.
Its links die, so a partial copy of the photos is the normal case.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from xretrieve.data.annotations import ImageRecord, canonical_split
from xretrieve.data.fields import read_name, read_texts
from xretrieve.data.picture_index import PictureIndex
from xretrieve.data.triplet_annotations import (
    TripletAnnotations,
    TripletRecord,
    folder_of,
    need,
    official_note,
    read_list,
)
from xretrieve.data.triplets import ComposedDataset
from xretrieve.errors import XRetrieveError, unknown
from xretrieve.utils.paths import expand

NAME = "fashion_iq"
CATEGORIES = ("dress", "shirt", "toptee")
SPLITS = ("train", "val", "test")
OFFICIAL = {  # (pairs, listed images)
    ("dress", "train"): (5985, 11452), ("dress", "val"): (2017, 3817), ("dress", "test"): (2024, 3818),
    ("shirt", "train"): (5988, 19036), ("shirt", "val"): (2038, 6346), ("shirt", "test"): (2038, 6346),
    ("toptee", "train"): (6027, 16121), ("toptee", "val"): (1961, 5373), ("toptee", "test"): (2056, 5374),
}  # fmt: skip


def load(root: str | Path | None, split: str, **options: Any) -> ComposedDataset:
    """The images of a split whose photo is here, with their queries; options as in :func:`annotations`."""
    return annotations(root, split, **options).dataset()


def annotations(
    root: str | Path | None,
    split: str,
    *,
    category: str | None = None,
    exclude_leaks: bool | None = None,
    photos: str | None = None,
    allow_missing: bool = False,
) -> TripletAnnotations:
    """Read a split; an image that several categories list is one image.

    Args:
        root: the data root with ``fashion_iq/``, or that folder itself.
        split: ``train``, ``val`` or ``test`` (its targets are hidden).
        category: ``dress``, ``shirt`` or ``toptee``; None: all three, each query ranked within its own category.
        exclude_leaks: leave out training images that some category lists for val or test, with their pairs. None: yes
            where all categories are trained together. Published practice keeps them.
        photos: a folder of ``<id>.jpg``, ``.png``, ..., flat or sorted by category, in place of ``images/``.
        allow_missing: see :class:`~xretrieve.data.triplets.ComposedDataset`.
    """
    split = canonical_split(split)
    if category is not None and category not in CATEGORIES:
        raise unknown("category of fashion_iq", category, CATEGORIES)
    folder = folder_of(root, (NAME, "fashion-iq", "fashionIQ"), "captions/cap.*.json", NAME)
    wanted = CATEGORIES if category is None else (category,)
    need([path for c in wanted for path in (_captions(folder, c, split), _list(folder, c, split))], NAME)
    notes: list[str] = []
    queries: list[TripletRecord] = []
    lists: dict[str, list[str]] = {}
    for one in wanted:
        pairs = _pairs(_captions(folder, one, split), one, split)
        lists[one] = _ids(_list(folder, one, split))
        queries += pairs
        notes += official_note(f"{one} {split}", (len(pairs), len(lists[one])), OFFICIAL[one, split])
    if split == "train" and (category is None if exclude_leaks is None else exclude_leaks):
        queries, lists, said = _without_leaks(folder, queries, lists)
        notes.append(said)
    elif split == "train":
        notes.append("training images that are val or test images of another category are kept (exclude_leaks=false)")
    if split == "val":
        notes.append("val is what is selected on and reported: Fashion-IQ has no public test targets")
    galleries = {}
    for one in wanted:
        galleries[f"original/{one}"] = lists[one]
        asked = [q for q in queries if q.category == one]
        named = {q.reference for q in asked} | {q.target for q in asked if q.target is not None}
        galleries[f"val-union/{one}"] = sorted(named)
    index = PictureIndex([expand(photos)] if photos else [folder / "images", folder / "resized_image"], deep=True)
    belongs: dict[str, list[str]] = {}
    for one, ids in lists.items():
        for image in ids:
            belongs.setdefault(image, []).append(one)
    images = [
        ImageRecord(
            i, index.find([f"{i}.jpg", f"{i}.png"]), [], [], {"split": split, "categories": cs}, sought=f"{i}.jpg"
        )
        for i, cs in belongs.items()
    ]
    return TripletAnnotations(
        NAME, split, "official" if category is None else category, str(folder), images, index.sought,
        notes=notes, queries=queries, galleries=galleries, hidden=split == "test", allow_missing=allow_missing,
    )  # fmt: skip


def found(root: str | Path | None = None) -> list[str]:
    """What lies under the root, one phrase."""
    try:
        folder = folder_of(root, (NAME, "fashion-iq", "fashionIQ"), "captions/cap.*.json", NAME)
    except XRetrieveError:
        return []
    return [
        f"captions ({len(list(folder.glob('captions/cap.*.json')))} of 9 files)",
        *(["photos"] if (folder / "images").is_dir() else []),
    ]


def _captions(folder: Path, category: str, split: str) -> Path:
    return folder / "captions" / f"cap.{category}.{split}.json"


def _list(folder: Path, category: str, split: str) -> Path:
    return folder / "image_splits" / f"split.{category}.{split}.json"


def _ids(path: Path) -> list[str]:
    return [read_name(i, f"{path}, entry {number}") for number, i in enumerate(read_list(path))]


def _pairs(path: Path, category: str, split: str) -> list[TripletRecord]:
    keys = ("candidate", "captions") if split == "test" else ("candidate", "target", "captions")
    return [
        TripletRecord(
            f"{category}-{split}-{number}",
            read_name(row["candidate"], f"{path}, entry {number}: 'candidate'"),
            None if split == "test" else read_name(row["target"], f"{path}, entry {number}: 'target'"),
            read_texts(row["captions"], f"{path}, entry {number}: 'captions'"),
            category=category,
        )
        for number, row in enumerate(read_list(path, keys))
    ]


def _without_leaks(
    folder: Path, queries: list[TripletRecord], lists: dict[str, list[str]]
) -> tuple[list[TripletRecord], dict[str, list[str]], str]:
    """Training pairs and lists without what any category evaluates on."""
    paths = [_list(folder, c, s) for c in CATEGORIES for s in ("val", "test")]
    need(paths, f"{NAME} (to find leaks; or give exclude_leaks=false)")
    held = {image for path in paths for image in _ids(path)}
    kept = [q for q in queries if q.reference not in held and q.target not in held]
    leaked = {image for ids in lists.values() for image in ids} & held
    said = (
        f"left out {len(leaked):,} training images that some category lists for val or test, and "
        f"{len(queries) - len(kept):,} pairs that touch one (exclude_leaks=true)"
    )
    return kept, {c: [i for i in ids if i not in held] for c, ids in lists.items()}, said
