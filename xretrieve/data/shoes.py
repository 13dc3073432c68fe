"""Shoes (Berg et al., ECCV 2010; relative captions of Guo et al., NeurIPS 2018), XiaoxiaoGuo/fashion-retrieval."""

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
from xretrieve.errors import XRetrieveError
from xretrieve.utils.paths import expand, is_file
from xretrieve.utils.texts import text_lines

NAME = "shoes"
RELATIVE, SINGLE = "relative_captions_shoes.json", "captions_shoes.json"
LISTS = {"train": "train_im_names.txt", "test": "eval_im_names.txt"}
VAL_LIST = "val/eval_im_names.txt"  # the shorter list of yanbeic/VAL, put into a folder of its own
OFFICIAL = {"train": (8990, 10000), "test": (1761, 4658)}  # pairs, listed images


def load(root: str | Path | None, split: str, **options: Any) -> ComposedDataset:
    """The images of a split whose photo is here, with their queries; options as in :func:`annotations`."""
    return annotations(root, split, **options).dataset()


def annotations(
    root: str | Path | None, split: str, *, photos: str | None = None, allow_missing: bool = False
) -> TripletAnnotations:
    """Read a split.

    Args:
        root: the data root with ``shoes/``, or that folder itself.
        split: ``train``; ``val`` and ``test`` are both the eval list, there is no other.
        photos: the folder below which the photos lie, in folders of any depth; default: the dataset's own.
        allow_missing: see :class:`~xretrieve.data.triplets.ComposedDataset`.
    """
    asked = canonical_split(split)
    split = "train" if asked == "train" else "test"
    folder = folder_of(root, (NAME,), RELATIVE, NAME)
    need([folder / RELATIVE, *(folder / name for name in LISTS.values())], NAME)
    ids = _names(folder / LISTS[split])
    listed = set(ids)
    rows = read_list(folder / RELATIVE, ("ImageName", "ReferenceImageName", "RelativeCaption"))
    queries, crossing = [], 0
    for number, row in enumerate(rows):
        where = f"{folder / RELATIVE}, entry {number}"
        target = read_name(row["ImageName"], f"{where}: 'ImageName'")
        reference = read_name(row["ReferenceImageName"], f"{where}: 'ReferenceImageName'")
        crossing += (target in listed) != (reference in listed)
        if target in listed and reference in listed:
            texts = read_texts(row["RelativeCaption"], f"{where}: 'RelativeCaption'")
            queries.append(TripletRecord(f"pair-{number}", reference, target, texts))
    notes = official_note(f"shoes {asked}", (len(queries), len(ids)), OFFICIAL[split])
    if crossing:
        notes.append(f"{crossing:,} pairs have one image on each list; they are left out")
    same = [q for q in queries if q.reference == q.target]
    if split == "train" and same:
        queries = [q for q in queries if q.reference != q.target]
        notes.append(f"{len(same)} pairs whose target is their reference are left out of training")
    elif same:
        notes.append(
            f"{len(same)} query has its reference as target: unreachable once the reference is removed"
            if len(same) == 1
            else f"{len(same)} queries have their reference as target: unreachable"
        )
    if asked != "train":
        notes.append("Shoes has one evaluation list: what is selected on is what is reported")
    galleries = {"all": ids}
    if split == "test" and is_file(folder / VAL_LIST):
        named = {i for q in queries for i in (q.reference, q.target) if i is not None}
        galleries["val-list"] = sorted(named | (set(_names(folder / VAL_LIST)) & listed))
    single = _single(folder, listed)
    index = PictureIndex([expand(photos) if photos else folder], deep=True)
    images = [
        ImageRecord(i, index.find([i]), texts, [f"{i}#{k}" for k in range(len(texts))], {"split": asked}, sought=i)
        for i in ids
        for texts in [single.get(i, [])]
    ]
    sought = [photos or str(folder)]
    return TripletAnnotations(NAME, asked, "official", str(folder), images, sought, notes=notes, queries=queries,
                              galleries=galleries, allow_missing=allow_missing)  # fmt: skip


def found(root: str | Path | None = None) -> list[str]:
    """What lies under the root, one phrase."""
    try:
        folder = folder_of(root, (NAME,), RELATIVE, NAME)
    except XRetrieveError:
        return []
    return ["relative captions", *(["captions"] if is_file(folder / SINGLE) else [])]


def _names(path: Path) -> list[str]:
    return [line.strip() for _, line in text_lines(path) if line.strip()]


def _single(folder: Path, listed: set[str]) -> dict[str, list[str]]:
    """Captions of single images, where that file is there."""
    said: dict[str, list[str]] = {}
    if is_file(folder / SINGLE):
        for number, row in enumerate(read_list(folder / SINGLE, ("ImageName", "Caption"))):
            where = f"{folder / SINGLE}, entry {number}"
            name = read_name(row["ImageName"], f"{where}: 'ImageName'")
            if name in listed and row["Caption"] != "":
                said.setdefault(name, []).extend(read_texts(row["Caption"], f"{where}: 'Caption'"))
    return said
