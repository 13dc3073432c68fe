"""The public region features of Visual Genome, one file an image, into memory-mapped files that no pickle is in.

``region_36_final/<id, 12 digits>.npy`` are pickles in spite of their name and are read by a restricted reader; plain
``.npy`` (R,F) and ``.npz`` with ``features`` are taken too. A converted split is a folder with ``features.npy``
(N,R,F), ``features_mask.npy`` (N,R) where images have fewer regions than others, ``boxes.npy`` (N,R,4) where the files
have boxes, ``ids.txt`` and ``about.json``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from xretrieve.data.base import FeatureRow
from xretrieve.data.safe_pickle import read_arrays
from xretrieve.data.visual_genome.places import base, find, places, read_ids, split_ids
from xretrieve.errors import XRetrieveError, first_line
from xretrieve.utils.arrays import load_npy
from xretrieve.utils.files import atomic_folder, write_json, write_text

RAW = "region_36_final"
FIRST = 5  # names of missing images in messages


@dataclass(frozen=True)
class RegionFile:
    """The regions of one image: features (R,F) float32, and boxes (R,4) as x1, y1, x2, y2 or None."""

    features: np.ndarray
    boxes: np.ndarray | None


class _WiderError(Exception):
    """An image with more regions than the file that is being written has room for."""


def read_regions(path: Path) -> RegionFile:
    """One image's file: a pickle, a plain array or an archive; anything odd in it is an error that names the file."""
    try:
        with open(path, "rb") as handle:
            start = handle.read(6)
        if start == b"\x93NUMPY":
            found = {"region_feats": load_npy(path)}
        elif start[:2] == b"PK":
            with np.load(path, allow_pickle=False) as archive:
                found = {name: archive[name] for name in archive.files}
        else:
            found = read_arrays(path)
    except XRetrieveError:
        raise
    except Exception as error:  # a damaged archive or header raises anything
        raise XRetrieveError(f"{path}: cannot be read ({first_line(error)}); a download cut short?") from error
    features = next((found[name] for name in ("region_feats", "features") if name in found), None)
    if features is None or features.ndim != 2 or features.dtype.kind != "f" or not features.size:
        shape = "nothing" if features is None else f"{features.dtype} {features.shape}"
        raise XRetrieveError(f"{path}: expected region features (R,F) under region_feats or features, found {shape}")
    if not np.isfinite(features).all():
        raise XRetrieveError(f"{path}: the features hold NaN or infinite values; get the file again")
    boxes = next((found[name] for name in ("region_boxes", "boxes") if name in found), None)
    if boxes is not None and boxes.shape != (len(features), 4):
        raise XRetrieveError(f"{path}: {len(features)} regions, but boxes of shape {boxes.shape}")
    return RegionFile(features.astype(np.float32, copy=False), boxes)


def convert(
    root: str | Path | None,
    out: str | Path | None = None,
    splits: Sequence[str] = ("train", "val", "test"),
    half: bool = False,
    progress: Callable[[Iterable[Any]], Iterable[Any]] = iter,
) -> dict[str, dict[str, Any]]:
    """Convert the region files of each split; returns what was written and which images have no file.

    Args:
        out: a folder that gets one folder per split; default ``regions`` beside the split lists.
        half: float16 instead of float32: half the size, and scores that differ in the third digit.
        progress: wraps the loop over images.
    """
    from xretrieve.data.prepare import refuse_read_only

    folder = base(root)
    raw = find(folder, RAW)
    if raw is None:
        raise XRetrieveError(f"visual_genome: no folder {RAW} in {', '.join(map(str, places(folder)))}")
    done = {}
    for split in splits:
        ids = split_ids(folder, split)
        files = {image: path for image in ids if (path := _file(raw, image)) is not None}
        if not files:
            raise XRetrieveError(
                f"{raw}: no file of the {len(ids)} images of {split}; names look like {ids[0]:012d}.npy"
            )
        target = (Path(out) if out else folder / "regions") / split
        refuse_read_only(target)
        done[split] = _convert_split(target, files, np.dtype("float16" if half else "float32"), progress)
        lost = [str(image) for image in ids if image not in files]
        done[split] |= {"missing": len(lost), "first_missing": lost[:FIRST]}
    return done


def converted(folder: Path, split: str) -> dict[int, FeatureRow]:
    """Image id -> row, of a converted split; empty where there is none."""
    if not (folder / split / "ids.txt").is_file():
        return {}
    return {
        image: FeatureRow(folder / split / "features.npy", row)
        for row, image in enumerate(read_ids(folder / split / "ids.txt"))
    }


def _file(raw: Path, image: int) -> Path | None:
    names = (f"{stem}.{ending}" for stem in (f"{image:012d}", str(image)) for ending in ("npy", "npz"))
    return next((raw / name for name in names if (raw / name).is_file()), None)


def _convert_split(
    target: Path, files: dict[int, Path], dtype: np.dtype, progress: Callable[[Iterable[Any]], Iterable[Any]]
) -> dict[str, Any]:
    first = read_regions(next(iter(files.values())))
    regions = len(first.features)
    while True:
        try:
            with atomic_folder(target) as part:
                return _write(part, files, regions, first, dtype, progress) | {"folder": str(target)}
        except _WiderError as wider:  # rare: the published files all have 36
            regions = wider.args[0]


def _write(
    part: Path,
    files: dict[int, Path],
    regions: int,
    first: RegionFile,
    dtype: np.dtype,
    progress: Callable[[Iterable[Any]], Iterable[Any]],
) -> dict[str, Any]:
    n, width, boxed = len(files), first.features.shape[1], first.boxes is not None
    create = np.lib.format.open_memmap
    features = create(part / "features.npy", mode="w+", dtype=dtype, shape=(n, regions, width))
    boxes = create(part / "boxes.npy", mode="w+", dtype=np.float32, shape=(n, regions, 4)) if boxed else None
    mask = np.zeros((n, regions), bool)
    for row, (image, path) in enumerate(progress(list(files.items()))):
        found = read_regions(path)
        count = len(found.features)
        if found.features.shape[1] != width or (found.boxes is not None) != boxed:
            raise XRetrieveError(
                f"{path} (image {image}): features {found.features.shape[1]} wide, boxes: {found.boxes is not None}; "
                f"the others are {width} wide, boxes: {boxed}. The folder mixes two extractions"
            )
        if count > regions:
            raise _WiderError(count)
        if dtype == np.float16 and np.abs(found.features).max() > np.finfo(np.float16).max:
            raise XRetrieveError(f"{path} (image {image}): a feature is too large for float16; leave out --half")
        features[row, :count], mask[row, :count] = found.features, True
        if boxes is not None:
            boxes[row, :count] = found.boxes
    features.flush()
    if not mask.all():
        np.save(part / "features_mask.npy", mask)
    write_text(part / "ids.txt", "".join(f"{image}\n" for image in files))
    about = {
        "images": n,
        "regions": regions,
        "width": width,
        "dtype": str(dtype),
        "regions_per_image": round(float(mask.sum(1).mean()), 2),
    }
    write_json(part / "about.json", about)
    return about
