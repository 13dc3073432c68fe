"""The precomp layout of SCAN and its successors: ``{split}_caps.txt``, ``{split}_ims.npy``, ``{split}_ids.txt``.

``*_ims.npy`` is (N, regions, features), up to 33 GB: here only its header is read, rows are memory-mapped where they
are used. Lines 5i .. 5i+4 of the captions belong to image i. Some copies store every image five times: then the file
has as many rows as there are captions, each five of them are equal, and every fifth is kept. Where they differ, each
row is an image of its own, with one caption.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from xretrieve.data.annotations import Annotations, ImageRecord, canonical_split
from xretrieve.data.base import FeatureRow
from xretrieve.errors import XRetrieveError
from xretrieve.utils.arrays import load_npy
from xretrieve.utils.files import read_json
from xretrieve.utils.paths import is_file
from xretrieve.utils.texts import read_text, split_lines


@dataclass(frozen=True)
class FeatureHeader:
    """What the header of a ``*_ims.npy`` says."""

    path: Path
    shape: tuple[int, int, int]
    dtype: np.dtype


def read_lines(path: Path) -> list[str]:
    """The lines of a text file; CRLF and a missing last newline are fine, a blank line is an error.

    A blank line is not skipped: every later line would slide to another image.
    """
    lines = split_lines(read_text(path))
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            raise XRetrieveError(
                f"{path}: line {number} is blank, which would shift later images; restore or remove it"
            )
    if not lines:
        raise XRetrieveError(f"{path}: the file is empty")
    return lines


def feature_header(path: Path) -> FeatureHeader:
    """Shape and type of a region feature file, with its length on disk checked; no row is read."""
    try:
        array = load_npy(path, mmap_mode="r")
    except (ValueError, EOFError, OSError) as error:
        raise XRetrieveError(f"{path}: not a readable .npy array ({error}); a download cut short?") from error
    if array.ndim != 3 or array.dtype.kind != "f":
        raise XRetrieveError(
            f"{path}: expected floating point features (images, regions, features), found {array.dtype} {array.shape}"
        )
    return FeatureHeader(path, array.shape, array.dtype)


def find_stem(folder: Path, stems: Sequence[str]) -> str | None:
    """The first of the names of a split (``dev``, ``val``; ``testall``, ``test``) that has a caption file here."""
    return next((stem for stem in stems if is_file(folder / f"{stem}_caps.txt")), None)


def precomp_annotations(
    name: str, split: str, folder: Path, stems: Sequence[str], lines_per_image: int = 5
) -> Annotations:
    """Read one split of a precomp folder.

    Args:
        name: dataset name for messages and results.
        split: any public name of a split.
        folder: for example ``data/f30k_precomp``.
        stems: file name parts to try in order.
        lines_per_image: caption lines of each image; 5 in every public copy.

    Without ``*_ims.npy`` the captions are read all the same and no image has features.

    Raises:
        XRetrieveError: blank lines, counts of captions, rows and ids that do not fit (both counts are named).
    """
    stem = find_stem(folder, stems)
    if stem is None:
        raise XRetrieveError(f"{folder}: no {' or '.join(s + '_caps.txt' for s in stems)}")
    captions_file, features_file = folder / f"{stem}_caps.txt", folder / f"{stem}_ims.npy"
    captions = read_lines(captions_file)
    stride = 1
    if is_file(features_file):
        rows = feature_header(features_file).shape[0]
        if rows == len(captions):
            stride = copies(features_file, lines_per_image)
            lines_per_image = lines_per_image if stride > 1 else 1
        elif rows * lines_per_image != len(captions):
            raise XRetrieveError(
                f"{captions_file} has {len(captions):,} captions and {features_file.name} {rows:,} images: "
                f"{lines_per_image} captions per image would be {rows * lines_per_image:,} lines"
            )
    n, left = divmod(len(captions), lines_per_image)
    if left:
        raise XRetrieveError(
            f"{captions_file} has {len(captions):,} lines, not a multiple of {lines_per_image}; one is missing or extra"
        )
    ids = _image_ids(folder / f"{stem}_ids.txt", n, len(captions), lines_per_image)
    names = _id_mapping(folder)
    records = []
    for i, image_id in enumerate(ids):
        lines = range(i * lines_per_image, (i + 1) * lines_per_image)
        metadata = {"split": canonical_split(split)}
        if image_id in names:
            metadata["filename"] = names[image_id]
        image = FeatureRow(features_file, i * stride) if is_file(features_file) else None
        records.append(
            ImageRecord(image_id, image, [captions[c].strip() for c in lines], [str(c) for c in lines], metadata)
        )
    return Annotations(name, canonical_split(split), "precomp", str(captions_file), records, [str(features_file)])


def copies(path: Path, times: int = 5) -> int:
    """How often a feature file with a row for each caption stores an image: ``times``, or once.

    The ids beside it say so where they are there; else the rows themselves, of which some groups are compared.
    """
    beside = path.with_name(path.name.replace("_ims.npy", "_ids.txt"))
    array = load_npy(path, mmap_mode="r")
    groups, left = divmod(len(array), times)
    ids = [line.strip() for line in read_lines(beside)] if is_file(beside) else []
    if groups and not left and (len(ids) == groups or _repeated(ids, len(array), times)):
        return times
    if left or not groups or (len(ids) == len(array) and len(set(ids[:times])) == times):
        return 1
    sample = np.unique(np.linspace(0, groups - 1, 16).astype(int))
    equal = [bool((array[g * times : (g + 1) * times] == array[g * times]).all()) for g in sample]
    if all(equal) or not any(equal):
        return times if equal[0] else 1
    odd = int(sample[equal.index(sum(equal) * 2 < len(equal))])
    raise XRetrieveError(
        f"{path}: in some places each {times} rows are equal, in others not (rows {odd * times} to "
        f"{(odd + 1) * times - 1}); are its rows in order? {beside.name} with an id for each row says what they are"
    )


def _repeated(ids: Sequence[str], rows: int, times: int) -> bool:
    return len(ids) == rows and all(len(set(ids[i : i + times])) == 1 for i in range(0, rows, times))


def padded_rows(path: Path, rows: Sequence[int]) -> list[int]:
    """How many regions of each row hold nothing but zeros: places that a loader filled up, and no regions."""
    array = load_npy(path, mmap_mode="r")
    return [int((~np.asarray(array[row]).any(-1)).sum()) for row in rows]


def bad_feature_rows(path: Path, rows: Sequence[int]) -> Iterator[tuple[int, str]]:
    """Rows of a feature file that no model can use, as (row, reason): NaN or infinite values, or nothing but zeros."""
    array = load_npy(path, mmap_mode="r")
    for row in rows:
        values = np.asarray(array[row])
        if not np.isfinite(values).all():
            yield row, "has NaN or infinite values"
        elif not values.any():
            yield row, "is all zeros"


def _image_ids(path: Path, images: int, captions: int, lines_per_image: int) -> list[str]:
    """One id per image; files list them once or once per caption. Row numbers where there is no file."""
    if not is_file(path):
        return [str(i) for i in range(images)]
    ids = [line.strip() for line in read_lines(path)]
    if len(ids) == captions:
        for i in range(images):
            group = ids[i * lines_per_image : (i + 1) * lines_per_image]
            if len(set(group)) != 1:
                raise XRetrieveError(
                    f"{path}: lines {i * lines_per_image + 1} to {(i + 1) * lines_per_image} belong to one image "
                    f"but name several: {', '.join(dict.fromkeys(group))}"
                )
        return ids[::lines_per_image]
    if len(ids) != images:
        raise XRetrieveError(f"{path} has {len(ids):,} ids, but there are {images:,} images and {captions:,} captions")
    return ids


def _id_mapping(folder: Path) -> dict[str, str]:
    path = folder / "id_mapping.json"
    mapping = read_json(path) if is_file(path) else {}
    if not isinstance(mapping, dict):
        raise XRetrieveError(f"{path}: expected an object of id -> file name")
    return {str(key): str(value) for key, value in mapping.items()}
