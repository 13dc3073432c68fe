"""Short codes of vectors: a scan of all of them says which few are worth an exact score.

Two kinds: 4-bit product quantisation in FAISS, and one bit per value in numpy where FAISS is not installed.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from xretrieve.errors import XRetrieveError, unknown

SAMPLE = 50_000  # vectors that codes are trained on
BLOCK = 16_384  # vectors that are coded, or scanned, at once
SEED = 0


class Codes(Protocol):
    """Vectors as codes, by place: the first one added is 0."""

    kind: str

    def train(self, sample: np.ndarray) -> None:
        """Learn from some of the vectors (N, D)."""

    def add(self, vectors: np.ndarray) -> None:
        """Code vectors (N, D) float32, a block at a time."""

    def nearest(self, queries: np.ndarray, n: int) -> np.ndarray:
        """Places (Q, n) of the ``n`` best by the codes, best first; -1 where there are fewer."""

    def products(self, query: np.ndarray, vectors: np.ndarray, places: np.ndarray) -> np.ndarray:
        """Inner products (N,) of a query (D,) with the ``vectors`` (M, D) at some places (N,), float32, the vectors
        themselves."""

    def save(self, folder: Path) -> None:
        """Write the codes into a folder."""

    def load(self, folder: Path) -> None:
        """Read what :meth:`save` wrote."""

    def __len__(self) -> int:
        """Vectors that are coded."""


class PQCodes:
    """4 bits for every two values (Andre et al. 2015), scanned from registers by FAISS's ``IndexPQFastScan``."""

    kind = "pq4"

    def __init__(self, dim: int) -> None:
        from xretrieve.index.faiss_index import import_faiss

        self._faiss = import_faiss()
        self._odd = dim % 2  # one more value, always 0, makes pairs of all
        self._index: Any = self._faiss.IndexPQFastScan(dim + self._odd, (dim + 1) // 2, 4,
                                                       self._faiss.METRIC_INNER_PRODUCT)  # fmt: skip

    def __len__(self) -> int:
        return int(self._index.ntotal)

    def _pairs(self, vectors: np.ndarray) -> np.ndarray:
        return np.ascontiguousarray(np.pad(vectors, ((0, 0), (0, self._odd))) if self._odd else vectors)

    def train(self, sample: np.ndarray) -> None:
        """Learn from some of the vectors (N, D)."""
        self._index.pq.cp.min_points_per_centroid = 1  # a small sample is no reason for a warning
        enough = np.resize(sample, (max(16, len(sample)), sample.shape[1]))  # 4 bits want 16 at least
        self._index.train(self._pairs(enough))

    def add(self, vectors: np.ndarray) -> None:
        """Code vectors (N, D) float32, a block at a time."""
        for start in range(0, len(vectors), BLOCK):
            self._index.add(self._pairs(vectors[start : start + BLOCK]))

    def nearest(self, queries: np.ndarray, n: int) -> np.ndarray:
        """Places (Q, n) of the best by the codes, best first, then -1."""
        places: np.ndarray = self._index.search(self._pairs(queries), n)[1]
        return places.astype(np.int64)

    def products(self, query: np.ndarray, vectors: np.ndarray, places: np.ndarray) -> np.ndarray:
        """Inner products (N,) with the vectors at some places: FAISS copies none of them, which halves the time."""
        made = np.empty(len(places), np.float32)
        query, vectors = (np.ascontiguousarray(array, np.float32) for array in (query, vectors))
        places = np.ascontiguousarray(places, np.int64)
        pointers = (self._faiss.swig_ptr(array) for array in (made, query, vectors, places))
        self._faiss.fvec_inner_products_by_idx(*pointers, vectors.shape[1], 1, len(places))
        return made

    def save(self, folder: Path) -> None:
        """Write the codes into a folder."""
        self._faiss.write_index(self._index, str(folder / "codes.faiss"))

    def load(self, folder: Path) -> None:
        """Read what :meth:`save` wrote."""
        self._index = self._faiss.read_index(str(folder / "codes.faiss"))


