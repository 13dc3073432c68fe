"""Encoding the new items of a gallery: what cannot be read is set aside with its reason, the rest goes on."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from xretrieve.data.pictures import read_picture
from xretrieve.errors import XRetrieveError
from xretrieve.gallery_items import Item

if TYPE_CHECKING:
    from xretrieve.data.cache import FeatureCache

CHUNK = 4  # batches per step: between two steps the progress bar moves, and local tokens are let go


def encode_items(
    matcher: Any, items: list[Item], batch_size: int = 64, cache: FeatureCache | None = None, progress: bool = False
) -> tuple[list[Item], np.ndarray, list[dict[str, str]]]:
    """Items that could be encoded, their coarse vectors (N, D) float32, and the others as ``{"path", "reason"}``."""
    kept: list[Item] = []
    vectors: list[np.ndarray] = []
    failed: list[dict[str, str]] = []
    with _bar(len(items), progress) as advance:
        for start in range(0, len(items), CHUNK * batch_size):
            chunk = items[start : start + CHUNK * batch_size]
            good, array = _encode_some(matcher, chunk, batch_size, cache, failed)
            kept += good
            vectors += [array] if len(good) else []
            advance(len(chunk))
    return kept, np.concatenate(vectors) if vectors else np.zeros((0, 0), np.float32), failed


def _encode_some(
    matcher: Any, items: list[Item], batch_size: int, cache: FeatureCache | None, failed: list[dict[str, str]]
) -> tuple[list[Item], np.ndarray]:
    try:
        prepared = matcher.encode_images(
            [item.source for item in items], ids=[item.id for item in items], batch_size=batch_size, cache=cache
        )
        vectors = to_numpy(prepared.pooled)
        if not np.isfinite(vectors).all():
            raise XRetrieveError("the model gives NaN or infinite values for it")
        return items, vectors
    except (XRetrieveError, OSError) as error:
        if len(items) == 1:
            failed.append(_failure(items[0], error))
            return [], np.zeros((0, 0), np.float32)
    readable = [item for item in items if not isinstance(item.source, (str, Path)) or _reads(item, failed)]
    if len(readable) < len(items):
        halves = [readable]
    else:  # every picture opens, so the encoder itself refuses one: halve until it stands alone
        halves = [items[: len(items) // 2], items[len(items) // 2 :]]
    parts = [_encode_some(matcher, half, batch_size, cache, failed) for half in halves if half]
    kept = [item for good, _ in parts for item in good]
    arrays = [array for good, array in parts if good]
    return kept, np.concatenate(arrays) if arrays else np.zeros((0, 0), np.float32)


def _reads(item: Item, failed: list[dict[str, str]]) -> bool:
    try:
        read_picture(item.source)
        return True
    except XRetrieveError as error:
        failed.append(_failure(item, error))
        return False


def _failure(item: Item, error: Exception) -> dict[str, str]:
    """Path and reason; the path that most messages begin with is not said twice."""
    path = item.path or item.id
    return {"path": path, "reason": str(error).removeprefix(f"{path}: ")}


def to_numpy(pooled: Any) -> np.ndarray:
    """A torch tensor as a float32 array."""
    return pooled.detach().float().cpu().numpy()


@contextlib.contextmanager
def _bar(total: int, show: bool) -> Iterator[Callable[[int], None]]:
    if not show:
        yield lambda n: None
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    columns = (
        TextColumn("encoding"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task("encoding", total=total)
        yield lambda n: bar.advance(task, n)
