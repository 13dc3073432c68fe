"""Searches of up to a million vectors: every index side by side in one run.

    python benchmarks/speed/million.py [--sizes 17000 100000 300000 1000000] [--dim 512] [--queries 100]
        [--indexes flat faiss-flat hnsw ivfpq auto auto-numpy] [--threshold N] [--folder DIR] [--out FILE.json]

The vectors are clustered, with near copies: up to 50,000 directions at random, and around each of them vectors at a
distance of 0.05 to 0.6 of its length. Half of the queries lie near a vector (cosine 0.9, as another picture of the same
thing), half far (0.3, as texts do). Each index is built in a process of its own and saved; another process opens it and
searches, one query at a time, one thread. `auto` is fitted as a gallery does it, to 0.999 of the ten nearest of other
queries; `auto-numpy` is the same without FAISS; `hnsw+` is hnsw fitted to 0.99. Memory is what the process itself holds
(RssAnon) beyond what it held before: mapped files can be dropped at any time and do not count.

FAISS takes its instruction set from FAISS_SIMD_LEVEL (AVX2), torch from ATEN_CPU_CAPABILITY (avx2).
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from xretrieve.utils.files import write_json

K = 10
MADE = 20_000  # vectors that are made at a time
CENTRES = 50_000
SPREAD = (0.05, 0.6)
ALL = ["flat", "faiss-flat", "hnsw", "ivfpq", "auto", "auto-numpy"]
TARGETS = {"auto": 0.999, "auto-numpy": 0.999}
COLUMNS = ["size", "index", "near_ms", "far_ms", "near_recall", "far_recall", "memory_mb", "disk_mb", "build_s",
           "open_ms", "chosen"]  # fmt: skip


def clustered(size: int, dim: int, path: Path) -> None:
    """Write (size, dim) float32 unit vectors to a file, a block at a time."""
    chance = np.random.default_rng(0)
    centres = chance.standard_normal((max(1, min(CENTRES, size // 6)), dim), dtype=np.float32)
    centres /= np.linalg.norm(centres, axis=1, keepdims=True)
    out = np.lib.format.open_memmap(path, "w+", np.float32, (size, dim))
    for start in range(0, size, MADE):
        many = min(MADE, size - start)
        spread = np.exp(chance.uniform(*np.log(SPREAD), (many, 1))).astype(np.float32) / np.float32(np.sqrt(dim))
        block = chance.standard_normal((many, dim), dtype=np.float32) * spread
        block += centres[chance.integers(0, len(centres), many)]
        out[start : start + many] = block / np.linalg.norm(block, axis=1, keepdims=True)
    out.flush()


def questions(vectors: np.ndarray, many: int) -> np.ndarray:
    """(many, D) queries: the first half near, the second far."""
    from xretrieve.index.recall import moved_vectors

    rows = np.random.default_rng(5).integers(0, len(vectors), many)
    both = moved_vectors(vectors[rows])  # near and far in turn
    return np.concatenate([both[::2], both[1::2]])


def own_memory() -> float:
    """MiB that this process holds itself, mapped files apart."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("RssAnon")) / 1024


def prepare(name: str) -> str:
    """One thread; without FAISS where that is asked for. The name of the index."""
    import torch

    torch.set_num_threads(1)
    if name == "auto-numpy":
        sys.modules["faiss"] = None  # type: ignore[assignment]
    else:
        import faiss

        faiss.omp_set_num_threads(1)
    return name.removesuffix("+").removesuffix("-numpy")


def build(name: str, source: Path, target: Path, threshold: int | None = None) -> dict[str, Any]:
    """Build and save an index; CPU seconds, bytes on disk, and what was chosen."""
    from xretrieve.index import FlatIndex, create_index, fit_recall, moved_vectors

    kind, vectors = prepare(name), np.load(source, mmap_mode="r")
    start = time.process_time()
    options = {"threshold": threshold} if kind == "auto" and threshold else {}
    index = create_index(kind, vectors.shape[1], **options)
    index.add(np.arange(len(vectors)), vectors)
    told: dict[str, Any] = {}
    if name in TARGETS:
        exact = FlatIndex(vectors.shape[1])
        exact.add(np.arange(len(vectors)), vectors)
        rows = np.unique(np.linspace(0, len(vectors) - 1, 256).astype(int))
        fitted = fit_recall(index, exact, moved_vectors(vectors[rows]), TARGETS[name], K)
        told["chosen"] = f"{fitted.option}={fitted.value}, measured {fitted.recall:.4f}"
    told["build_s"] = time.process_time() - start
    if kind == "auto":
        index.save(target, vectors=False)  # type: ignore[call-arg]
    elif kind != "flat":
        index.save(target)
    told["disk_mb"] = sum(path.stat().st_size for path in target.glob("*")) / 2**20 if target.exists() else 0.0
    return told


