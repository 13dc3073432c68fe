"""Searching large galleries in two stages: build time, bytes, and waiting time per query, beside other ways to do it.

    python benchmarks/speed/search.py INDEX [--sizes 10000 100000 1000000] [--queries 50] [--indexes flat hnsw]
        [--reranks 0 100] [--clients 1 4] [--noise 0.1] [--folder DIR] [--out FILE.json]

INDEX is a gallery whose head re-ranks candidates (`xretrieve index ... --coarse RUN`). Its own vectors and tokens are
repeated up to each size, every copy with noise of its own, so that sizes are comparable and features are real. A query
is a whole `gallery.search(text, k=10)`: the time of the model is in it, and told apart. Several clients are threads,
each with the gallery opened for itself over the same files. Beside it, on the same vectors and tokens: FAISS alone
(flat and HNSW), which finds candidates and re-ranks nothing, and late interaction (MaxSim of sentence-transformers)
over the same number of candidates, and over everything up to --maxsim-all pictures.
"""

from __future__ import annotations

import argparse
import os
import platform
import shutil
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from xretrieve.gallery import Gallery
from xretrieve.gallery_index import GalleryIndex
from xretrieve.gallery_items import Item
from xretrieve.gallery_store import Store
from xretrieve.gallery_tokens import TokenSpool
from xretrieve.index import create_index
from xretrieve.query import Text
from xretrieve.tokens import Tokens
from xretrieve.utils.files import write_json
from xretrieve.version import __version__

WORDS = "dog man snow beach child red blue water grass bike runs jumps sits two black white street ball".split()
MADE = 2000  # pictures that are made at a time
K = 10


@torch.inference_mode()
def tiled(source: Gallery, size: int, index: str, noise: float, folder: Path) -> tuple[Gallery, dict[str, float]]:
    """A gallery of ``size`` pictures like those of ``source``; the seconds of its parts, and bytes per picture."""
    store, random = source._store, torch.Generator().manual_seed(0)
    live, own = store.live(), store.info["tokens"]["pooled"]
    spool, vectors = TokenSpool(folder, pooled=own), np.empty((size, store.info["dim"]), np.float32)
    begun = time.perf_counter()
    for start in range(0, size, MADE):
        rows = live[np.arange(start, min(start + MADE, size)) % len(live)]
        tokens = store.tokens(rows)
        vector = torch.from_numpy(store.vectors(rows))
        if start >= len(live):  # the first copy is the gallery itself
            vector = _noisy(vector, noise, random)
            tokens = Tokens(_noisy(tokens.local, noise, random), tokens.mask, tokens.pooled)
        vectors[start : start + len(rows)] = vector.numpy()
        spool.append(tokens)
    made = time.perf_counter()
    info, place = store.info, folder / f"{size}-{index}.xr"
    place.mkdir()
    new = Store.create(place, info["dim"], info["matcher"], {"name": index, "options": {}}, coarse=info["coarse"],
                       tokens={**info["tokens"], "dim": spool.dim})  # fmt: skip
    new.change(items=[Item(str(row)) for row in range(size)], vectors=vectors, tokens=spool, failed=[])
    written = time.perf_counter()
    GalleryIndex(new).write()
    bytes_ = sum(path.stat().st_size for path in place.rglob("*") if path.is_file())
    told = {"write_s": written - made, "index_s": time.perf_counter() - written, "disk_bytes": bytes_ / size,
            "made_s": made - begun}  # fmt: skip
    return Gallery(Store.open(place), source.matcher, source.coarse), told


def _noisy(x: torch.Tensor, noise: float, random: torch.Generator) -> torch.Tensor:
    """Noise of a share of each vector's length; the length stays. (..., D)."""
    length = x.norm(dim=-1, keepdim=True)
    moved = x + noise * length * torch.randn(x.shape, generator=random) / x.shape[-1] ** 0.5
    return moved / moved.norm(dim=-1, keepdim=True).clamp(min=1e-12) * length


def sentences(many: int) -> list[str]:
    """Texts of four words."""
    chance = np.random.default_rng(0)
    return [" ".join(chance.choice(WORDS, 4, replace=False)) for _ in range(many)]


def held(gallery: Gallery, source: Gallery, text: str) -> float:
    """Bytes of this process's own memory that an opened gallery takes once it was searched; files that are mapped into
    memory do not count."""
    before = _own_bytes()
    opened = Gallery.open(gallery.path, source.matcher, source.coarse)
    opened.search(text, K, rerank=0)
    return max(0.0, _own_bytes() - before)


def _own_bytes() -> float:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("RssAnon"):
            return 1024.0 * int(line.split()[1])
    raise OSError("no RssAnon in /proc/self/status")


def waits(searches: list[Callable[[str], Any]], texts: list[str]) -> dict[str, float]:
    """p50 and p95 in milliseconds, one thread per searcher, each with all texts; and searches a second."""
    found: list[float] = []

    def work(search: Callable[[str], Any]) -> None:
        for text in texts:
            start = time.perf_counter()
            search(text)
            found.append(1000 * (time.perf_counter() - start))

    for search in searches:
        search(texts[0])  # the first search reads what the others find read
    begun, cpu = time.perf_counter(), time.process_time()
    threads = [threading.Thread(target=work, args=(search,)) for search in searches]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    seconds, spent = time.perf_counter() - begun, time.process_time() - cpu
    p50, p95 = np.percentile(found, [50, 95])
    return {"p50_ms": float(p50), "p95_ms": float(p95), "per_second": len(found) / seconds,
            "cpu_ms": 1000 * spent / len(found)}  # fmt: skip


