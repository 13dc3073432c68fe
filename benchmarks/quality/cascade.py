"""Recall against cost of a gallery's two stages, by the number of candidates that the head re-ranks.

    python benchmarks/quality/cascade.py HEAD_RUN [--coarse DUAL_RUN] [--split test] [--queries 1000] [--timed 96]
        [--reranks 0 10 20 50 100 200 all] [--out FILE.json]

The run's own dataset is indexed, and the blend of both stages is chosen on its validation split (`xretrieve tune`).
Recall comes from the scores of both stages for all queries: captions; query sets for heads that read those; a picture
and a change for composed heads. CPU seconds (all threads) are those of whole searches for --timed queries, through
`Gallery.search_many`, 16 at once, the encoding of the queries among them, which is also told alone. What these find is
compared with what the scores say; `same` is the share of queries whose picture lies at the same place.

HMRN leaves out by its bound what cannot be among the hits: its row `all` is exact and scores few, and a row `scan`
says what scoring every picture costs. The vectors of a composed head are its scores, so there is nothing to re-rank:
its rows are the exact index and HNSW.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

import xretrieve as xr
from xretrieve.bench.tables import machine_line
from xretrieve.data.cache import FeatureCache
from xretrieve.data.triplets import composed
from xretrieve.errors import XRetrieveError
from xretrieve.evaluation.cascade import asked, both_scores, cascade_ranks, tune
from xretrieve.evaluation.provenance import versions
from xretrieve.gallery import Gallery
from xretrieve.gallery.blend import blended
from xretrieve.gallery.matchers import Matchers
from xretrieve.gallery.queries import Ask
from xretrieve.gallery.search import Stages
from xretrieve.gallery.store import Store
from xretrieve.gallery.vector_index import GalleryIndex
from xretrieve.heads.composed import ComposedHead
from xretrieve.training.build import load_split
from xretrieve.training.recipes import dataset_config
from xretrieve.utils.files import write_json

if TYPE_CHECKING:
    from xretrieve.matcher import Matcher

KS = (1, 5, 10)
BATCH = 16
RERANKS = ["0", "10", "20", "50", "100", "200", "all"]
INDEXES = ("flat", "hnsw")


def searched(gallery: Gallery, queries: list[Any], wanted: list[str], **how: Any) -> tuple[np.ndarray, float]:
    """(Q,) place of each query's picture, inf below the top 10; and CPU milliseconds of a query."""
    places: list[float] = []
    gallery.search_many([Ask(queries[0], max(KS), **how)])  # what is loaded at the first search is not its cost
    start = time.process_time()
    for first in range(0, len(queries), BATCH):
        for found, id_ in zip(
            gallery.search_many([Ask(query, max(KS), **how) for query in queries[first : first + BATCH]]),
            wanted[first : first + BATCH], strict=True,
        ):  # fmt: skip
            if isinstance(found, XRetrieveError):
                raise found
            places.append(found.ids.index(id_) if id_ in found.ids else np.inf)
    return np.array(places), 1000 * (time.process_time() - start) / len(queries)


def scanned(gallery: Gallery, matcher: Matcher, queries: list[Any], wanted: list[str]) -> tuple[np.ndarray, float]:
    """The same where the head scores every picture, whatever it could leave out."""
    store = Store.open(gallery.path)
    stages, rows = Stages(store, GalleryIndex(store), Matchers(store, matcher)), store.live()
    places: list[float] = []
    start = time.process_time()
    for query, id_ in zip(queries, wanted, strict=True):
        scores = stages.scan(matcher.encode_query(query), rows)[0]
        places.append(float((scores > scores[rows == store.rows[id_]]).sum()))
    return np.array(places), 1000 * (time.process_time() - start) / len(queries)