def search(name: str, source: Path, target: Path, queries: np.ndarray, true: np.ndarray) -> dict[str, Any]:
    """Open an index, search it with each query; CPU milliseconds (medians), recall, memory."""
    from xretrieve.index import FlatIndex, create_index, load_index

    kind, told = prepare(name), {}
    create_index(kind, 2)  # what is imported for it is not the index
    vectors = np.load(source, mmap_mode="r")
    before, start = own_memory(), time.process_time()
    if kind == "flat":
        index: Any = FlatIndex(vectors.shape[1])
        index.add(np.arange(len(vectors)), vectors)
    else:
        index = load_index(target, [vectors] if kind == "auto" else None)
    told["open_ms"] = 1000 * (time.process_time() - start)
    if name == "hnsw+":
        told |= fitted_hnsw(index, vectors)
    index.search(queries[:1], K)
    spent, shares = [], []
    for query, wanted in zip(queries, true, strict=True):
        start = time.process_time()
        found = index.search(query[None], K)[1][0]
        spent.append(1000 * (time.process_time() - start))
        shares.append(len(set(found.tolist()) & set(wanted.tolist())) / len(wanted))
    half = len(queries) // 2
    for what, part in (("near", slice(half)), ("far", slice(half, None))):
        told |= {f"{what}_ms": float(np.median(spent[part])), f"{what}_recall": float(np.mean(shares[part]))}
    return told | {"memory_mb": own_memory() - before}


def fitted_hnsw(index: Any, vectors: np.ndarray) -> dict[str, Any]:
    """What `--recall 0.99` would choose."""
    from xretrieve.index import FlatIndex, fit_recall, moved_vectors

    exact = FlatIndex(vectors.shape[1])
    exact.add(np.arange(len(vectors)), vectors)
    rows = np.unique(np.linspace(0, len(vectors) - 1, 256).astype(int))
    fitted = fit_recall(index, exact, moved_vectors(vectors[rows]), 0.99, K)
    missed = "" if fitted.met else ", missed"
    return {"chosen": f"{fitted.option}={fitted.value}, measured {fitted.recall:.4f}{missed}"}


def apart(work: Any, *arguments: Any) -> Any:
    """Run a function in a process of its own."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        return pool.submit(work, *arguments).result()


def truth(source: Path, many: int) -> tuple[np.ndarray, np.ndarray]:
    """Queries, and the rows (Q, 10) that exact search finds for them."""
    from xretrieve.index import FlatIndex

    vectors = np.load(source, mmap_mode="r")
    queries, exact = questions(vectors, many), FlatIndex(vectors.shape[1])
    exact.add(np.arange(len(vectors)), vectors)
    return queries, exact.search(queries, K)[1]


def measure(a: argparse.Namespace, folder: Path) -> list[dict[str, Any]]:
    """A row for each size and index."""
    rows: list[dict[str, Any]] = []
    for size in a.sizes:
        source = folder / f"{size}.npy"
        clustered(size, a.dim, source)
        queries, true = apart(truth, source, a.queries)
        for name in a.indexes:
            target = folder / f"{size}-{name}"
            told = apart(build, name, source, target, a.threshold)
            for way in [name, "hnsw+"] if name == "hnsw" else [name]:
                row = {"size": size, "index": way, **told, **apart(search, way, source, target, queries, true)}
                print("| " + " | ".join(shown(row.get(column, "")) for column in COLUMNS) + " |", flush=True)
                rows.append(row)
            for path in target.glob("*"):
                path.unlink()
        source.unlink()
    return rows


def shown(value: Any) -> str:
    """A cell."""
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def main(arguments: list[str] | None = None) -> list[dict[str, Any]]:
    """Measure, print, and write what ``--out`` asks for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=[17_000, 100_000, 300_000, 1_000_000])
    parser.add_argument("--dim", type=int, default=512)
    parser.add_argument("--queries", type=int, default=100)
    parser.add_argument("--indexes", nargs="+", default=ALL, choices=ALL)
    parser.add_argument("--threshold", type=int, help="of auto: vectors up to which it is flat")
    parser.add_argument("--folder", type=Path, help="where the vectors lie meanwhile: 2 KB each, and more for hnsw")
    parser.add_argument("--out", type=Path)
    a = parser.parse_args(arguments)
    from xretrieve.bench.tables import machine_line
    from xretrieve.evaluation.provenance import versions

    levels = {name: os.environ.get(name, "native") for name in ("FAISS_SIMD_LEVEL", "ATEN_CPU_CAPABILITY")}
    print(machine_line(versions() | {"threads": "1"}), *(f"{name} {value}" for name, value in levels.items()), sep=", ")
    print("| " + " | ".join(COLUMNS) + " |\n|" + "---|" * len(COLUMNS))
    with tempfile.TemporaryDirectory(dir=a.folder) as place:
        rows = measure(a, Path(place))
    if a.out is not None:
        write_json(a.out, {"rows": rows, "levels": levels, "versions": versions()})
    return rows


if __name__ == "__main__":
    main()
