"""Searching large galleries in two stages: build time, bytes, and waiting time per query, beside other ways to do it.

    python benchmarks/speed/search.py INDEX [--sizes 10000 100000 1000000] [--queries 50] [--indexes flat hnsw]
        [--reranks 0 100] [--clients 1 4] [--tokens 36] [--noise 0.1] [--folder DIR] [--out FILE.json]

INDEX is a gallery whose head re-ranks candidates (`xretrieve index ... --coarse RUN`). Its own vectors and tokens are
repeated up to each size, every copy with noise of its own, so that sizes are comparable and features are real; --tokens
does the same to the tokens of each picture, up to so many (detectors give 36). A query
is a whole `gallery.search(text, k=10)`: the time of the model is in it, and told apart. Several clients are threads
over one opened gallery. Beside it, on the same vectors and tokens: FAISS alone (the same HNSW, or its exact index),
which finds candidates and re-ranks nothing, and late interaction (MaxSim of sentence-transformers) over the same number
of candidates, and over everything up to --maxsim-all pictures.
"""

from __future__ import annotations

import argparse
import importlib.util
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from xretrieve.bench.tables import machine_line
from xretrieve.evaluation.provenance import versions
from xretrieve.gallery import Gallery
from xretrieve.gallery.items import Item
from xretrieve.gallery.store import Store
from xretrieve.gallery.token_files import TokenSpool
from xretrieve.gallery.vector_index import GalleryIndex
from xretrieve.index import create_index, load_index
from xretrieve.query import Text
from xretrieve.tokens import Tokens
from xretrieve.utils.files import write_json

WORDS = "dog man snow beach child red blue water grass bike runs jumps sits two black white street ball".split()
MADE = 2000  # pictures that are made at a time
K = 10
RECALLED = 25  # queries that the recall of an index is measured with
FAISS = {"flat": "faiss-flat", "hnsw": "hnsw"}  # what is told beside each index of a gallery


@torch.inference_mode()
def tiled(source: Gallery, size: int, noise: float, folder: Path, length: int = 0) -> tuple[Gallery, dict[str, float]]:
    """A gallery of ``size`` pictures like those of ``source``, with an exact index; the seconds that this took.

    length: tokens of each picture; 0 as many as there are.
    """
    store, random = Store.open(source.path), torch.Generator().manual_seed(0)
    live, about = store.live(), store.info["tokens"]
    spool = TokenSpool(folder, about["pooled"], about["dtype"])
    vectors = np.empty((size, store.info["dim"]), np.float32)
    begun = time.perf_counter()
    for start in range(0, size, MADE):
        rows = live[np.arange(start, min(start + MADE, size)) % len(live)]
        tokens = store.tokens(rows)
        vector = torch.from_numpy(store.vectors(rows))
        if length > tokens.local.shape[1]:
            tokens = _longer(tokens, length, noise, random)
        if start >= len(live):  # the first copy is the gallery itself
            vector = _noisy(vector, noise, random)
            tokens = Tokens(_noisy(tokens.local, noise, random), tokens.mask, tokens.pooled)
        vectors[start : start + len(rows)] = vector.numpy()
        spool.append(tokens)
    made = time.perf_counter()
    info, place = store.info, folder / f"{size}.xr"
    place.mkdir()
    flat = {"name": "flat", "options": {}}
    new = Store.create(place, info["dim"], info["matcher"], flat, coarse=info["coarse"],
                       tokens={**info["tokens"], "dim": spool.dim})  # fmt: skip
    new.change(items=[Item(str(row)) for row in range(size)], vectors=vectors, tokens=spool, failed=[])
    told = {"made_s": made - begun, "write_s": time.perf_counter() - made}
    return Gallery(Store.open(place), source.matcher, source.coarse), told


