"""Where a step's items come from: tokens of a frozen backbone from the cache, or raw items for one that learns."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import numpy as np

from xretrieve.backbones.base import batch_to
from xretrieve.tokens import Tokens

T = TypeVar("T")
R = TypeVar("R")


class CachedFeed:
    """Tokens computed once. ``kept`` are the rows of items that could be read; only these may be asked for.

    With ``pooled_only`` (a head that reads no local tokens) the pooled vectors are held in memory, the rest stays
    on disk.
    """

    live = False

    def __init__(self, stored: Any, count: int, pooled_only: bool = False) -> None:
        self.stored = stored
        self.pooled = stored.pooled if pooled_only and len(stored.kept) else None
        self.kept = np.asarray(stored.kept, dtype=np.int64)
        self.failed = list(stored.failed)
        self._place = np.full(count, -1, dtype=np.int64)
        self._place[self.kept] = np.arange(len(self.kept))

    def take(self, rows: np.ndarray, rng: np.random.Generator | None = None, word_dropout: float = 0.0) -> Tokens:
        """Tokens (N, L, D) of items by their row in the dataset. Dropout of words happens on the mask later."""
        if self.pooled is not None:
            return Tokens.from_pooled(self.pooled[self._place[rows]])
        return self.stored[self._place[rows]]


class LiveFeed:
    """Raw items, made into a batch of tensors for a backbone that learns in the step."""

    live = True

    def __init__(self, backbone: Any, items: Sequence[Any]) -> None:
        self.backbone, self.items = backbone, items
        self.kept = np.arange(len(items))
        self.failed: list[tuple[str, str]] = []

    def take(self, rows: np.ndarray, rng: np.random.Generator | None = None, word_dropout: float = 0.0) -> Any:
        """What the backbone's ``prepare`` makes of the items; captions lose words when ``rng`` is given."""
        items = [self.items[i] for i in rows]
        if word_dropout and rng is not None:
            items = [drop_words(text, word_dropout, rng) for text in items]
        return self.backbone.prepare(items)


Feed = CachedFeed | LiveFeed


def block_to(batch: Any, device: Any) -> Any:
    """Move tokens, what a backbone's ``prepare`` gave, or a pair of such, to a device."""
    if isinstance(batch, tuple):
        return tuple(block_to(part, device) for part in batch)
    return batch.to(device) if isinstance(batch, Tokens) else batch_to(batch, device)


def drop_words(text: str, share: float, rng: np.random.Generator) -> str:
    """Leave each word out with probability ``share``; at least one stays.

    >>> drop_words("a dog runs", 0.99, np.random.default_rng(0)) in ("a", "dog", "runs")
    True
    """
    words = text.split()
    if len(words) < 2:
        return text
    draw = rng.random(len(words))
    stays = draw >= share
    stays[draw.argmax()] = True
    return " ".join(word for word, stay in zip(words, stays, strict=True) if stay)


def prefetch(work: Callable[[T], R], jobs: Iterable[T]) -> Iterator[R]:
    """``map`` with the next job already running in a thread (reading and tokenizing overlap the step)."""
    with ThreadPoolExecutor(1) as ahead:
        coming = None
        for job in jobs:
            following = ahead.submit(work, job)
            if coming is not None:
                yield coming.result()
            coming = following
        if coming is not None:
            yield coming.result()
