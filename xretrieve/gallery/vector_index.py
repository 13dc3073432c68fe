"""The index of a gallery, kept in step with its store."""

from __future__ import annotations

import uuid
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np

from xretrieve.errors import XRetrieveError
from xretrieve.gallery.store import Store
from xretrieve.index import Fitted, FlatIndex, Index, create_index, fit_recall, load_index, moved_vectors
from xretrieve.index.auto import threshold_of
from xretrieve.utils.checksums import seal, verify

EXACT = ("auto", "flat", "faiss-flat")  # indexes that find what exact search finds
RECALL_K = 10
RECALL_QUERIES = 256
MIN_TRAIN = 256  # vectors that ivfpq needs
AUTO_RECALL = 0.999  # what `auto` must find, unless another share is asked for
LOW = 0.95  # an approximate index that finds less is told of, if no share was asked for
Queries = tuple[str, np.ndarray]  # what they are, vectors


class GalleryIndex:
    """Row numbers under the vectors of a :class:`Store`.

    A flat index is the store's own memory-mapped vectors. Of `auto` the codes are written beside them, of any other all
    of it; what was added or removed since is applied when the gallery is opened, and it is written anew when a tenth
    of its rows are newer.
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

    @property
    def approximate(self) -> bool:
        """Whether it has something of its own on disk, whose recall is measured: not flat, nor `auto` while it is."""
        return self.name != "flat" and not self._flat_auto

    @property
    def _flat_auto(self) -> bool:
        return self.name == "auto" and len(self._store) <= self._threshold

    @property
    def _threshold(self) -> int:
        options = self._store.info["index"]["options"]
        return threshold_of(options.get("threshold"), options.get("codes", ""))

    def described(self) -> dict[str, Any]:
        """What stays true of the index when it has to be built anew."""
        kept = ("name", "options", "target", "codes")
        return {key: value for key, value in self._store.info["index"].items() if key in kept}

    def search(self, vectors: np.ndarray, k: int, allowed: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
        """Scores (Q, k) and rows (Q, k) of the best ``k`` per query (Q, D).

        An approximate index that finds fewer than there are is not believed: all vectors are compared then.
        """
        index, store = self._ready(), self._store
        scores, rows = index.search(vectors, k, allowed)
        there = len(store) if allowed is None else len(allowed)
        if index.name in EXACT or bool((rows[:, : min(k, there)] >= 0).all()):
            return scores, rows
        return self._exact().search(vectors, k, allowed)

    def load(self) -> None:
        """Make it ready for the first search now."""
        self._ready()

    def update(self) -> list[str]:
        """Follow the store after a change; an index file that has fallen behind is written anew. What the reader should
        know of it."""
        info = self._store.info["index"]
        if not self.approximate:
            if self._index is not None:
                self._ready()
            return self._back_to_flat()
        if (self._store.total - info.get("rows", 0)) * 10 > self._store.total:
            return self.write()
        return []

    def write(self, queries: Queries | Callable[[], Queries | None] | None = None) -> list[str]:
        """Write an approximate index to disk with its recall, and say what the reader should know of it.

        ``queries`` to measure it with: vectors, or what makes them, called if they are needed; by default vectors of
        the gallery, moved. With a ``target`` in its description the least effort is chosen that reaches it; where none
        does, an exact index takes its place. Nothing is written for the flat index.
        """
        if not self.approximate:
            return self._back_to_flat()
        if not len(self._store):
            return []
        before = self._store.info["index"]
        if self._index is not None and self._index.name != self.name and len(self._store) >= MIN_TRAIN:
            self._forget()
        index, info = self._ready(make=True), self.described()
        if index.name != self.name:
            return []
        made = queries() if callable(queries) else queries
        kind, vectors = made or self._moved()
        target = info.get("target") or (AUTO_RECALL if self.name == "auto" else None)
        truth = self._exact()
        fitted = fit_recall(index, truth, vectors, target, RECALL_K)
        if not fitted.met and before.get("folder"):  # it may know too little of what was added since
            self._forget()
            index = self._ready(anew=True, make=True)
            fitted = fit_recall(index, truth, vectors, target, RECALL_K)
        if not fitted.met:
            return self._fall_back(fitted, target or 1.0)
        info["recall"] = {"value": round(fitted.recall, 4), "k": RECALL_K, "queries": len(vectors), "kind": kind}
        if fitted.option:
            info["chosen"] = {fitted.option: fitted.value}
        if self.name == "auto":
            info["codes"] = index.codes  # type: ignore[attr-defined]
        notes = self._notes(before, info)
        if notes:
            info["note"] = "; ".join(notes)
        info |= {"folder": f"index-{uuid.uuid4().hex[:6]}", "rows": self._rows, "removed": self._removed}
        more = {"vectors": False} if self.name == "auto" else {}
        index.save(self._store.folder / info["folder"], **more)
        info["sum"] = seal(self._store.folder / info["folder"])
        self._store.change(index=info)
        self._store.clean()
        return notes

    def _notes(self, before: dict[str, Any], info: dict[str, Any]) -> list[str]:
        recall, notes = info["recall"]["value"], []
        if self.name == "auto" and not before.get("codes") and self._store.info["revision"] > 1:
            notes.append(f"{len(self._store)} pictures are more than {self._threshold}: from here codes choose the "
                         "vectors that are scored exactly")  # fmt: skip
        elif "target" not in info and recall < LOW:
            notes.append(f"index {self.name} finds only {100 * recall:.1f} % of the {RECALL_K} nearest; build it with "
                         "recall=0.99 (--recall 0.99), or as 'auto'")  # fmt: skip
        return notes

    def _fall_back(self, fitted: Fitted, target: float) -> list[str]:
        note = (
            f"index {self.name} finds {fitted.recall:.4f} of the {RECALL_K} nearest even with "
            f"{fitted.option}={fitted.value}, less than {target}: the exact index 'flat' takes its place"
        )
        self._forget()
        self._store.change(index={"name": "flat", "options": {}, "note": note, "instead_of": self._plain()})
        self._store.clean()
        return [note]

    def _plain(self) -> dict[str, Any]:
        return {key: value for key, value in self.described().items() if key != "codes"}

    def _back_to_flat(self) -> list[str]:
        """`auto` reads every vector again, once there are few; of any other exact index nothing is on disk."""
        if not self._store.info["index"].get("codes"):
            return []
        self._store.change(index=self._plain())
        self._store.clean()
        return [f"{len(self._store)} pictures are no more than {self._threshold}: from here every vector is scored"]

    def _forget(self) -> None:
        self._index, self._rows, self._removed = None, 0, 0

    def _moved(self) -> Queries:
        live = self._store.live()
        sample = live[np.unique(np.linspace(0, len(live) - 1, RECALL_QUERIES).astype(int))]
        return "moved vectors of the gallery", moved_vectors(self._store.vectors(sample))

    def _exact(self) -> FlatIndex:
        """Exact search over the store's memory-mapped vectors."""
        flat, start = FlatIndex(self._store.info["dim"]), 0
        for part in self._store.parts:
            if len(part):
                flat.add(np.arange(start, start + len(part)), part)
            start += len(part)
        flat.remove(np.array(self._store.info["removed"], np.int64))
        return flat

    def _ready(self, anew: bool = False, make: bool = False) -> Index:
        """The index with every row of the store in it and every removed row out of it; ``anew``: not the one on
        disk. Who writes it has codes of `auto` made, which takes seconds (``make``); until then one that has none on
        disk is flat: of a gallery that was built when they began later, or without FAISS."""
        store, info = self._store, self._store.info["index"]
        if make and self.name == "auto" and self._index is not None and self._index.name == "flat":
            self._forget()
        if self._index is None and info.get("folder") and not anew:
            self._index = self._read()
        elif self._index is None:
            self._index = self._new() if make or self.name != "auto" else FlatIndex(store.info["dim"])
        if self._rows == 0 and self._index.name not in ("flat", "auto"):  # in one go: the first vectors also train it
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

    def _read(self) -> Index:
        """The index on disk. Codes that cannot be read are made anew from the vectors, which takes seconds."""
        store, info = self._store, self._store.info["index"]
        folder, vectors = store.folder / info["folder"], None
        if self.name == "auto":  # its vectors are the store's
            ends = np.cumsum([len(part) for part in store.parts])
            vectors = [part for part, end in zip(store.parts, ends, strict=True) if end <= info["rows"] and len(part)]
        try:
            verify(folder, sealed=info.get("sum"))
            index = load_index(folder, vectors)
        except XRetrieveError as error:
            if store.stale:
                return FlatIndex(store.info["dim"])  # replaced meanwhile; the vectors that were read answer
            if self.name != "auto":
                raise
            warnings.warn(f"{error}; it is made anew for now, `Gallery.save` writes it", stacklevel=2)
            index = self._new()
            index.options |= info.get("chosen", {})  # type: ignore[attr-defined]
            return index
        self._rows, self._removed = info["rows"], info["removed"]
        return index

    def _new(self) -> Index:
        if (
            self.name == "ivfpq" and self._store.total < MIN_TRAIN
        ):  # so much was removed: exact search does until more come
            return FlatIndex(self._store.info["dim"])
        return create_index(self.name, self._store.info["dim"], **self._store.info["index"]["options"])