def encoded(matchers: list[Matcher], queries: list[Any]) -> float:
    """CPU milliseconds in which the models make a query's tokens and vectors; what they share is made for each."""
    start = time.process_time()
    for query in queries:
        for matcher in matchers:
            matcher.encode_query(query)
    return 1000 * (time.process_time() - start) / len(queries)


def _recalls(places: np.ndarray) -> dict[str, float]:
    return {f"r{k}": 100 * float(np.mean(places < k)) for k in KS}


def composed_queries(data: Any, most: int) -> tuple[list[Any], list[str]]:
    """Reference picture and change of triplets evenly spread over a split, and the ids of their targets."""
    triplets = [triplet for triplet in composed(data).triplets if triplet.target is not None]
    chosen = evenly(len(triplets), most)
    queries = [xr.ImageText(data.images[triplets[i].reference], " and ".join(triplets[i].texts)) for i in chosen]
    return queries, [data.image_ids[triplets[i].target] for i in chosen]


def stages_of(
    build: Callable[..., Gallery], head: str, data: Any, reranks: list[str], most: int, timed: int
) -> dict[str, Any]:
    """The rows of a head that scores token by token."""
    gallery, cache = build(), FeatureCache()
    matcher = gallery.matcher
    tuned = None if gallery.bounded else tune(gallery, load_split(dataset_config(head), "val"), cache=cache)
    scores = both_scores(matcher, gallery.coarse, data, most, cache)
    said, positive = asked(matcher, data, most)
    sets, chosen = any(len(texts) > 1 for texts in said), evenly(len(said), timed)
    queries = [xr.MultiText(said[i]) if sets else xr.Text(said[i][0]) for i in chosen]
    wanted, rows = [data.image_ids[positive[i]] for i in chosen], []
    for rerank in ["all"] if gallery.bounded else reranks:
        count = rerank if rerank == "all" else int(rerank)
        if isinstance(count, int) and count > len(gallery):
            continue
        for share in [1.0] if count == 0 or tuned is None else sorted({1.0, tuned["blend"]}, reverse=True):
            places = expected(*scores, count, share, tuned)
            found, cost = searched(gallery, queries, wanted, rerank=count, blend=share)
            same = float(np.mean(np.where(places[chosen] < max(KS), places[chosen], np.inf) == found))
            rows.append({"rerank": rerank, "blend": share, **_recalls(places), "cpu_ms": cost, "same": same})
    if hasattr(matcher.head, "cheap"):
        found, cost = scanned(gallery, matcher, queries, wanted)
        places = expected(*scores, "all", 1.0, None)
        rows.append({"rerank": "scan", "blend": 1.0, **_recalls(places), "cpu_ms": cost,
                     "same": float(np.mean(places[chosen] == found))})  # fmt: skip
    both = [matcher, *([gallery.coarse] if gallery.coarse else [])]
    return {"rows": rows, "tuned": tuned, "queries": len(said), "timed": len(queries),
            "kind": "query sets" if sets else "captions", "encoding_ms": encoded(both, queries)}  # fmt: skip


def expected(
    coarse: np.ndarray, head: np.ndarray, positive: np.ndarray, rerank: int | str, share: float, tuned: Any
) -> np.ndarray:
    """(Q,) place of each query's picture by the scores (Q, N) of both stages."""
    final = head if share == 1 else blended(coarse, head, tuned["coarse"], tuned["head"], share)
    return cascade_ranks(coarse, final, positive, coarse.shape[1] if rerank == "all" else int(rerank))


def indexes_of(build: Callable[..., Gallery], data: Any, most: int, timed: int) -> dict[str, Any]:
    """The rows of a head whose vectors are its scores."""
    queries, wanted = composed_queries(data, most)
    rows: list[dict[str, Any]] = []
    for index in INDEXES:
        gallery = build(index=index)
        found, cost = searched(gallery, queries, wanted)
        rows.append({"rerank": index, "blend": 1.0, **_recalls(found), "cpu_ms": cost, "same": 1.0})
    return {"rows": rows, "tuned": None, "queries": len(queries), "timed": len(queries), "kind": "composed queries",
            "encoding_ms": encoded([gallery.matcher], queries[:timed])}  # fmt: skip


