"""Indexes over coarse vectors: exact search in torch, and FAISS where it is installed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from xretrieve.errors import XRetrieveError, unknown
from xretrieve.index.base import Index
from xretrieve.index.flat import FlatIndex
from xretrieve.utils.files import read_json

# name: what it is. `flat` is this package's own; the others need the module faiss.
INDEXES = {
    "flat": "exact, in torch; needs nothing else",
    "faiss-flat": "exact, in FAISS (on the GPU with its GPU build)",
    "hnsw": "graph, approximate; options m=32, ef_construction=200, ef_search=128",
    "ivfpq": "clustered and compressed, approximate; options nlist, pq, nprobe",
}

__all__ = ["INDEXES", "FlatIndex", "Index", "create_index", "list_indexes", "load_index", "recall_against_flat"]


def list_indexes() -> list[str]:
    """The names that :func:`create_index` takes.

    >>> list_indexes()
    ['flat', 'faiss-flat', 'hnsw', 'ivfpq']
    """
    return list(INDEXES)


def create_index(name: str, dim: int, **options: Any) -> Index:
    """An empty index for vectors of ``dim`` values, searched by inner product.

    Without faiss every name but ``flat`` raises an error that says what to install.

    >>> index = create_index("flat", 2)
    >>> index.add(np.array([7, 9]), np.array([[1.0, 0.0], [0.0, 1.0]]))
    >>> index.search(np.array([[0.0, 1.0]]), k=1)[1].tolist()
    [[9]]
    """
    if name not in INDEXES:
        raise unknown("index", name, INDEXES)
    if name == "flat":
        return FlatIndex(dim, **_known(name, options, FlatIndex.OPTIONS))
    from xretrieve.index.faiss_index import OPTIONS, FaissIndex

    return FaissIndex(name, dim, **_known(name, options, OPTIONS[name]))


def load_index(path: str | Path) -> Index:
    """Read what an index's ``save`` wrote."""
    path = Path(path)
    config = read_json(path / "index.json")
    if not isinstance(config, dict) or config.get("name") not in INDEXES:
        raise XRetrieveError(f"{path / 'index.json'} does not describe an index")
    if config["name"] == "flat":
        return FlatIndex.load(path)
    from xretrieve.index.faiss_index import FaissIndex

    return FaissIndex.load(path)


def recall_against_flat(index: Index, flat: Index, queries: np.ndarray, k: int = 10) -> float:
    """Share of the exact top ``k`` that ``index`` finds, averaged over ``queries`` (Q, D); 1.0 is exact."""
    true, found = flat.search(queries, k)[1], index.search(queries, k)[1]
    shares = [
        len(set(f) & wanted) / len(wanted)
        for t, f in zip(true, found, strict=True)
        if (wanted := set(t[t >= 0].tolist()))
    ]
    return float(np.mean(shares)) if shares else 1.0


def _known(name: str, options: dict[str, Any], names: tuple[str, ...]) -> dict[str, Any]:
    for key in options:
        if key not in names:
            raise unknown(f"option of index {name!r}", key, names)
    return options
