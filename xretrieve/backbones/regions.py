"""Precomputed region features: rows of a memory-mapped ``*_ims.npy`` (N,R,F), the layout of SCAN and its successors.

Where images have fewer regions than others, ``<name>_mask.npy`` (N,R) bool lies beside ``<name>.npy``; regions of
nothing but zeros are masked too.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from xretrieve.backbones.base import Backbone
from xretrieve.backbones.places import Layout
from xretrieve.data.base import FeatureRow
from xretrieve.errors import XRetrieveError
from xretrieve.tokens import Tokens
from xretrieve.utils.arrays import load_npy


def map_array(path: str | Path, dims: int, what: str) -> np.ndarray[Any, Any]:
    """Memory-map a ``.npy`` file (nothing is read yet); it must hold ``dims`` axes of numbers."""
    try:
        array = load_npy(path, mmap_mode="r")
    except FileNotFoundError as error:
        raise XRetrieveError(f"no {what} file {path}") from error
    except (ValueError, EOFError, OSError) as error:
        raise XRetrieveError(f"{path}: not a whole .npy file of numbers ({error}); copy or extract it again") from error
    if not isinstance(array, np.ndarray) or array.ndim != dims or array.dtype.kind not in "fiu":
        shape = getattr(array, "shape", "an archive")
        raise XRetrieveError(f"{path}: expected {what} with {dims} axes of numbers, found {shape}")
    return array


def _mask_of(path: Path, shape: tuple[int, ...]) -> np.ndarray[Any, Any] | None:
    """Which regions are real, where the file beside the features says so."""
    beside = path.with_name(f"{path.stem}_mask.npy")
    if not beside.is_file():
        return None
    try:
        mask = load_npy(beside)
    except (ValueError, EOFError, OSError) as error:
        raise XRetrieveError(f"{beside}: not a whole .npy file ({error}); make the features again") from error
    if mask.dtype != bool or mask.shape != tuple(shape) or not mask.any(1).all():
        raise XRetrieveError(f"{beside}: expected true and false {shape} with a region in every row; make it again")
    return mask


class Regions(Backbone):
    """Local tokens are the R region features of an image as stored, pooled is their mean. No weights.

    Args:
        dim: F, the width of the features.
        boxes: optional ``.npy`` (N,R,4) whose rows run as those of the feature file.
    """

    cacheable = False

    def __init__(self, dim: int = 2048, boxes: str | Path | None = None) -> None:
        super().__init__("regions", "image", {"dim": dim, "boxes": str(boxes) if boxes is not None else None})
        self.local_dim = self.pooled_dim = dim
        self._files: dict[Path, np.ndarray[Any, Any]] = {}
        self._masks: dict[Path, np.ndarray[Any, Any] | None] = {}
        self._boxes = map_array(boxes, 3, "boxes") if boxes is not None else None
        self._place: Tensor
        self.register_buffer("_place", torch.zeros(0), persistent=False)  # knows the device

    @property
    def device(self) -> torch.device:
        """Where the backbone was moved to."""
        return self._place.device

    def prepare(self, items: Sequence[FeatureRow]) -> dict[str, Tensor]:
        """Feature rows to ``local (N,R,F)`` float32 and ``mask (N,R)``; only these rows are read."""
        rows = [self._row(item) for item in items]
        regions = {len(row) for row, _ in rows}
        if len(regions) > 1:
            raise XRetrieveError(f"regions: a batch mixes files with {sorted(regions)} regions per image")
        local, mask = (np.stack(parts) for parts in zip(*rows, strict=True))
        return {"local": torch.from_numpy(local), "mask": torch.from_numpy(mask)}

    def forward(self, batch: dict[str, Tensor]) -> Tokens:
        """Tokens (N,R,F)."""
        return Tokens.from_local(batch["local"], batch["mask"])

    def example(self, items: int, tokens: int) -> dict[str, Tensor]:
        """Random features of ``tokens`` regions an image, one less real in each that follows."""
        local = torch.rand(items, tokens, self.local_dim, generator=torch.Generator().manual_seed(0))
        real = (tokens - torch.arange(items)).clamp(min=1)
        return {"local": local, "mask": torch.arange(tokens) < real[:, None]}

    def boxes(self, items: Sequence[FeatureRow]) -> Tensor | None:
        """(N,R,4) boxes of the rows as stored, or None when no boxes file was given."""
        if self._boxes is None:
            return None
        for item in items:
            if item.row >= len(self._boxes):
                raise XRetrieveError(f"{self.options['boxes']}: no row {item.row}, it has {len(self._boxes)}")
        return torch.from_numpy(np.asarray(self._boxes[[item.row for item in items]], dtype=np.float32))

    def layout(self, items: Sequence[FeatureRow]) -> list[Layout | None]:
        """The boxes, where a boxes file was given."""
        boxes = self.boxes(items)
        return [None] * len(items) if boxes is None else [Layout(boxes=tuple(map(tuple, b.tolist()))) for b in boxes]

    def _row(self, item: FeatureRow) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
        """Features (R,F) and mask (R,) of one image."""
        if not isinstance(item, FeatureRow):
            raise XRetrieveError(
                f"this model reads stored region features (rows of a *_ims.npy file: FeatureRow), not pictures "
                f"({type(item).__name__}); for pictures take a model with a timm or open_clip backbone"
            )
        if item.path not in self._files:
            array = map_array(item.path, 3, "region features (N,R,F)")
            if array.shape[2] != self.local_dim:
                raise XRetrieveError(
                    f"{item.path}: features are {array.shape[2]} wide, the backbone was made for "
                    f"{self.local_dim}; create it with dim={array.shape[2]}"
                )
            self._files[item.path], self._masks[item.path] = array, _mask_of(item.path, array.shape[:2])
        array, mask = self._files[item.path], self._masks[item.path]
        if not 0 <= item.row < len(array):
            raise XRetrieveError(f"{item.path}: no row {item.row}, it has {len(array)}")
        row = np.array(array[item.row], dtype=np.float32)  # (R,F), copied out of the map
        if not np.isfinite(row).all():
            raise XRetrieveError(f"{item.path}: row {item.row} holds NaN or infinite values; extract it again")
        if not row.any():
            raise XRetrieveError(f"{item.path}: row {item.row} is all zeros; extract it again")
        there: np.ndarray[Any, Any] = np.any(row, axis=1)  # what is all zeros was filled up by whoever wrote the file
        real: np.ndarray[Any, Any] = np.logical_and(mask[item.row], there) if mask is not None else there
        if not real.any():
            raise XRetrieveError(f"{item.path}: row {item.row} is all zeros where its mask is true; extract it again")
        return row, real

    def __getstate__(self) -> dict[str, Any]:
        """Without open maps: copies and other processes open the files themselves."""
        return {**super().__getstate__(), "_files": {}, "_masks": {}}


def create(
    rest: str = "",
    *,
    modality: str | None = None,
    weights: str | Path | None = None,
    assets: Path | None = None,
    dim: int | None = None,
    features: str | Path | None = None,
    boxes: str | Path | None = None,
) -> Regions:
    """The ``regions`` backbone; ``dim`` is given, or taken from the file ``features``, or 2048."""
    if rest:
        raise XRetrieveError(f"regions:{rest}: write regions, and features=FILE to take the width from a file")
    if weights is not None and assets is None:
        raise XRetrieveError("regions has no weights; leave out weights=")
    if dim is None:
        dim = map_array(features, 3, "region features (N,R,F)").shape[2] if features is not None else 2048
    return Regions(dim, boxes)


def names() -> list[str]:
    """One name, ``regions``."""
    return [""]