def beside(gallery: Gallery, texts: list[str], reranks: list[int], all_of: int) -> list[dict[str, Any]]:
    """FAISS alone and MaxSim on the same vectors and tokens; those that are not installed are left out."""
    store, rows = gallery._store, []
    coarse = gallery.coarse or gallery.matcher
    for name in ("faiss-flat", "hnsw"):
        try:
            index = create_index(name, store.info["dim"])
        except Exception as error:
            print(f"{name} left out: {error}")
            continue
        start = time.perf_counter()
        index.add(store.live(), store.vectors(store.live()))
        built = time.perf_counter() - start

        def search(text: str, index: Any = index) -> Any:
            return index.search(coarse.encode_query(Text(text), coarse=True).pooled.numpy(), K)

        rows.append({"what": f"FAISS {name}", "clients": 1, "index_s": built, **waits([search], texts)})
    try:
        from sentence_transformers.util.similarity import maxsim
    except ImportError as error:
        print(f"MaxSim left out: {error}")
        return rows
    for count in [k for k in reranks if k] + [len(gallery)] * (len(gallery) <= all_of):
        def late(text: str, count: int = count) -> Any:
            with torch.inference_mode():
                asked = gallery.matcher.encode_query(Text(text))
                near = store.live()[:count]
                if count < len(gallery):
                    first = coarse.encode_query(Text(text), coarse=True).pooled.numpy()
                    near = np.sort(gallery._index.search(first, count)[1][0])
                scores = []
                for start in range(0, len(near), MADE):
                    tokens = store.tokens(near[start : start + MADE])
                    scores.append(maxsim(asked.local, tokens.local, asked.mask, tokens.mask))
                return torch.cat(scores, 1).topk(min(K, len(near)))

        rows.append({"what": f"MaxSim of {count}", "clients": 1, **waits([late], texts)})
    return rows


def measure(a: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Every row of the table."""
    source, texts = Gallery.open(a.index), sentences(a.queries)
    source.matcher, source.coarse  # noqa: B018  loaded once, for all sizes
    with torch.inference_mode():
        model = waits([lambda text: source.matcher.encode_query(Text(text))], texts)
    rows = []
    for size in a.sizes:
        for index in a.indexes:
            gallery, told = tiled(source, size, index, a.noise, folder)
            told["memory_bytes"] = held(gallery, source, texts[0]) / size
            for rerank in a.reranks:
                for clients in a.clients:
                    opened = [Gallery.open(gallery.path, source.matcher, source.coarse) for _ in range(clients)]
                    each = [lambda text, g=g, r=rerank: g.search(text, K, rerank=r, blend=1) for g in opened]
                    row = {"what": index, "rerank": rerank, "clients": clients, **told, **waits(each, texts)}
                    rows.append({"size": size, **row})
            if index == a.indexes[0]:
                rows += [{"size": size, **row} for row in beside(gallery, texts, a.reranks, a.maxsim_all)]
            shutil.rmtree(gallery.path)
    return {
        "index": str(a.index), "head": source.matcher.name, "tokens": source._store.longest,
        "token_width": source.info["tokens"]["dim"], "width": source.info["dim"], "model": model, "rows": rows,
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, {torch.get_num_threads()} threads",
        "versions": {"xretrieve": __version__, "torch": torch.__version__, "numpy": np.__version__},
    }  # fmt: skip


def main(arguments: list[str] | None = None) -> dict[str, Any]:
    """Measure, print, and write what ``--out`` asks for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("index", type=Path)
    parser.add_argument("--sizes", type=int, nargs="+", default=[10_000, 100_000, 1_000_000])
    parser.add_argument("--queries", type=int, default=50)
    parser.add_argument("--indexes", nargs="+", default=["flat", "hnsw"])
    parser.add_argument("--reranks", type=int, nargs="+", default=[0, 100])
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 4])
    parser.add_argument("--noise", type=float, default=0.1)
    parser.add_argument("--maxsim-all", type=int, default=10_000)
    parser.add_argument("--folder", type=Path, help="where the galleries are made; 1,000,000 of them need much room")
    parser.add_argument("--out", type=Path)
    a = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(dir=a.folder) as place:
        found = measure(a, Path(place))
    print(f"{found['head']}: {found['tokens']} tokens of {found['token_width']}, vectors of {found['width']}; "
          f"the model takes {found['model']['p50_ms']:.1f} ms a query; {found['machine']}")
    print("| pictures | how | re-ranked | clients | p50 ms | p95 ms | CPU ms | per s | index s | disk bytes | memory |")
    print("|" + "---|" * 11)
    for row in found["rows"]:
        print(f"| {row['size']} | {row['what']} | {row.get('rerank', '')} | {row['clients']} | {row['p50_ms']:.1f} | "
              f"{row['p95_ms']:.1f} | {row['cpu_ms']:.1f} | {row['per_second']:.1f} | "
              f"{row['index_s'] if 'index_s' in row else 0:.2f} | {row.get('disk_bytes', 0):.0f} | "
              f"{row.get('memory_bytes', 0):.0f} |")
    if a.out is not None:
        write_json(a.out, found)
    return found


if __name__ == "__main__":
    main()
