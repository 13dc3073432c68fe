"""Indexes over coarse vectors: exact search in torch, codes with exact scores, and FAISS where it is installed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from xretrieve.errors import XRetrieveError, unknown
from xretrieve.index.auto import AutoIndex
from xretrieve.index.base import Index
from xretrieve.index.flat import FlatIndex
from xretrieve.index.recall import Fitted, fit_recall, moved_vectors, recall_against_flat
from xretrieve.utils.files import read_json

# name: what it is. `auto` and `flat` are this package's own; the others need the module faiss.
INDEXES = {
    "auto": "flat while that is cheap, then codes choose what is scored exactly; options threshold, rescored, codes",
    "flat": "exact, in torch; needs nothing else",
    "faiss-flat": "exact, in FAISS (on the GPU with its GPU build)",
    "hnsw": "graph, approximate; options m=32, ef_construction=200, ef_search=128",
    "ivfpq": "clustered and compressed, approximate; options nlist, pq, nprobe",
}
OWN: dict[str, type[FlatIndex]] = {"auto": AutoIndex, "flat": FlatIndex}

__all__ = ["INDEXES", "AutoIndex", "Fitted", "FlatIndex", "Index", "create_index", "fit_recall", "list_indexes",
           "load_index", "moved_vectors", "recall_against_flat"]  # fmt: skip


def list_indexes() -> list[str]:
    """The names that :func:`create_index` takes.

    >>> list_indexes()
    ['auto', 'flat', 'faiss-flat', 'hnsw', 'ivfpq']
    """
    return list(INDEXES)


def create_index(name: str, dim: int, **options: Any) -> Index:
    """An empty index for vectors of ``dim`` values, searched by inner product.

    Without faiss every name but ``auto`` and ``flat`` raises an error that says what to install.

    >>> index = create_index("flat", 2)
    >>> index.add(np.array([7, 9]), np.array([[1.0, 0.0], [0.0, 1.0]]))
    >>> index.search(np.array([[0.0, 1.0]]), k=1)[1].tolist()
    [[9]]
    """
    if name not in INDEXES:
        raise unknown("index", name, INDEXES)
    if name in OWN:
        return OWN[name](dim, **_known(name, options, OWN[name].OPTIONS))
    from xretrieve.index.faiss_index import OPTIONS, FaissIndex

    return FaissIndex(name, dim, **_known(name, options, OPTIONS[name]))


def load_index(path: str | Path, vectors: Sequence[np.ndarray] | None = None) -> Index:
    """Read what an index's ``save`` wrote; ``vectors``, as it was given them, for one saved without."""
    path = Path(path)
    config = read_json(path / "index.json")
    if not isinstance(config, dict) or config.get("name") not in INDEXES:
        raise XRetrieveError(f"{path / 'index.json'} does not describe an index")
    if config["name"] == "auto":
        return AutoIndex.load(path, vectors)
    if config["name"] == "flat":
        return FlatIndex.load(path)
    from xretrieve.index.faiss_index import FaissIndex

    return FaissIndex.load(path)


def _known(name: str, options: dict[str, Any], names: tuple[str, ...]) -> dict[str, Any]:
    for key in options:
        if key not in names:
            raise unknown(f"option of index {name!r}", key, names)
    return options
