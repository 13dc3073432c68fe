"""Region phrases of one's own as query turns: a JSON Lines file, one phrase a line, grouped by image.

A line is ``{"image": "x.jpg", "phrase": "...", "bbox": [x, y, w, h]}``; ``image_id`` or ``vg_image_id`` may name the
image instead, ``bbox`` (pixels) may be missing, ``split`` (or another key) may say which split the image belongs to.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from xretrieve.data.annotations import SPLITS, Annotations, ImageRecord, NothingFoundError, canonical_split
from xretrieve.data.base import Region, RetrievalDataset
from xretrieve.data.picture_index import PictureIndex
from xretrieve.errors import XRetrieveError, unknown
from xretrieve.utils.files import data_root
from xretrieve.utils.paths import expand, is_file, is_folder
from xretrieve.utils.texts import BrokenJsonError, json_lines

USUAL = ("phrases/phrases.jsonl", "phrases.jsonl", "visual_genome/region_phrases.jsonl")
KEYS = ("image", "image_id", "vg_image_id")
PHOTOS = ("images", "VG_100K", "VG_100K_2", ".")
SUFFIXES = (".jpg", ".jpeg", ".png")


def load(
    root: str | Path | None,
    split: str = "test",
    *,
    file: str | None = None,
    photos: str | None = None,
    min_turns: int = 1,
    split_key: str = "split",
) -> RetrievalDataset:
    """The images whose photo is there, with their phrases; arguments as in :func:`annotations`."""
    return annotations(root, split, file=file, photos=photos, min_turns=min_turns, split_key=split_key).dataset()


def annotations(
    root: str | Path | None,
    split: str = "test",
    *,
    file: str | None = None,
    photos: str | None = None,
    min_turns: int = 1,
    split_key: str = "split",
) -> Annotations:
    """All images of a split with their phrases: lower-cased, repeats within an image dropped, in the order of the file.

    Args:
        root: the data root.
        split: ``test`` takes the whole file where no line names a split.
        file: the JSON Lines file, as given or below the data root; default: the first of the usual places.
        photos: their folder; default ``images``, ``VG_100K`` or ``VG_100K_2`` beside the file, or the file's own.
        min_turns: images with fewer phrases are left out.
        split_key: the key of a line that names its split.
    """
    if split not in SPLITS:
        raise unknown("split", str(split), SPLITS)
    if min_turns < 1:
        raise XRetrieveError(f"phrases: min_turns={min_turns}; write 1 or more")
    path, wanted = _find(root, file), canonical_split(split)
    images: dict[str, dict[str, Region | None]] = {}
    named = 0
    for number, entry in _entries(path):
        key = _image(entry, path, number)
        said = entry.get(split_key)
        named += said is not None
        if said is not None and str(said) not in SPLITS:
            raise XRetrieveError(f"{path}: line {number}: {unknown('split', str(said), SPLITS)}")
        if said is None and wanted == "test" or said is not None and canonical_split(str(said)) == wanted:
            phrase, region = _phrase(entry, path, number)
            images.setdefault(key, {}).setdefault(phrase, region)
    if not images:
        why = "its lines name other splits" if named else f"no line has the key {split_key!r}, so all of them are test"
        raise NothingFoundError(f"phrases/{split}: {path} has no phrase of this split ({why})")
    index = _pictures(path, photos)
    kept = {key: said for key, said in images.items() if len(said) >= min_turns}
    if not kept:
        most = max(map(len, images.values()))
        raise XRetrieveError(f"{path}: no image has min_turns={min_turns} distinct phrases; the most is {most}")
    records = [
        ImageRecord(
            key,
            _picture(index, key),
            list(said),
            [f"{key}#{k}" for k in range(len(said))],
            {"split": wanted},
            [region for region in said.values() if region is not None],
        )
        for key, said in kept.items()
    ]
    notes = []
    if len(kept) < len(images):
        notes.append(
            f"{len(images) - len(kept):,} of {len(images):,} images are left out: fewer than "
            f"min_turns={min_turns} distinct phrases"
        )
    return Annotations("phrases", wanted, "phrases", str(path), records, index.sought, notes=notes)


def found(root: str | Path | None = None) -> list[str]:
    """The file that would be taken."""
    return [name for name in USUAL if is_file(data_root(root) / name)][:1]


def _find(root: str | Path | None, file: str | None) -> Path:
    tried = [expand(file), data_root(root) / file] if file else [data_root(root) / name for name in USUAL]
    for path in tried:
        if is_file(path):
            return path
    raise NothingFoundError(
        f"phrases: no file; looked for {', '.join(map(str, tried))}. Give file=FILE (-o file=FILE on the command line)"
    )


def _entries(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    try:
        for number, entry in json_lines(path):
            if not isinstance(entry, dict):
                raise XRetrieveError(f"{path}: line {number} is no JSON object")
            yield number, entry
    except BrokenJsonError as error:
        raise XRetrieveError(f"{path}: line {error.number} is not valid JSON: {error.reason}") from error


def _image(entry: dict[str, Any], path: Path, number: int) -> str:
    name = next((entry[key] for key in KEYS if entry.get(key) is not None), None)
    if not isinstance(name, (str, int)) or isinstance(name, bool) or not str(name).strip():
        raise XRetrieveError(f"{path}: line {number} names no image; it needs one of {', '.join(KEYS)}")
    return str(name)


def _phrase(entry: dict[str, Any], path: Path, number: int) -> tuple[str, Region | None]:
    phrase, box = entry.get("phrase"), entry.get("bbox")
    if not isinstance(phrase, str) or not phrase.strip():
        raise XRetrieveError(f"{path}: line {number} has no text under 'phrase'")
    if box is None:
        return phrase.lower(), None
    if not isinstance(box, list) or len(box) != 4 or not all(isinstance(v, (int, float)) for v in box):
        raise XRetrieveError(f"{path}: line {number}: bbox {box!r} must be [x, y, width, height]")
    x, y, width, height = map(float, box)
    return phrase.lower(), Region((x, y, width, height), phrase.lower())


def _picture(index: PictureIndex, key: str) -> Path | None:
    """The photo that a line names: a file name, an id without its suffix, or a path below one of the folders."""
    if "/" in key:
        return next((folder / key for folder in index.folders if is_file(folder / key)), None)
    return index.find([key, *(key + suffix for suffix in SUFFIXES)])


def _pictures(path: Path, photos: str | None) -> PictureIndex:
    if photos is None:
        return PictureIndex([path.parent / name for name in PHOTOS])
    if not is_folder(expand(photos)):
        raise XRetrieveError(f"photos={photos!r}: no such folder")
    return PictureIndex([expand(photos)])