def indexed(gallery: Gallery, index: str) -> tuple[Gallery, dict[str, float]]:
    """The same gallery with another index; the seconds that this takes, and bytes per picture on disk."""
    store = Store.open(gallery.path)
    store.change(index={"name": index, "options": {}})
    begun = time.perf_counter()
    GalleryIndex(store).write()
    told = {"index_s": time.perf_counter() - begun}
    store.clean()
    bytes_ = sum(path.stat().st_size for path in gallery.path.rglob("*") if path.is_file())
    told |= {"disk_bytes": bytes_ / len(store), "memory_bytes": held(gallery.path) / len(store)}
    return Gallery(Store.open(gallery.path), gallery.matcher, gallery.coarse), told


def recall(gallery: Gallery, texts: list[str]) -> float:
    """Share of the exact best 10 of the first stage that a search of these texts finds."""
    store, coarse, same = Store.open(gallery.path), gallery.coarse or gallery.matcher, []
    rows = store.live()
    for text in texts:
        query = coarse.encode_query(Text(text), coarse=True).pooled.numpy()
        pieces = [query @ store.vectors(rows[start : start + 50 * MADE]).T for start in range(0, len(rows), 50 * MADE)]
        best = rows[np.argsort(-np.concatenate(pieces, 1)[0], kind="stable")[:K]]
        found = {store.rows[id_] for id_ in gallery.search(text, K, rerank=0).ids}
        same.append(len(found & set(best.tolist())) / len(best))
    return float(np.mean(same))


def _longer(tokens: Tokens, length: int, noise: float, random: torch.Generator) -> Tokens:
    """Each picture's own tokens again and again, up to ``length`` of them, the copies with noise."""
    own = tokens.local.shape[1]
    place = torch.arange(length) % own
    local = tokens.local[:, place]
    local[:, own:] = _noisy(local[:, own:], noise, random)
    return Tokens(local, tokens.mask[:, place], tokens.pooled)


def _noisy(x: torch.Tensor, noise: float, random: torch.Generator) -> torch.Tensor:
    """Noise of a share of each vector's length; the length stays. (..., D)."""
    length = x.norm(dim=-1, keepdim=True)
    moved = x + noise * length * torch.randn(x.shape, generator=random) / x.shape[-1] ** 0.5
    return moved / moved.norm(dim=-1, keepdim=True).clamp(min=1e-12) * length


def sentences(many: int) -> list[str]:
    """Texts of four words."""
    chance = np.random.default_rng(0)
    return [" ".join(chance.choice(WORDS, 4, replace=False)) for _ in range(many)]


HELD = """
import sys
import numpy as np
from pathlib import Path
from xretrieve.gallery.vector_index import GalleryIndex
from xretrieve.gallery.store import Store

def own():
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(1024 * int(line.split()[1]) for line in lines if line.startswith("RssAnon"))

def search(folder):
    store = Store.open(folder)
    index = GalleryIndex(store)
    index.search(store.vectors(store.live()[:1]), 10)
    return store, index

few = search(sys.argv[2])  # what the first search loads is not the gallery's
before = own()
kept = search(sys.argv[1])
print(own() - before)
"""


def held(gallery: Path) -> float:
    """Bytes of its own memory that a new process needs for an opened gallery once it was searched, the models apart;
    files that are mapped into memory do not count."""
    with tempfile.TemporaryDirectory() as place:
        few = Store.create(place, 2, {"name": "few"}, {"name": "flat", "options": {}})
        few.change(items=[Item(str(row)) for row in range(20)], vectors=np.eye(20, 2, dtype=np.float32), failed=[])
        command = [sys.executable, "-c", HELD, str(gallery), place]
        return max(0.0, float(subprocess.run(command, check=True, capture_output=True, text=True).stdout))


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


def faiss_alone(gallery: Gallery, name: str, texts: list[str]) -> dict[str, Any]:
    """FAISS over the gallery's vectors, without a gallery around it: the same HNSW, or its exact index."""
    store = Store.open(gallery.path)
    coarse, about = gallery.coarse or gallery.matcher, store.info["index"]
    start = time.perf_counter()
    if "folder" in about:
        index = load_index(gallery.path / about["folder"])
    else:
        index = create_index(name, store.info["dim"])
        index.add(store.live(), store.vectors(store.live()))
    built = time.perf_counter() - start

    def search(text: str) -> Any:
        return index.search(coarse.encode_query(Text(text), coarse=True).pooled.numpy(), K)

    return {"what": f"FAISS {name}", "clients": 1, "ready_s": built, **waits([search], texts)}


