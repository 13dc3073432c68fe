"""The index of a gallery, kept in step with its store."""

from __future__ import annotations

import uuid
from typing import Any

import numpy as np

from xretrieve.errors import XRetrieveError
from xretrieve.gallery_store import Store
from xretrieve.index import FlatIndex, Index, create_index, load_index, recall_against_flat
from xretrieve.utils.checksums import seal, verify

EXACT = ("flat", "faiss-flat")  # indexes that approximate nothing
RECALL_K = 10
RECALL_QUERIES = 256
MIN_TRAIN = 256  # vectors that ivfpq needs


class GalleryIndex:
    """Row numbers under the vectors of a :class:`Store`.

    A flat index is the store's own memory-mapped vectors. Any other is written beside them; what was added or removed
    since is applied when the gallery is opened, and it is written anew when a tenth of its rows are newer.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._index: Index | None = None
        self._rows = 0  # rows of the store that are in the index
        self._removed = 0  # entries of the store's list of removed rows that are out of it

    @property
    def name(self) -> str:
        """Name of the index."""
        return self._store.info["index"]["name"]

    def described(self) -> dict[str, Any]:
        """What stays true of the index when it has to be built anew."""
        return {key: self._store.info["index"][key] for key in ("name", "options")}

    def search(self, vectors: np.ndarray, k: int, allowed: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
        """Scores (Q, k) and rows (Q, k) of the best ``k`` per query (Q, D).

        An approximate index that finds fewer than there are is not believed: all vectors are compared then.
        """
        index, store = self._ready(), self._store
        scores, rows = index.search(vectors, k, allowed)
        there = len(store) if allowed is None else len(allowed)
        if index.name in EXACT or bool((rows[:, : min(k, there)] >= 0).all()):
            return scores, rows
        flat, start = FlatIndex(index.dim), 0
        for part in store.parts:
            flat.add(np.arange(start, start + len(part)), part)
            start += len(part)
        return flat.search(vectors, k, store.live() if allowed is None else allowed)

    def load(self) -> None:
        """Make it ready for the first search now."""
        self._ready()

    def update(self) -> None:
        """Follow the store after a change; an index file that has fallen behind is written anew."""
        if self.name == "flat":
            if self._index is not None:
                self._ready()
        elif (self._store.total - self._store.info["index"].get("rows", 0)) * 10 > self._store.total:
            self.write()

    def write(self, queries: tuple[str, np.ndarray] | None = None) -> None:
        """Write an approximate index to disk with its recall; ``queries`` (what they are, vectors) to measure it with,
        by default vectors of the gallery itself. Nothing is written for the flat index."""
        if self.name == "flat" or not len(self._store):
            return
        if self._index is not None and self._index.name != self.name and len(self._store) >= MIN_TRAIN:
            self._index, self._rows, self._removed = None, 0, 0
        index, info = self._ready(), self.described()
        if index.name != self.name:
            return
        live = self._store.live()
        if queries is None:
            sample = live[np.unique(np.linspace(0, len(live) - 1, RECALL_QUERIES).astype(int))]
            queries = "vectors of the gallery", self._store.vectors(sample)
        flat = FlatIndex(index.dim)
        flat.add(live, self._store.vectors(live))
        recall = recall_against_flat(index, flat, queries[1], RECALL_K)
        info["recall"] = {"value": round(recall, 4), "k": RECALL_K, "queries": len(queries[1]), "kind": queries[0]}
        info |= {"folder": f"index-{uuid.uuid4().hex[:6]}", "rows": self._rows, "removed": self._removed}
        index.save(self._store.folder / info["folder"])
        info["sum"] = seal(self._store.folder / info["folder"])
        self._store.change(index=info)
        self._store.clean()

    def _ready(self) -> Index:
        """The index with every row of the store in it and every removed row out of it."""
        store, info = self._store, self._store.info["index"]
        if self._index is None:
            if info.get("folder"):
                try:
                    verify(store.folder / info["folder"], sealed=info.get("sum"))
                    self._index = load_index(store.folder / info["folder"])
                    self._rows, self._removed = info["rows"], info["removed"]
                except XRetrieveError:
                    if not store.stale:
                        raise
                    self._index = FlatIndex(store.info["dim"])  # replaced meanwhile; the vectors that were read answer
            else:
                self._index = self._new()
        if self._rows == 0 and self._index.name != "flat":  # in one go: the first vectors also train some indexes
            self._index.add(np.arange(store.total), store.vectors(np.arange(store.total)))
            self._rows = store.total
        start = 0
        for part in store.parts:
            if len(part) and start >= self._rows:  # a part is in the index as a whole or not at all
                self._index.add(np.arange(start, start + len(part)), part)
            start += len(part)
        self._rows = store.total
        fresh, self._removed = store.info["removed"][self._removed :], len(store.info["removed"])
        if fresh:
            self._index.remove(np.array(fresh, np.int64))
        return self._index

    def _new(self) -> Index:
        if (
            self.name == "ivfpq" and self._store.total < MIN_TRAIN
        ):  # so much was removed: exact search does until more come
            return FlatIndex(self._store.info["dim"])
        return create_index(self.name, self._store.info["dim"], **self._store.info["index"]["options"])
