"""Indexing a folder of pictures, and milliseconds per query on flat and HNSW indexes.

    python benchmarks/speed/index_search.py PHOTOS MODEL [--limit 1000] [--sizes 8000 100000] [--queries 200]

MODEL is a run folder or a model name. First the folder is indexed three times: without a feature cache, with an empty
one, and with one that holds everything. Then the gallery's own vectors, repeated with noise up to each of --sizes, are
searched by vector, one query at a time (the model's time per query is printed apart).
"""

from __future__ import annotations

import argparse
import platform
import resource
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

import xretrieve as xr
from xretrieve.data.cache import FeatureCache
from xretrieve.data.folder import scan_folder
from xretrieve.errors import XRetrieveError
from xretrieve.index import create_index, recall_against_flat

TEXTS = ["a dog in the snow", "two men on a boat", "a child in a red coat", "a crowd at night", "a cyclist on a hill"]


def machine() -> str:
    try:
        import faiss

        version = faiss.__version__
    except ImportError:
        version = "none"
    names = [line.split(":", 1)[1].strip() for line in _cpuinfo() if line.startswith("model name")]
    return (
        f"{names[0] if names else platform.machine()}, {torch.get_num_threads()} threads, "
        f"Python {platform.python_version()}, "
        f"torch {torch.__version__}, faiss {version}, xretrieve {xr.__version__}"
    )


def _cpuinfo() -> list[str]:
    try:
        return Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return []


def peak() -> float:
    """Most memory this process has held, MiB (Linux counts in KiB)."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def timed(what, *args, **options):
    wall, cpu = time.perf_counter(), time.process_time()
    result = what(*args, **options)
    return result, time.perf_counter() - wall, time.process_time() - cpu


def per_query(search, queries) -> str:
    search(queries[0])
    times = []
    for query in queries:
        start = time.perf_counter()
        search(query)
        times.append(1000 * (time.perf_counter() - start))
    times.sort()
    return f"p50 {statistics.median(times):.2f} ms, p95 {times[int(0.95 * (len(times) - 1))]:.2f} ms"


def spread(vectors: np.ndarray, count: int) -> np.ndarray:
    """``count`` unit vectors: the given ones repeated, each copy moved by noise of a third of its length."""
    rng = np.random.default_rng(0)
    out = vectors[np.arange(count) % len(vectors)].copy()
    rest = out[len(vectors) :]
    rest += rng.standard_normal(rest.shape, dtype=np.float32) * (0.33 / np.sqrt(vectors.shape[1]))
    return out / np.linalg.norm(out, axis=1, keepdims=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photos")
    parser.add_argument("model")
    parser.add_argument("--limit", type=int, default=None, help="only the first pictures of the folder")
    parser.add_argument("--sizes", type=int, nargs="*", default=[8000, 100000])
    parser.add_argument("--queries", type=int, default=200)
    args = parser.parse_args()
    print(machine())
    pictures = scan_folder(args.photos).pictures[: args.limit]
    matcher = xr.load(args.model)
    with tempfile.TemporaryDirectory() as folder:
        cache = FeatureCache(Path(folder) / "cache")
        for what, kept in (("no cache", None), ("cold cache", cache), ("warm cache", cache)):
            gallery, wall, cpu = timed(matcher.index, pictures, out=Path(folder) / "g.xr", cache=kept, overwrite=True)
            print(
                f"index {len(gallery)} pictures, {what}: {wall:.1f} s, {len(gallery) / wall:.1f} images/s, "
                f"CPU {cpu:.1f} s, peak memory {peak():.0f} MiB"
            )
        size = sum(p.stat().st_size for p in (Path(folder) / "g.xr").rglob("*") if p.is_file())
        print(f"gallery on disk: {size / len(gallery):.0f} bytes per picture ({gallery.info['dim']} values each)")
        _, wall, _ = timed(xr.Gallery.open, Path(folder) / "g.xr")
        print(f"open: {1000 * wall:.1f} ms (without the model)")
        print(f"text to vector: {per_query(matcher.encode_query, TEXTS * 4)}")
        print(f"search from text to ranking: {per_query(gallery.search, TEXTS * 4)}")
        vectors = matcher.encode_images(pictures[:2000], cache=cache).pooled.numpy()
    queries = spread(vectors, len(vectors) + args.queries)[-args.queries :]
    for count in args.sizes:
        gallery_vectors = spread(vectors, count)
        flat = create_index("flat", vectors.shape[1])
        flat.add(np.arange(count), gallery_vectors)
        for name in ("flat", "faiss-flat", "hnsw"):
            try:
                index = create_index(name, vectors.shape[1])
            except XRetrieveError as error:
                print(f"{name}: {error}")
                continue
            _, wall, cpu = timed(index.add, np.arange(count), gallery_vectors)
            speed = per_query(lambda query: index.search(query[None], 10), queries)  # noqa: B023
            recall = recall_against_flat(index, flat, queries, 10)
            print(
                f"{count} vectors, {name}: built in {wall:.1f} s (CPU {cpu:.1f} s); {speed}; "
                f"recall@10 {recall:.4f}; peak memory {peak():.0f} MiB"
            )


if __name__ == "__main__":
    main()
