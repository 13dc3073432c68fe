"""Ranks by counting against the per-query sort loop of the published code, on one 5,000 x 25,000 matrix.

    python benchmarks/speed/ranks.py [--images 5000] [--runs 5] [--sort-runs 1]

The loop is the usual one (VSE++, SCAN, SGRAF): for each image, argsort its captions and look for the best of its own;
for each caption, argsort the images and look for its image. Both must give equal metrics.
"""

from __future__ import annotations

import argparse
import platform
import statistics
import time

import numpy as np
import torch

from xretrieve.evaluation.metrics import compute
from xretrieve.evaluation.ranks import rank_counts
from xretrieve.version import __version__


def by_counting(scores: np.ndarray, owner: np.ndarray) -> dict[str, float]:
    counts = rank_counts(scores, owner)
    return compute(counts.i2t(), counts.t2i())


def by_sorting(scores: np.ndarray, owner: np.ndarray) -> dict[str, float]:
    n, c = scores.shape
    i2t, t2i = np.zeros(n), np.zeros(c)
    for i in range(n):
        order = np.argsort(scores[i])[::-1]
        i2t[i] = min(np.flatnonzero(order == j)[0] for j in range(5 * i, 5 * i + 5))
    by_caption = scores.T
    for j in range(c):
        order = np.argsort(by_caption[j])[::-1]
        t2i[j] = np.flatnonzero(order == owner[j])[0]
    return compute(i2t, t2i)


def by_torch(scores: np.ndarray, owner: np.ndarray, block: int = 64) -> dict[str, float]:
    """Counting with plain torch comparisons in row blocks, without ties: what one would write first."""
    matrix, owners = torch.from_numpy(scores), torch.from_numpy(owner)
    positive = matrix[owners, torch.arange(len(owners))]
    best = positive.view(-1, 5).amax(1)
    i2t, t2i = torch.empty(len(matrix)), torch.zeros(len(owners))
    for i in range(0, len(matrix), block):
        part = matrix[i : i + block]
        i2t[i : i + block] = (part > best[i : i + block, None]).sum(1)
        t2i += (part > positive).sum(0)
    return compute(i2t.numpy(), t2i.numpy())


def measure(what, runs, *args):
    walls, cpus = [], []
    for _ in range(runs):
        wall, cpu = time.perf_counter(), time.process_time()
        metrics = what(*args)
        walls.append(time.perf_counter() - wall)
        cpus.append(time.process_time() - cpu)
    return metrics, statistics.median(walls), statistics.median(cpus)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=5000)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--sort-runs", type=int, default=1)
    args = parser.parse_args()
    owner = np.repeat(np.arange(args.images), 5)
    rng = np.random.default_rng(0)
    scores = rng.standard_normal((args.images, len(owner)), dtype=np.float32)
    scores[owner, np.arange(len(owner))] += 3
    # the sort loop breaks ties by position, so the matrix must have next to none (equal float32 draws happen)
    assert rank_counts(scores, owner).tied < 200

    cpu = next((line.split(":")[1].strip() for line in open("/proc/cpuinfo") if line.startswith("model name")), "")
    print(
        f"{platform.system()} {platform.machine()} {cpu}, {torch.get_num_threads()} torch threads\n"
        f"Python {platform.python_version()}, numpy {np.__version__}, torch {torch.__version__}, "
        f"xretrieve {__version__}"
    )
    print(f"{args.images} images x {len(owner)} captions, float32, both directions, all metrics")
    rows = [
        ("xretrieve, counting in tiles", *measure(by_counting, args.runs, scores, owner)),
        ("torch comparisons in blocks", *measure(by_torch, args.runs, scores, owner)),
        ("argsort per query", *measure(by_sorting, args.sort_runs, scores, owner)),
    ]
    reference = rows[0][1]
    for name, metrics, wall, cpu_seconds in rows:
        for key, value in metrics.items():  # a handful of equal float32 scores may move a rank by one
            assert abs(value - reference[key]) < 0.01, (name, key, value, reference[key])
        print(
            f"{name:30} wall {wall:8.3f} s   CPU {cpu_seconds:8.3f} s   x {cpu_seconds / rows[0][3]:.1f} CPU "
            f"  rsum {metrics['rsum']:.2f}"
        )


if __name__ == "__main__":
    main()
