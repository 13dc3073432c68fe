"""CIRR (Liu et al., ICCV 2021), version rc2: real photos of NLVR2, with a small gallery of six for every query.

Layout of Cuberick-Orion/CIRR: ``captions/cap.rc2.<split>.json`` and ``image_splits/split.rc2.<split>.json``, which maps
a name to its path below the photos.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from xretrieve.data.annotations import ImageRecord
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
from xretrieve.errors import XRetrieveError, shown, unknown
from xretrieve.utils.files import read_json
from xretrieve.utils.paths import expand, is_file, is_folder

NAME = "cirr"
FOLDERS = (NAME, "CIRR", "cirr_dataset", "cirr_dataset/cirr")
OFFICIAL = {"train": (28225, 16939), "val": (4181, 2297), "test1": (4148, 2315)}  # pairs, images
SPLITS = {"train": "train", "val": "val", "dev": "val", "test": "test1", "test1": "test1"}


def load(root: str | Path | None, split: str, **options: Any) -> ComposedDataset:
    """The images of a split whose photo is here, with their queries; options as in :func:`annotations`."""
    return annotations(root, split, **options).dataset()


def annotations(
    root: str | Path | None, split: str, *, photos: str | None = None, allow_missing: bool = False
) -> TripletAnnotations:
    """Read a split. Only ``target_hard`` is a target; the soft ones stay in the query's ``extra``.

    Args:
        root: the data root with ``cirr/``, or that folder itself.
        split: ``train``, ``val``, or ``test`` (test1: its targets are with the evaluation server).
        photos: the folder that the paths of ``image_splits`` start from; default: the dataset's own, or ``img_raw``.
        allow_missing: see :class:`~xretrieve.data.triplets.ComposedDataset`.
    """
    if split not in SPLITS:
        raise unknown("split", split, SPLITS)
    name = SPLITS[split]
    folder = folder_of(root, FOLDERS, "captions/cap.rc2.*.json", NAME)
    caption_file = folder / "captions" / f"cap.rc2.{name}.json"
    list_file = folder / "image_splits" / f"split.rc2.{name}.json"
    need([caption_file, list_file], NAME)
    paths = read_json(list_file)
    if not isinstance(paths, dict):
        raise XRetrieveError(f"{list_file}: expected an object of image name to path, got {type(paths).__name__}")
    places = [expand(photos)] if photos else [folder, folder / "img_raw", folder.parent]
    photo = _Photos(places, [places[0]] if photos else places[:2])
    images = [
        ImageRecord(str(i), photo.find(str(path)), [], [], {"split": name}, sought=str(path))
        for i, path in paths.items()
    ]
    hidden = name == "test1"
    keys = ("pairid", "reference", "caption", "img_set") + (() if hidden else ("target_hard",))
    queries = [
        _query(row, paths, hidden, f"{caption_file}, entry {number}")
        for number, row in enumerate(read_list(caption_file, keys))
    ]
    notes = official_note(f"cirr {name}", (len(queries), len(images)), OFFICIAL[name])
    outside = sum(len(row.extra["members"]) - len(row.members) for row in queries)
    if outside:
        notes.append(f"{outside:,} members of subsets are not in the image list; they are left out")
    return TripletAnnotations(
        NAME, "test" if hidden else name, "rc2", str(folder), images, [str(p) for p in places if is_folder(p)],
        notes=notes, queries=queries, galleries={name: [record.id for record in images]}, hidden=hidden,
        allow_missing=allow_missing,
    )  # fmt: skip


def found(root: str | Path | None = None) -> list[str]:
    """What lies under the root, one phrase."""
    try:
        folder = folder_of(root, FOLDERS, "captions/cap.rc2.*.json", NAME)
    except XRetrieveError:
        return []
    return [f"captions ({', '.join(sorted(p.name.split('.')[2] for p in folder.glob('captions/cap.rc2.*.json')))})"]


def _query(row: dict[str, Any], listed: dict[str, Any], hidden: bool, where: str) -> TripletRecord:
    subset = row["img_set"].get("members") if isinstance(row["img_set"], dict) else None
    if not isinstance(subset, list):
        raise XRetrieveError(
            f"{where}: 'img_set' must be an object with the list 'members', got {shown(row['img_set'])}"
        )
    members = [read_name(name, f"{where}: 'members'") for name in subset]
    extra = {"pairid": row["pairid"], "soft": row.get("target_soft") or {}, "members": members}
    return TripletRecord(
        read_name(row["pairid"], f"{where}: 'pairid'"),
        read_name(row["reference"], f"{where}: 'reference'"),
        None if hidden else read_name(row["target_hard"], f"{where}: 'target_hard'"),
        read_texts(row["caption"], f"{where}: 'caption'"),
        members=tuple(name for name in members if name in listed),
        extra=extra,
    )


class _Photos:
    """Photos at the paths that the split names, or anywhere below: some copies are flat, others have other folders.

    Args:
        places: that the paths may start from.
        below: folders to look through where one is not there.
    """

    def __init__(self, places: list[Path], below: list[Path]) -> None:
        self._places, self._below = places, below
        self._index: PictureIndex | None = None

    def find(self, path: str) -> Path | None:
        """The photo, or None."""
        there = next((place / path for place in self._places if is_file(place / path)), None)
        if there is None and self._index is None:
            self._index = PictureIndex(self._below, deep=True)
        return there or (self._index.find([path]) if self._index is not None else None)
