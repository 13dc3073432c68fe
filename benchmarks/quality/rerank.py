"""A head that scores pair by pair, re-ranking the best K of a fast first stage, against the same head on all pairs.

    python benchmarks/quality/rerank.py HEAD_RUN [--coarse DUAL_RUN] [--dataset flickr8k] [--split test]
        [--tops 20 50 100] [--precision 32] [--out FILE.json]

Text to image, the direction of a search. The first stage is a dual encoder's run, or HEAD_RUN's own coarse vectors
where they were trained. A picture outside the best K keeps its place in the first stage, behind them. CPU seconds are
of scoring alone (all threads): everything that depends on one side only is encoded before, for both stages alike.
Ties count by their expected rank.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import xretrieve as xr
from xretrieve.bench.tables import machine_line
from xretrieve.data.cache import FeatureCache
from xretrieve.errors import XRetrieveError
from xretrieve.evaluation.provenance import versions
from xretrieve.heads.scoring import score_matrix, score_pairs
from xretrieve.utils.files import write_json

KS = (1, 5, 10)


def ranks(scores: Tensor, owner: Tensor) -> Tensor:
    """0-based expected rank of each caption's image, (C,) float32. scores (C,N), owner (C,)."""
    own = scores.gather(1, owner[:, None])
    return (scores > own).sum(1) + ((scores == own).sum(1) - 1) / 2


def reranked(first: Tensor, candidates: Tensor, second: Tensor, owner: Tensor) -> Tensor:
    """Ranks (C,) after the candidates (C,K) were put in the order of ``second`` (C,K); the others stay behind them."""
    ours = candidates == owner[:, None]  # (C,K)
    own = second.masked_fill(~ours, -torch.inf).amax(1, keepdim=True)
    place = (second > own).sum(1) + ((second == own).sum(1) - 1).clamp(min=0) / 2
    return torch.where(ours.any(1), place, ranks(first, owner))


def timed(work: Callable[[], Tensor]) -> tuple[Tensor, float]:
    """What ``work`` returns, and its CPU seconds."""
    start = time.process_time()
    with torch.inference_mode():
        found = work()
    return found, time.process_time() - start


def measure(
    head_run: str, coarse_run: str | None, dataset: str, split: str, tops: list[int], precision: str
) -> dict[str, Any]:
    """The table's rows: name, R@1/5/10 in percent, CPU seconds."""
    matcher = xr.load(head_run)
    fast = matcher if coarse_run is None else xr.load(coarse_run)
    if not fast.head.coarse:
        raise XRetrieveError(
            f"{coarse_run or head_run}: head {fast.head.name!r} has no trained coarse vectors; give "
            "--coarse a dual encoder's run"
        )
    data, cache = xr.datasets.load(dataset, split=split), FeatureCache()
    with torch.inference_mode():
        gallery, queries = matcher.encode_images(data.images, cache=cache), matcher.encode_texts(data.captions)
        near = (gallery, queries) if fast is matcher else (
            fast.encode_images(data.images, cache=cache), fast.encode_texts(data.captions))  # fmt: skip
    owner = torch.as_tensor(data.owner)
    dtype = {"32": None, "bf16": torch.bfloat16}[precision]
    first, cheap = timed(lambda: fast.head.coarse_scores(near[1], near[0]))
    whole, dear = timed(lambda: score_matrix(matcher.head, queries, gallery, dtype=dtype))
    found = [("first stage alone", ranks(first, owner), cheap), ("all pairs", ranks(whole, owner), dear)]
    for k in tops:

        def second(k: int = k) -> Tensor:
            return score_pairs(matcher.head, queries, gallery, first.topk(k).indices, dtype=dtype)

        scores, seconds = timed(second)
        found.append((f"top {k}", reranked(first, first.topk(k).indices, scores, owner), cheap + seconds))
    rows = [{"name": name, **{f"r{k}": 100 * float((r < k).float().mean()) for k in KS}, "cpu": seconds,
             "share": seconds / dear} for name, r, seconds in found]  # fmt: skip
    return {
        "head": matcher.name, "coarse": fast.name, "dataset": f"{dataset}/{split}", "images": len(data),
        "captions": len(data.captions), "precision": precision, "rows": rows,
        "versions": versions() | {"threads": str(torch.get_num_threads())},
    }  # fmt: skip


def main(arguments: list[str] | None = None) -> dict[str, Any]:
    """Measure, print, and write what ``--out`` asks for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("head")
    parser.add_argument("--coarse")
    parser.add_argument("--dataset", default="flickr8k")
    parser.add_argument("--split", default="test")
    parser.add_argument("--tops", type=int, nargs="+", default=[20, 50, 100])
    parser.add_argument("--precision", choices=["32", "bf16"], default="32")
    parser.add_argument("--out", type=Path)
    a = parser.parse_args(arguments)
    result = measure(a.head, a.coarse, a.dataset, a.split, a.tops, a.precision)
    print(f"{result['head']} behind {result['coarse']}, {result['dataset']}: {result['captions']} captions rank "
          f"{result['images']} images, {a.precision}. {machine_line(result['versions'])}")  # fmt: skip
    print("| text to image | R@1 | R@5 | R@10 | CPU seconds | of all pairs |\n|---|---|---|---|---|---|")
    for row in result["rows"]:
        print(f"| {row['name']} | {row['r1']:.1f} | {row['r5']:.1f} | {row['r10']:.1f} | {row['cpu']:.2f} | "
              f"{row['share']:.3f} |")  # fmt: skip
    if a.out is not None:
        write_json(a.out, result)
    return result


if __name__ == "__main__":
    main()
