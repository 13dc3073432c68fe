"""Recall against cost of a gallery's two stages, by the number of candidates that the head re-ranks.

    python benchmarks/quality/cascade.py HEAD_RUN [--coarse DUAL_RUN] [--split test] [--queries 1000]
        [--reranks 0 10 20 50 100 200 all] [--out FILE.json]

The run's own dataset is indexed, the blend of both stages is chosen on its validation split (`xretrieve tune`), and
every search goes through `Gallery.search_many`, 16 queries at once: captions, or query sets for heads that read those.
CPU seconds (all threads) are those of whole searches, the encoding of the queries among them. Recall counts the top 10.
"""

from __future__ import annotations

import argparse
import os
import platform
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

import xretrieve as xr
from xretrieve.data.cache import FeatureCache
from xretrieve.errors import XRetrieveError
from xretrieve.evaluation.cascade import asked, check_tunable, tune
from xretrieve.gallery import Gallery
from xretrieve.gallery_asked import Ask
from xretrieve.training.recipes import recipe_of
from xretrieve.utils.files import write_json
from xretrieve.version import __version__

KS = (1, 5, 10)
BATCH = 16
RERANKS = ["0", "10", "20", "50", "100", "200", "all"]


def split_of(run: str, split: str) -> Any:
    """One split of the dataset that a run was trained on."""
    own = recipe_of(run).get("dataset", {})
    if "name" not in own:
        raise XRetrieveError(f"{run} has no recipe.yaml that names a dataset")
    return xr.datasets.load(
        own["name"], root=own.get("root"), split=split, layout=own.get("layout"), **own.get("options", {})
    )


def searched(gallery: Gallery, queries: list[Any], wanted: list[str], **how: Any) -> dict[str, float]:
    """R@1, R@5 and R@10 in percent, and CPU milliseconds of a query."""
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
    cost = 1000 * (time.process_time() - start) / len(queries)
    return {**{f"r{k}": 100 * float(np.mean(np.array(places) < k)) for k in KS}, "cpu_ms": cost}


def measure(head: str, coarse: str | None, split: str, reranks: list[str], most: int) -> dict[str, Any]:
    """The table's rows, and what they were measured on."""
    matcher, other, cache = xr.load(head), xr.load(coarse) if coarse else None, FeatureCache()
    data = split_of(head, split)
    with tempfile.TemporaryDirectory() as place:
        gallery = Gallery.build(matcher, data, Path(place) / "g.xr", cache=cache, coarse=other)
        check_tunable(gallery)
        tuned = tune(gallery, split_of(head, "val"), cache=cache)
        said, positive = asked(matcher, data, most)
        queries = [xr.MultiText(texts) if tuned["kind"] == "query sets" else xr.Text(texts[0]) for texts in said]
        wanted = [data.image_ids[row] for row in positive]
        rows = []
        for rerank in reranks:
            count = rerank if rerank == "all" else int(rerank)
            if isinstance(count, int) and count > len(gallery):
                continue
            for blend in [1.0] if count == 0 else sorted({1.0, tuned["blend"]}, reverse=True):
                found = searched(gallery, queries, wanted, rerank=count, blend=blend)
                rows.append({"rerank": rerank, "blend": blend, **found})
    return {
        "head": matcher.name, "coarse": other.name if other else "its own", "dataset": f"{data.name}/{split}",
        "images": len(data), "queries": len(queries), "kind": tuned["kind"], "tuned": tuned, "rows": rows,
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, {torch.get_num_threads()} threads",
        "versions": {"xretrieve": __version__, "torch": torch.__version__, "numpy": np.__version__},
    }  # fmt: skip


def main(arguments: list[str] | None = None) -> dict[str, Any]:
    """Measure, print, and write what ``--out`` asks for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("head")
    parser.add_argument("--coarse")
    parser.add_argument("--split", default="test")
    parser.add_argument("--queries", type=int, default=1000)
    parser.add_argument("--reranks", nargs="+", default=RERANKS)
    parser.add_argument("--out", type=Path)
    a = parser.parse_args(arguments)
    result = measure(a.head, a.coarse, a.split, a.reranks, a.queries)
    tuned = result["tuned"]
    print(f"{result['head']} behind {result['coarse']}, {result['dataset']}: {result['queries']} {result['kind']} rank "
          f"{result['images']} images; {result['machine']}, torch {torch.__version__}")  # fmt: skip
    print(f"chosen on val: {tuned['rerank']} candidates, blend {tuned['blend']:g}")
    print("| re-ranked | score | R@1 | R@5 | R@10 | CPU ms a query |\n|---|---|---|---|---|---|")
    for row in result["rows"]:
        score = "first stage" if row["rerank"] == "0" else "head" if row["blend"] == 1 else f"blend {row['blend']:g}"
        print(f"| {row['rerank']} | {score} | {row['r1']:.1f} | {row['r5']:.1f} | {row['r10']:.1f} | "
              f"{row['cpu_ms']:.1f} |")  # fmt: skip
    if a.out is not None:
        write_json(a.out, result)
    return result


if __name__ == "__main__":
    main()
