"""The order of the items: a function of the seed and the epoch, so a resumed run meets the same batches."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from xretrieve.errors import XRetrieveError


@dataclass(frozen=True)
class BatchSampler:
    """Batches of caption rows.

    Args:
        owner: (C,) image row of each caption; a caption whose image is unusable must not be in ``usable``.
        batch_size: items of one batch, over all devices together.
        batching: ``captions``: an item is a caption; ``images``: an item is an image with random captions per epoch.
        captions_per_image: K, with ``images``: distinct captions an image brings (repeated where it has fewer).
        seed: of the whole run.
        stage: number of the stage; each stage has its own orders.
        world: number of processes; a batch is cut into as many equal parts.
        usable: (C,) bool, captions that may be drawn; default all.

    An incomplete last batch is left out (its items differ from epoch to epoch), unless it is the only one.

    >>> s = BatchSampler(np.array([0, 0, 1, 1]), batch_size=2, batching="images", seed=0)
    >>> len(s), s.epoch(0).shape, bool((s.epoch(0) == s.epoch(0)).all())
    (1, (1, 1, 2), True)
    """

    owner: np.ndarray
    batch_size: int
    batching: str = "captions"
    captions_per_image: int = 1
    seed: int = 0
    stage: int = 0
    world: int = 1
    usable: np.ndarray | None = None

    def __post_init__(self) -> None:
        if self.batch_size % self.world:
            raise XRetrieveError(
                f"batch_size {self.batch_size} cannot be split over {self.world} devices: "
                f"take a multiple of {self.world}"
            )
        if self._block() < 2:
            raise XRetrieveError(f"the train split has {self._items()} items; training needs at least {2 * self.world}")

    def _rows(self) -> np.ndarray:
        return np.arange(len(self.owner)) if self.usable is None else np.flatnonzero(self.usable)

    def _items(self) -> int:
        rows = self._rows()
        return len(rows) if self.batching == "captions" else len(np.unique(self.owner[rows]))

    def _block(self) -> int:
        """Items of one batch: batch_size, or less when there is only one, smaller batch."""
        items = self._items()
        return self.batch_size if items >= self.batch_size else items - items % self.world

    def __len__(self) -> int:
        """Batches of an epoch."""
        return max(1, self._items() // self.batch_size)

    def epoch(self, number: int) -> np.ndarray:
        """Caption rows of an epoch's batches, (batches, K, items) int64; column i of all K rows is one image's."""
        rng = np.random.default_rng([self.seed, self.stage, number])
        rows = rng.permutation(self._rows())[None]  # (1,items)
        if self.batching == "images":
            rows = rng.permutation(
                self._captions_of_images(rows[0]), axis=1
            )  # else images with many captions come early
        count, block = len(self), self._block()
        rows = rows[:, : count * block].reshape(len(rows), count, block)
        return rows.swapaxes(0, 1)

    def _captions_of_images(self, rows: np.ndarray) -> np.ndarray:
        """(K, images): the first K captions of each image in the order of ``rows``, going round where it has fewer."""
        rows = rows[np.argsort(self.owner[rows], kind="stable")]  # grouped by image, still in random order inside
        _, start, count = np.unique(self.owner[rows], return_index=True, return_counts=True)
        return rows[start + np.arange(self.captions_per_image)[:, None] % count]


@dataclass(frozen=True)
class SetSampler:
    """Batches of images, each with a query set: some of its sentences, drawn without repeats, in random order.

    Args:
        owner: (C,) image row of each sentence.
        batch_size: images of one batch, over all devices together.
        turns: T, sentences of a set; an image with fewer brings all of them.
        seed, stage, world, usable: as :class:`BatchSampler`.

    The incomplete last batch is kept, unless it leaves a process with a single image.

    >>> s = SetSampler(np.array([0, 0, 0, 1, 1, 2, 2]), batch_size=3, turns=2)
    >>> [b.shape for b in s.epoch(0)]
    [(2, 3)]
    """

    owner: np.ndarray
    batch_size: int
    turns: int
    seed: int = 0
    stage: int = 0
    world: int = 1
    usable: np.ndarray | None = None

    def __post_init__(self) -> None:
        if self.batch_size % self.world:
            raise XRetrieveError(
                f"batch_size {self.batch_size} cannot be split over {self.world} devices: "
                f"take a multiple of {self.world}"
            )
        if not self._sizes():
            raise XRetrieveError(
                f"the train split has {len(np.unique(self.owner[self._rows()]))} images with a sentence; "
                f"training needs at least {2 * self.world}"
            )

    def _rows(self) -> np.ndarray:
        return np.arange(len(self.owner)) if self.usable is None else np.flatnonzero(self.usable)

    def _sizes(self) -> list[int]:
        """Images of each batch of an epoch."""
        whole, rest = divmod(len(np.unique(self.owner[self._rows()])), self.batch_size)
        rest -= rest % self.world
        return [self.batch_size] * whole + [rest] * (rest >= 2 * self.world)

    def __len__(self) -> int:
        """Batches of an epoch."""
        return len(self._sizes())

    def epoch(self, number: int) -> list[np.ndarray]:
        """Sentence rows of an epoch's batches, (T, images) int64 each; -1 where a set has no more sentences."""
        rng = np.random.default_rng([self.seed, self.stage, number])
        rows = rng.permutation(self._rows())
        rows = rows[np.argsort(self.owner[rows], kind="stable")]  # grouped by image, in random order inside
        _, start, count = np.unique(self.owner[rows], return_index=True, return_counts=True)
        place = np.arange(min(self.turns, int(count.max())))[:, None]
        drawn = np.where(place < count, rows[start + np.minimum(place, count - 1)], -1)  # (T,images)
        drawn = rng.permutation(drawn, axis=1)
        ends = np.cumsum(self._sizes())
        return [drawn[:, end - size : end] for size, end in zip(self._sizes(), ends, strict=True)]


def shard(batch: np.ndarray, rank: int, world: int) -> np.ndarray:
    """The part (K, items / world) of a batch that one process encodes; contiguous, so gathering restores the order.

    >>> shard(np.arange(6)[None], 1, 2).tolist()
    [[3, 4, 5]]
    """
    size = batch.shape[1] // world
    return batch[:, rank * size : (rank + 1) * size]


def step_seed(seed: int, stage: int, step: int, rank: int) -> int:
    """The seed of everything random inside one step (dropout, hidden tokens, left-out words), 63 bits.

    Each step starts from its own seed, so a run resumed at any step draws what the unbroken run drew.
    """
    state = np.random.SeedSequence([seed, stage, step, rank]).generate_state(2, np.uint32)
    return (int(state[0]) << 31) ^ int(state[1])