class BinaryCodes:
    """The signs of the vectors' values, once they are centred and turned (RaBitQ, Gao and Long 2024).

    A query keeps three bits a value, so its product with a code is three times AND and a count of bits per word. A
    factor for each vector makes it an estimate of the inner product.
    """

    kind = "binary"
    PLANES = 3  # bits of a query's value

    def __init__(self, dim: int) -> None:
        self._dim, self._words = dim, -(-dim // 64)
        self._mean = np.zeros(dim, np.float32)
        self._turn = np.zeros((0, 0), np.float32)  # (D, 64 words), orthogonal rows
        self._codes = np.zeros((self._words, 0), np.uint64)  # word by word: a block of each fits the cache
        self._factor = np.zeros(0, np.float32)
        self._ones = np.zeros(0, np.uint16)  # bits set

    def __len__(self) -> int:
        return self._codes.shape[1]

    def train(self, sample: np.ndarray) -> None:
        """Learn from some of the vectors (N, D)."""
        self._mean = sample.mean(0, dtype=np.float64).astype(np.float32)
        width = 64 * self._words
        square = np.random.default_rng(SEED).standard_normal((width, width))
        self._turn = np.ascontiguousarray(np.linalg.qr(square)[0][: self._dim], np.float32)

    def add(self, vectors: np.ndarray) -> None:
        """Code vectors (N, D) float32, a block at a time."""
        made = [self._coded(vectors[start : start + BLOCK]) for start in range(0, len(vectors), BLOCK)]
        if made:
            codes, factors = zip(*made, strict=True)
            self._codes = np.concatenate([self._codes, *codes], axis=1)
            self._factor = np.concatenate([self._factor, *factors])
            self._count()

    def _coded(self, vectors: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        turned = (vectors - self._mean) @ self._turn  # (N, 64 words)
        bits = np.packbits(turned > 0, axis=1, bitorder="little").view(np.uint64)  # (N, words)
        length = np.abs(turned).sum(1)
        return np.ascontiguousarray(bits.T), np.divide((turned**2).sum(1), length, where=length > 0,
                                                       out=np.zeros_like(length))  # fmt: skip

    def _count(self) -> None:
        self._ones = np.zeros(len(self), np.uint16)
        for word in self._codes:
            self._ones += _ones(word)

    def nearest(self, queries: np.ndarray, n: int) -> np.ndarray:
        """Places (Q, n) of the best by the codes, best first, then -1."""
        import torch

        out = np.full((len(queries), n), -1, np.int64)
        top = min(n, len(self))
        for row, query in enumerate(queries):
            out[row, :top] = torch.from_numpy(self._scores(query)).topk(top).indices.numpy()
        return out

    def products(self, query: np.ndarray, vectors: np.ndarray, places: np.ndarray) -> np.ndarray:
        """Inner products (N,) with the vectors at some places."""
        made: np.ndarray = vectors[places] @ query
        return made

    def _scores(self, query: np.ndarray) -> np.ndarray:
        """(N,) float32: estimates of the inner products, less what is the same for all."""
        turned = query @ self._turn  # (64 words,)
        low, step = turned.min(), (turned.max() - turned.min()) / (2**self.PLANES - 1) or np.float32(1)
        levels = np.rint((turned - low) / step).astype(np.uint8)
        planes = [np.packbits(levels >> p & 1, bitorder="little").view(np.uint64) for p in range(self.PLANES)]
        scores = np.empty(len(self), np.float32)
        both, total = np.empty(BLOCK, np.uint64), np.empty(BLOCK, np.uint16)
        for start in range(0, len(self), BLOCK):
            codes = self._codes[:, start : start + BLOCK]
            here, sums = both[: codes.shape[1]], total[: codes.shape[1]]
            sums[:] = 0
            for plane in reversed(planes):
                sums <<= 1
                for word, asked in zip(codes, plane, strict=True):
                    sums += _ones(np.bitwise_and(word, asked, out=here))
            found = slice(start, start + BLOCK)
            positive = step * sums + low * self._ones[found]  # what the values at set bits add up to
            scores[found] = self._factor[found] * (2 * positive - turned.sum())
        return scores

    def save(self, folder: Path) -> None:
        """Write the codes into a folder."""
        np.savez(folder / "codes.npz", mean=self._mean, turn=self._turn, codes=self._codes, factor=self._factor)

    def load(self, folder: Path) -> None:
        """Read what :meth:`save` wrote."""
        with np.load(folder / "codes.npz") as kept:
            self._mean, self._turn, self._codes, self._factor = (kept[k] for k in ("mean", "turn", "codes", "factor"))
        self._count()


KINDS: dict[str, type[PQCodes] | type[BinaryCodes]] = {"pq4": PQCodes, "binary": BinaryCodes}


def make_codes(kind: str, dim: int) -> Codes:
    """Empty codes of a kind (:func:`kind_of`)."""
    check_kind(kind)
    return KINDS[kind_of(kind)](dim)


def kind_of(kind: str) -> str:
    """The kind that is meant; without a name that of FAISS where it is installed, else binary."""
    return kind or ("pq4" if has_faiss() else "binary")


def check_kind(kind: str) -> None:
    """Raise unless codes of this name can be made here ('' always can)."""
    if kind and kind not in KINDS:
        raise unknown("codes of index 'auto'", kind, KINDS)
    if kind == "pq4" and not has_faiss():
        raise XRetrieveError("codes 'pq4' need faiss: pip install 'xretrieve[faiss]', or leave them out")


def has_faiss() -> bool:
    """Whether FAISS can be imported; it is not imported to find out."""
    try:
        return importlib.util.find_spec("faiss") is not None
    except ValueError:  # sys.modules["faiss"] is None: told not to be there
        return False


_BYTE_ONES = np.array([bin(byte).count("1") for byte in range(256)], np.uint8)


def _ones(words: np.ndarray) -> np.ndarray:
    """Bits set in each uint64 (N,), as uint8."""
    count: np.ndarray
    if hasattr(np, "bitwise_count"):
        count = np.bitwise_count(words)
    else:  # numpy 1
        count = _BYTE_ONES[np.ascontiguousarray(words).view(np.uint8)].reshape(-1, 8).sum(1, dtype=np.uint8)
    return count
