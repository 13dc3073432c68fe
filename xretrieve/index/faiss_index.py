"""FAISS behind the same interface: exact, HNSW and IVF-PQ."""

from __future__ import annotations

import math
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from xretrieve.errors import XRetrieveError
from xretrieve.index.base import check_ids, check_vectors
from xretrieve.utils.arrays import load_npy
from xretrieve.utils.files import atomic_folder, read_json, write_json

OPTIONS = {
    "faiss-flat": ("gpu",),
    "hnsw": ("m", "ef_construction", "ef_search"),
    "ivfpq": ("nlist", "pq", "nprobe", "gpu"),
}
SELECTIVE = 0.1  # a filter that leaves less than this share is searched without the approximation


def import_faiss() -> ModuleType:
    """The module faiss, or an error that says how to get it."""
    try:
        import faiss
    except ImportError as error:
        raise XRetrieveError(
            "this index needs faiss: pip install 'xretrieve[faiss]' (or 'xretrieve[faiss-gpu]'), "
            "or use index 'auto' or 'flat', which need nothing else"
        ) from error
    return faiss


class FaissIndex:
    """``faiss-flat``, ``hnsw`` or ``ivfpq``, by inner product.

    HNSW cannot delete: a removed vector stays in the graph and is never returned (``removed`` counts them). Once a
    third of the graph is such, :attr:`rebuild` is True and building anew from the vectors is quicker to search.
    With the GPU build of FAISS, searches without a filter run on the first GPU (``gpu=False`` turns it off); HNSW and
    filtered searches run on the CPU.

    Args:
        name: one of the three names.
        dim: width of the vectors.
        options: ``hnsw``: ``m`` links per vector (32), ``ef_construction`` (200), ``ef_search`` (128).
            ``ivfpq``: ``nlist`` cells (about 4 sqrt(N)), ``pq`` bytes per vector (dim / 8), ``nprobe`` cells searched
            (an eighth of them); its first ``add`` also trains it.
    """

    def __init__(self, name: str, dim: int, **options: Any) -> None:
        self._faiss = import_faiss()
        if dim < 1:
            raise XRetrieveError(f"index {name}: dim {dim} must be positive")
        self.name, self.dim, self.options = name, dim, options
        self._ids = np.zeros(0, np.int64)  # every id in the FAISS index, removed ones too
        self._removed = np.zeros(0, np.int64)
        self._gpu: Any = None  # a copy of the index on the GPU, made at the first search after a change
        self._index: Any = None
        if name != "ivfpq":  # whose cells depend on the number of vectors: it is made by the first `add`
            self._make(0)

    def _make(self, count: int) -> None:
        faiss, o, ip = self._faiss, self.options, self._faiss.METRIC_INNER_PRODUCT
        if self.name == "faiss-flat":
            self._index = faiss.index_factory(self.dim, "IDMap2,Flat", ip)
        elif self.name == "hnsw":
            self._index = faiss.index_factory(self.dim, f"IDMap2,HNSW{o.get('m', 32)},Flat", ip)
            graph = faiss.downcast_index(self._index.index).hnsw
            graph.efConstruction = o.get("ef_construction", 200)
        else:
            pq = o.get("pq") or next(m for m in range(max(1, self.dim // 8), 0, -1) if self.dim % m == 0)
            if self.dim % pq:
                raise XRetrieveError(f"index ivfpq: pq={pq} does not divide the {self.dim} values of a vector")
            if count < 256:
                raise XRetrieveError(f"index ivfpq: {count} vectors are too few to train it (256 at least); use 'flat'")
            nlist = o.get("nlist") or max(1, min(count // 39, round(4 * math.sqrt(count))))
            if nlist > count:
                raise XRetrieveError(
                    f"index ivfpq: nlist={nlist} cells for {count} vectors; give at most one cell per vector"
                )
            # ids are kept by the cells themselves: IDMap2 would lose track of them when vectors are removed
            # "np": no polysemous codes; they are never searched here and cost 40 s of training at 32 bytes
            self._index = faiss.index_factory(self.dim, f"IVF{nlist},PQ{pq}x8np", ip)
            faiss.extract_index_ivf(self._index).cp.min_points_per_centroid = 1

    def __len__(self) -> int:
        return len(self._ids) - len(self._removed)

    @property
    def cells(self) -> int:
        """Cells of an IVF-PQ index, 0 of others."""
        return int(self._index.nlist) if self.name == "ivfpq" and self._index is not None else 0

    @property
    def removed(self) -> int:
        """Vectors that are in the graph but can no longer be found."""
        return len(self._removed)

    @property
    def rebuild(self) -> bool:
        """True when so much was removed that a new index would be quicker."""
        return len(self._removed) * 3 > len(self._ids)

    def add(self, ids: np.ndarray, vectors: np.ndarray) -> None:
        """Add vectors (N, dim) under new ids (N,); an id that was removed from an HNSW index cannot come back."""
        array = check_vectors(vectors, self.dim, f"index {self.name}")
        ids = check_ids(ids, len(array), self._ids)
        if not len(ids):
            return
        if self._index is None:
            self._make(len(array))
        if not self._index.is_trained:
            self._index.train(array)
        self._index.add_with_ids(array, ids)
        self._ids, self._gpu = np.concatenate([self._ids, ids]), None

    def remove(self, ids: np.ndarray) -> None:
        """Remove by id; an unknown id is an error and removes nothing."""
        wanted = np.unique(np.asarray(ids, dtype=np.int64))
        missing = wanted[~np.isin(wanted, self._ids) | np.isin(wanted, self._removed)]
        if len(missing):
            raise XRetrieveError(f"index: there is no id {int(missing[0])}")
        self._gpu = None
        if self.name == "hnsw":
            self._removed = np.concatenate([self._removed, wanted])
        elif len(wanted):
            self._index.remove_ids(self._faiss.IDSelectorBatch(wanted))
            self._ids = self._ids[~np.isin(self._ids, wanted)]

    def search(self, vectors: np.ndarray, k: int, allowed: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
        """The best ``k`` per query (Q, dim): scores (Q, k) and ids (Q, k), padded with -inf and -1.

        A filter that leaves under a tenth of the vectors is searched in full: a few links or cells would miss most.
        """
        queries = check_vectors(vectors, self.dim, "query")
        if k < 1:
            raise XRetrieveError(f"k is {k}; ask for at least 1 result")
        scores, ids = np.full((len(queries), k), -np.inf, np.float32), np.full((len(queries), k), -1, np.int64)
        usable = self._ids[~np.isin(self._ids, self._removed)] if len(self._removed) else self._ids
        if allowed is not None:
            usable = usable[np.isin(usable, np.asarray(allowed, np.int64))]
        if not len(usable) or not len(queries):
            return scores, ids
        filtered = len(usable) < len(self._ids)
        if filtered and self.name == "hnsw" and len(usable) < SELECTIVE * len(self._ids):
            return self._exact(queries, usable, k)
        top = min(k, len(usable))
        index = self._index if filtered or self.name == "hnsw" else self._on_gpu()
        s, i = index.search(
            queries, top, params=self._parameters(usable, filtered, k) if index is self._index else None
        )
        i, s = i.astype(np.int64), np.where(i < 0, -np.inf, s).astype(np.float32)
        scores[:, :top], ids[:, :top] = s, i
        return scores, ids

    def _parameters(self, usable: np.ndarray, filtered: bool, k: int) -> Any:
        faiss, o = self._faiss, self.options
        values: dict[str, Any] = {}
        if filtered and usable.max() < 2**31:  # a bit per id: a set of a million ids would take longer than the search
            bits = np.zeros(int(usable.max()) + 1, bool)
            bits[usable] = True
            self._bits = np.packbits(
                bits, bitorder="little"
            )  # the selector only points at it: it must outlive the search
            values["sel"] = faiss.IDSelectorBitmap(self._bits)
        elif filtered:
            values["sel"] = faiss.IDSelectorBatch(usable)
        if self.name == "hnsw":
            return faiss.SearchParametersHNSW(efSearch=max(o.get("ef_search", 128), 2 * k), **values)
        if self.name == "ivfpq":
            nlist = self._index.nlist
            probe = (
                nlist if filtered and len(usable) < SELECTIVE * len(self._ids) else o.get("nprobe") or -(-nlist // 8)
            )
            return faiss.SearchParametersIVF(nprobe=min(probe, nlist), **values)
        return faiss.SearchParameters(**values) if values else None

    def _exact(self, queries: np.ndarray, usable: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        from xretrieve.index.flat import FlatIndex

        flat = FlatIndex(self.dim)
        flat.add(usable, self._index.reconstruct_batch(usable))
        return flat.search(queries, k)

    def _on_gpu(self) -> Any:
        faiss = self._faiss
        if not self.options.get("gpu", True) or not hasattr(faiss, "StandardGpuResources") or not faiss.get_num_gpus():
            return self._index
        if self._gpu is None:
            if self.name == "ivfpq":
                self._index.nprobe = self.options.get("nprobe") or -(-self._index.nlist // 8)
            self._gpu = faiss.index_cpu_to_gpu(faiss.StandardGpuResources(), 0, self._index)
        return self._gpu

    def save(self, path: str | Path) -> None:
        """Write ``index.faiss``, ``ids.npy``, ``removed.npy`` and ``index.json``."""
        with atomic_folder(path) as part:
            if self._index is not None:
                self._faiss.write_index(self._index, str(part / "index.faiss"))
            np.save(part / "ids.npy", self._ids)
            np.save(part / "removed.npy", self._removed)
            write_json(part / "index.json", {"name": self.name, "dim": self.dim, "options": self.options})

    @classmethod
    def load(cls, path: str | Path) -> FaissIndex:
        """Read what :meth:`save` wrote."""
        path = Path(path)
        config = read_json(path / "index.json")
        index = cls(config["name"], config["dim"], **config["options"])
        try:
            if (path / "index.faiss").exists():
                index._index = index._faiss.read_index(str(path / "index.faiss"))
            index._ids, index._removed = load_npy(path / "ids.npy"), load_npy(path / "removed.npy")
        except (OSError, ValueError, RuntimeError) as error:
            raise XRetrieveError(f"{path} holds a damaged index ({error}); build it again") from error
        return index
