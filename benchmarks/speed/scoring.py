"""The scoring engine against a straightforward loop over captions, at the published sizes.

    python benchmarks/speed/scoring.py [--images 200] [--captions 1000] [--loop-captions 1000] [--heads scan sgr ...]
        [--threads 1] [--runs 3] [--loop-runs 1] [--dim 1024] [--sim-dim 256] [--regions 36] [--alike 1] [--profile]

The loop (scoring_loop.py) walks captions one at a time against all images, as the published code does, in float32. All
captions take it about ten minutes; with fewer --loop-captions its seconds are scaled by the words, and the table says
so. Equal scores are asserted. Every cell runs in a process of its own: CPU seconds are the median of --runs runs (of
the loop: --loop-runs), memory is the peak of that process above what it held before scoring. TSHSR's loop is that of
its own two streams; the last line compares it with the loops of SGR t2i and SGR i2t together.

A small run pads more than a large one, whose blocks find captions of one length: `--alike 8` gives every length to
eight captions. `--profile` says where the engine's CPU time goes, by kind of operation, and measures nothing else.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # run as a file, it finds its neighbour too

from benchmarks.speed.scoring_loop import loop  # noqa: E402
from benchmarks.speed.scoring_profile import profile, table  # noqa: E402
from xretrieve.heads import create_head  # noqa: E402
from xretrieve.heads.local import LocalHead  # noqa: E402
from xretrieve.heads.products import linear, pack, packed_linear  # noqa: E402
from xretrieve.heads.scoring import score_matrix  # noqa: E402
from xretrieve.tokens import Prepared, Tokens  # noqa: E402
from xretrieve.version import __version__  # noqa: E402

HEADS: dict[str, tuple[str, dict[str, Any]]] = {
    "scan": ("scan", {}), "saf": ("saf", {}), "sgr": ("sgr", {}), "sgr-i2t": ("sgr", {"stream": "i2t"}),
    "tshsr": ("tshsr", {}),
}  # fmt: skip
ASSERTED = 20  # captions whose scores must equal the loop's
TOLERANCE = 1e-5  # of probabilities (SCAN: of its raw scores), float32


def caption_lengths(count: int) -> torch.Tensor:
    """Words with the start and end tokens: log-normal, mean about 15, a tail of long ones. (count,) int64"""
    return (2 + torch.exp(2.437 + 0.4 * torch.randn(count)).round().clamp(3, 60)).long()


def make(name: str, a: argparse.Namespace) -> tuple[LocalHead, Prepared, Prepared]:
    """A random head, captions of the lengths of Flickr30K's, and images, prepared."""
    kind, options = HEADS[name]
    torch.manual_seed(0)
    sizes = {"dim": a.dim} if kind == "scan" else {"dim": a.dim, "sim_dim": a.sim_dim, "dropout": 0.0}
    head = create_head(kind, image_dim=a.dim, text_dim=a.dim, image_project=False, **sizes, **options).eval()
    lengths = caption_lengths(-(-a.captions // a.alike)).repeat_interleave(a.alike)[: a.captions]
    mask = torch.arange(int(lengths.max())) < lengths[:, None]
    texts = Tokens.from_local(torch.randn(*mask.shape, a.dim), mask)
    images = Tokens.from_local(torch.randn(a.images, a.regions, a.dim))
    return head, head.prepare_queries(texts), head.prepare_gallery(images)


def highest() -> int:
    """Peak resident memory in KB, since the process began or since it was last reset."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))
    except (OSError, StopIteration):
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def median(work: Callable[[], torch.Tensor], runs: int) -> tuple[torch.Tensor, float, float]:
    """The result, the median CPU seconds, and the peak memory in MB above the start."""
    seconds: list[float] = []
    with contextlib.suppress(OSError):  # Linux: forget the peak of what came before
        Path("/proc/self/clear_refs").write_text("5")
    before = highest()
    for _ in range(runs):
        start = time.process_time()
        found = work()
        seconds.append(time.process_time() - start)
    return found, statistics.median(seconds), (highest() - before) / 1024


@torch.no_grad()
def cell(name: str, how: str, a: argparse.Namespace) -> dict[str, float]:
    """One head, by the ``loop`` or by the engine in ``float32`` or ``bfloat16``."""
    torch.set_num_threads(a.threads)
    head, queries, gallery = make(name, a)
    few = min(a.loop_captions, a.captions)
    if how == "loop":
        lengths = queries.mask[:few].sum(1).tolist()
        _, cpu, mb = median(lambda: loop(head, gallery.local, queries.local[:few], lengths), a.loop_runs)
        # scaled by words: the first captions may be longer or shorter than the rest
        return {"cpu": cpu * float(queries.mask.sum()) / sum(lengths), "mb": mb}
    dtype = getattr(torch, how)
    score_matrix(head, queries[:2], gallery[:2], dtype=dtype)  # what is set up once is not measured
    scores, cpu, mb = median(lambda: score_matrix(head, queries, gallery, dtype=dtype), a.runs)
    few = min(few, ASSERTED)
    slow = loop(head, gallery.local, queries.local[:few], queries.mask[:few].sum(1).tolist())
    pair = (scores[:few], slow) if head.name == "scan" else (scores[:few].sigmoid(), slow.sigmoid())
    apart = float((pair[0] - pair[1]).abs().max())
    if how == "float32" and not apart <= TOLERANCE:
        raise SystemExit(f"{name}: the engine and the loop differ by {apart:.1e}")
    return {"cpu": cpu, "mb": mb, "apart": apart}


SHAPES = ((2048, 2048, 2048), (16384, 1024, 256), (1024, 1024, 256), (2048, 256, 256))  # rows, inner, columns


@torch.no_grad()
def peak(dtype: torch.dtype, threads: int, shapes: Sequence[tuple[int, int, int]] = SHAPES) -> float:
    """Multiply-adds per CPU second of the machine's fastest matrix product.

    The best over a large product and those that the engines have most, each by every way that torch has: MKL, which
    leaves half of some processors idle in float32, and oneDNN, with and without a weight laid out beforehand (see
    :mod:`xretrieve.heads.products`). A shared machine only slows them, so of several runs the fastest counts. One large
    product alone is no peak: its result is written to the memory, and smaller ones were up to a tenth faster.
    """
    torch.set_num_threads(threads)
    best = 0.0
    for rows, inner, columns in shapes:
        x, weight = torch.randn(rows, inner).to(dtype), torch.randn(columns, inner).to(dtype)
        ways = [partial(torch.nn.functional.linear, x, weight), partial(linear, x, weight)]
        packed = pack(weight)
        ways += [] if packed is None else [partial(packed_linear, x, packed)]
        for way in ways * (3 if rows * inner * columns > 2**31 else 12):
            best = max(best, rows * inner * columns / median(way, 1)[1])
    return best


def multiply_adds(name: str, words: float, a: argparse.Namespace) -> float:
    """Of one pair with every exact saving (specification of the family): products alone, a mean caption."""
    r, d, s = a.regions, a.dim, a.sim_dim
    if name == "scan":
        return r * words * d + r * r * words
    total = r * words * d + d * s
    for stream in {"sgr": ["t2i"], "saf": ["t2i"], "sgr-i2t": ["i2t"], "tshsr": ["t2i", "i2t"]}[name]:
        q = words if stream == "t2i" else r
        n = 1 + q
        total += r * words * d + q * d * s
        if name == "saf":
            continue
        total += 2 * (2 * n * s * s + 2 * n * n * s) + 2 * s * s + 2 * n * s
        if name == "tshsr":
            total += 2 * n * s * s + s * s + sum((2 * m * s * s + 3 * n * m * s) for m in (4, 2, 1))
    return total


@torch.no_grad()
def where(a: argparse.Namespace) -> None:
    """Print where the engine's time goes in float32, head by head."""
    torch.set_num_threads(a.threads)
    fastest = peak(torch.float32, a.threads)
    for name in a.heads:
        head, queries, gallery = make(name, a)
        score_matrix(head, queries[:2], gallery[:2], dtype=torch.float32)
        found, whole = profile(partial(score_matrix, head, queries, gallery, dtype=torch.float32), a.runs)
        print(f"{name}: {a.images} images x {a.captions} captions, float32, {fastest / 1e9:.1f} G multiply-adds a "
              f"CPU s at the fastest product\n{table(found, whole, fastest)}", flush=True)  # fmt: skip


def main(arguments: list[str] | None = None) -> dict[str, Any]:
    """Measure every cell and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for key, value in (("images", 200), ("captions", 1000), ("loop-captions", 1000), ("threads", 1), ("runs", 3),
                       ("loop-runs", 1), ("dim", 1024), ("sim-dim", 256), ("regions", 36), ("alike", 1)):  # fmt: skip
        parser.add_argument(f"--{key}", type=int, default=value)
    parser.add_argument("--heads", nargs="+", choices=list(HEADS), default=list(HEADS))
    parser.add_argument("--profile", action="store_true")
    parser.add_argument("--cell", nargs=2, help=argparse.SUPPRESS)
    a = parser.parse_args(arguments)
    if a.cell:
        print(json.dumps(cell(*a.cell, a)))
        return {}
    if a.profile:
        where(a)
        return {}
    keep = [f"--{k.replace('_', '-')}={v}" for k, v in vars(a).items() if k not in ("heads", "cell", "profile")]
    found: dict[str, Any] = {"peak": {t: peak(getattr(torch, t), a.threads) for t in ("float32", "bfloat16")}}
    print(f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores, {a.threads} threads; "
          f"Python {platform.python_version()}, torch {torch.__version__}, xretrieve {__version__}")  # fmt: skip
    print(f"{a.images} images x {a.captions} captions, {a.regions} regions, D {a.dim}, S {a.sim_dim}; loop on "
          f"{a.loop_captions if a.loop_captions < a.captions else 'all'} captions"
          f"{', scaled' if a.loop_captions < a.captions else ''}; matrix product peak float32 / bfloat16 "
          f"{found['peak']['float32'] / 1e9:.0f} / {found['peak']['bfloat16'] / 1e9:.0f} G multiply-adds a CPU s"
          )  # fmt: skip
    print(f"{'head':9}{'way':10}{'CPU s':>9}{'us/pair':>9}{'of loop':>9}{'of peak':>9}{'peak MB':>9}{'differs':>10}")
    words = float(make("scan", a)[1].mask.sum()) / a.captions
    for name in a.heads:
        for how in ("loop", "float32", "bfloat16"):
            line = [sys.executable, __file__, "--cell", name, how, *keep]
            done = subprocess.run(line, capture_output=True, text=True, check=False)
            if done.returncode:
                raise SystemExit(done.stderr.strip()[-2000:])
            one = found[f"{name} {how}"] = json.loads(done.stdout.splitlines()[-1])
            pairs, share = a.images * a.captions, ""
            if how != "loop":
                share = f"{multiply_adds(name, words, a) * pairs / one['cpu'] / found['peak'][how]:.2f}"
            print(f"{name:9}{how:10}{one['cpu']:9.2f}{1e6 * one['cpu'] / pairs:9.1f}"
                  f"{one['cpu'] / found[f'{name} loop']['cpu']:9.3f}{share:>9}{one['mb']:9.0f}"
                  f"{one.get('apart', 0.0):10.1e}", flush=True)  # fmt: skip
    if {"sgr", "sgr-i2t", "tshsr"} <= set(a.heads):
        both = found["sgr loop"]["cpu"] + found["sgr-i2t loop"]["cpu"]
        found["streams"] = {how: found[f"tshsr {how}"]["cpu"] / both for how in ("float32", "bfloat16")}
        print(f"TSHSR over the loops of SGR t2i and i2t together: float32 {found['streams']['float32']:.2f}, "
              f"bfloat16 {found['streams']['bfloat16']:.2f}")  # fmt: skip
    return found


if __name__ == "__main__":
    main()