def evenly(total: int, most: int) -> np.ndarray:
    """Numbers below ``total``, at most ``most`` of them, evenly spread."""
    return np.unique(np.linspace(0, total - 1, min(most, total)).astype(int))


def measure(head: str, coarse: str | None, split: str, reranks: list[str], most: int, timed: int) -> dict[str, Any]:
    """The table's rows, and what they were measured on."""
    matcher, other, cache = xr.load(head), xr.load(coarse) if coarse else None, FeatureCache()
    data = load_split(dataset_config(head), split)
    with tempfile.TemporaryDirectory() as place:
        made = iter(range(len(INDEXES)))

        def build(**how: Any) -> Gallery:
            return Gallery.build(matcher, data, Path(place) / f"{next(made)}.xr", cache=cache, coarse=other, **how)

        alone = isinstance(matcher.head, ComposedHead)
        found = indexes_of(build, data, most, timed) if alone else stages_of(build, head, data, reranks, most, timed)
    by = other.name if other else "an index of its vectors" if alone else "its own"
    return {
        "head": matcher.name, "coarse": by, "dataset": f"{data.name}/{split}", "images": len(data), **found,
        "versions": versions() | {"threads": str(torch.get_num_threads())},
    }  # fmt: skip


def show(result: dict[str, Any]) -> None:
    """Print what was measured. The cost is also told as a share of scoring every picture: of whole searches, and of
    what comes on top of the first stage (and of encoding the query, which no way to search can save)."""
    tuned, rows = result["tuned"], result["rows"]
    print(f"{result['head']} behind {result['coarse']}, {result['dataset']}: {result['queries']} {result['kind']} rank "
          f"{result['images']} images, {result['timed']} of them are timed")  # fmt: skip
    print(machine_line(result["versions"]))
    if tuned is not None:
        lost = f"{tuned['lost']:.2f} points lost"
        print(f"chosen on val: {tuned['rerank']} candidates ({lost}), blend {tuned['blend']:g}")
    print(f"encoding a query takes {result['encoding_ms']:.1f} CPU ms of each")
    whole = max((row["cpu_ms"] for row in rows if row["rerank"] in ("all", "scan", INDEXES[0])), default=float("nan"))
    first = next((row["cpu_ms"] for row in rows if row["rerank"] == "0"), result["encoding_ms"])
    print("| re-ranked | score | R@1 | R@5 | R@10 | CPU ms a query | of all | on top | same |\n|" + "---|" * 9)
    for row in rows:
        score = "first stage" if row["rerank"] == "0" else "head" if row["blend"] == 1 else f"blend {row['blend']:g}"
        top = max(row["cpu_ms"] - first, 0) / max(whole - first, 1e-9)
        print(f"| {row['rerank']} | {score} | {row['r1']:.1f} | {row['r5']:.1f} | {row['r10']:.1f} | "
              f"{row['cpu_ms']:.1f} | {row['cpu_ms'] / whole:.3f} | {top:.3f} | {row['same']:.3f} |")  # fmt: skip


def main(arguments: list[str] | None = None) -> dict[str, Any]:
    """Measure, print, and write what ``--out`` asks for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("head")
    parser.add_argument("--coarse")
    parser.add_argument("--split", default="test")
    parser.add_argument("--queries", type=int, default=1000)
    parser.add_argument("--timed", type=int, default=96)
    parser.add_argument("--reranks", nargs="+", default=RERANKS)
    parser.add_argument("--out", type=Path)
    a = parser.parse_args(arguments)
    result = measure(a.head, a.coarse, a.split, a.reranks, a.queries, a.timed)
    show(result)
    if a.out is not None:
        write_json(a.out, result)
    return result


if __name__ == "__main__":
    main()