def late_interaction(gallery: Gallery, texts: list[str], counts: list[int]) -> list[dict[str, Any]]:
    """MaxSim of sentence-transformers over so many candidates of the exact index, or over all; left out where that
    package is not installed."""
    try:
        from sentence_transformers.util.similarity import maxsim
    except ImportError as error:
        print(f"MaxSim left out: {error}")
        return []
    store = Store.open(gallery.path)
    coarse, index = gallery.coarse or gallery.matcher, GalleryIndex(store)
    rows = []
    for count in counts:

        def late(text: str, count: int = count) -> Any:
            with torch.inference_mode():
                asked, near = gallery.matcher.encode_query(Text(text)), store.live()[:count]
                if count < len(store):
                    first = coarse.encode_query(Text(text), coarse=True).pooled.numpy()
                    near = np.sort(index.search(first, count)[1][0])
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
    rows: list[dict[str, Any]] = []
    has_faiss = importlib.util.find_spec("faiss") is not None
    for size in a.sizes:
        gallery, made = tiled(source, size, a.noise, folder, a.tokens)
        for index in a.indexes:
            gallery, told = indexed(gallery, index)
            told |= {**made, "recall": recall(gallery, texts[:RECALLED])}
            for rerank in a.reranks:

                def search(text: str, gallery: Gallery = gallery, rerank: int = rerank) -> Any:
                    return gallery.search(text, K, rerank=rerank, blend=1)

                for clients in a.clients:
                    row = {"what": index, "rerank": rerank, "clients": clients, **told}
                    rows.append({"size": size, **row, **waits([search] * clients, texts)})
            others = [faiss_alone(gallery, FAISS[index], texts)] if has_faiss and index in FAISS else []
            if index == "flat":
                whole = [len(gallery)] * (len(gallery) <= a.maxsim_all)
                others += late_interaction(gallery, texts, [k for k in a.reranks if k] + whole)
            rows += [{"size": size, **row} for row in others]
        shutil.rmtree(gallery.path)
    return {
        "index": str(a.index), "head": source.matcher.name, "tokens": max(Store.open(a.index).longest, a.tokens),
        "token_width": source.info["tokens"]["dim"], "width": source.info["dim"], "model": model, "rows": rows,
        "versions": versions() | {"threads": str(torch.get_num_threads())},
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
    parser.add_argument("--tokens", type=int, default=0, help="of each picture; 0 as many as there are")
    parser.add_argument("--noise", type=float, default=0.1)
    parser.add_argument("--maxsim-all", type=int, default=10_000)
    parser.add_argument("--folder", type=Path, help="where the galleries are made; 1,000,000 of them need much room")
    parser.add_argument("--out", type=Path)
    a = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(dir=a.folder) as place:
        found = measure(a, Path(place))
    print(
        f"{found['head']}: {found['tokens']} tokens of {found['token_width']}, vectors of {found['width']}; "
        f"the model takes {found['model']['p50_ms']:.1f} ms a query"
    )
    print(machine_line(found["versions"]))
    print("| pictures | how | re-ranked | clients | p50 ms | p95 ms | CPU ms | per s | index s | recall@10 | "
          "disk bytes | memory |\n|" + "---|" * 12)  # fmt: skip
    for row in found["rows"]:
        print(f"| {row['size']} | {row['what']} | {row.get('rerank', '')} | {row['clients']} | {row['p50_ms']:.1f} | "
              f"{row['p95_ms']:.1f} | {row['cpu_ms']:.1f} | {row['per_second']:.1f} | "
              + (f"{row['index_s']:.1f} | {row['recall']:.4f} | {row['disk_bytes']:.0f} | {row['memory_bytes']:.0f} |"
                 if "index_s" in row else "| | | |"))  # fmt: skip
    if a.out is not None:
        write_json(a.out, found)
    return found


if __name__ == "__main__":
    main()
