"""Encoding the new items of a gallery: what cannot be read is set aside with its reason, the rest goes on."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from xretrieve.errors import DiskError, XRetrieveError
from xretrieve.gallery.items import Item
from xretrieve.gallery.token_files import TokenSpool, fits_float16
from xretrieve.tokens import Tokens

if TYPE_CHECKING:
    from xretrieve.data.cache import FeatureCache
    from xretrieve.matcher import Matcher

CHUNK = 4  # batches per step, of which each is decoded while the one before is encoded; then the progress bar moves
Piece = tuple[list[Item], np.ndarray, Tokens | None]  # pictures, their coarse vectors, their tokens


class Encoder:
    """What pictures become in a gallery: coarse vectors, and local tokens where the head scores those.

    Args:
        matcher: made, or makes, the gallery.
        coarse: another matcher that makes the vectors.
        tokens: keep the tokens of ``matcher``.
    """

    def __init__(self, matcher: Matcher, coarse: Matcher | None = None, tokens: bool = False) -> None:
        self.matcher, self.coarse, self.tokens = matcher, coarse, tokens
        getattr(matcher, "image", None)  # a side that cannot be loaded is not a picture's fault
        self.shared = coarse is not None and matcher.image.fingerprint() == coarse.image.fingerprint()

    def __call__(
        self, sources: Sequence[Any], ids: Sequence[str], batch_size: int, cache: FeatureCache | None
    ) -> tuple[np.ndarray, Tokens | None]:
        """(N, D) float32 and the tokens; anything unreadable or not finite among them is an error."""
        how: dict[str, Any] = {"ids": ids, "batch_size": batch_size, "cache": cache}
        if self.coarse is None:
            prepared = first = self.matcher.encode_images(sources, **how)
        elif self.shared:  # one backbone under both heads: each picture goes through it once
            prepared, first = self.matcher.encode_images_for([self.matcher.head, self.coarse.head], sources, **how)
        else:
            prepared = self.matcher.encode_images(sources, **how)
            first = self.coarse.encode_images(sources, **how)
        vectors = to_numpy(first.pooled)
        if not np.isfinite(vectors).all() or (self.tokens and not fits_float16(prepared)):
            raise XRetrieveError("the model gives NaN or infinite values for it")
        return vectors, prepared if self.tokens else None


def encode_items(
    encoder: Encoder,
    items: list[Item],
    batch_size: int = 64,
    cache: FeatureCache | None = None,
    progress: bool = False,
    spool: TokenSpool | None = None,
) -> tuple[list[Item], np.ndarray, list[dict[str, str]]]:
    """Items that could be encoded, their coarse vectors (N, D) float32, and the others as ``{"path", "reason"}``.

    The tokens of the items go to ``spool``, in their order.
    """
    kept: list[Item] = []
    vectors: list[np.ndarray] = []
    failed: list[dict[str, str]] = []
    step = CHUNK * batch_size
    with _bar(len(items), progress) as advance:
        for start in range(0, len(items), step):
            chunk = items[start : start + step]
            for good, array, tokens in _pieces(encoder, chunk, batch_size, cache, failed):
                kept += good
                vectors.append(array)
                if spool is not None and tokens is not None:
                    spool.append(tokens)
            advance(len(chunk))
    return kept, np.concatenate(vectors) if vectors else np.zeros((0, 0), np.float32), failed


def _pieces(
    encoder: Encoder, items: list[Item], batch_size: int, cache: FeatureCache | None, failed: list[dict[str, str]]
) -> Iterator[Piece]:
    try:
        vectors, tokens = encoder([item.source for item in items], [item.id for item in items], batch_size, cache)
    except DiskError:  # of the cache: no picture's fault
        raise
    except (XRetrieveError, OSError) as error:
        if len(items) == 1:
            failed.append(_failure(items[0], error))
            return
    else:
        yield items, vectors, tokens
        return
    readable = [item for item in items if not isinstance(item.source, (str, Path)) or _reads(item, failed)]
    if len(readable) < len(items):
        halves = [readable]
    else:  # every picture opens, so the encoder itself refuses one: halve until it stands alone
        halves = [items[: len(items) // 2], items[len(items) // 2 :]]
    for half in halves:
        if half:
            yield from _pieces(encoder, half, batch_size, cache, failed)


def _reads(item: Item, failed: list[dict[str, str]]) -> bool:
    try:
        from xretrieve.data.pictures import read_picture

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
