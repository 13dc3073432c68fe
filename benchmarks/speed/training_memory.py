"""What one training step of a head over local tokens takes: peak memory and CPU seconds, at the published sizes.

    python benchmarks/speed/training_memory.py [--head tshsr] [--batch 128] [--memory MIB] [--threads 1]
        [--features 2048] [--dim 1024] [--sim-dim 256] [--regions 36] [--words 8481] [--rows float32 bfloat16]

A step is that of the training loop: regions through their projection, captions (15 words on average, start and end
counted) through the BiGRU, all pairs, the hinge with hardest negatives on every matrix of the head, gradients, their
norm clipped, Adam. A small step before it makes Adam's averages. Every row runs in a process of its own; its peak is
all that process ever held, libraries included. ``--memory`` bounds the blocks that are kept for the backward pass
instead of being computed again there; without it the head's default holds.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # run as a file, it finds its neighbour too

from benchmarks.speed.scoring import caption_lengths, highest  # noqa: E402
from xretrieve.backbones.vocabulary import Vocabulary  # noqa: E402
from xretrieve.backbones.words import Words  # noqa: E402
from xretrieve.heads import create_head  # noqa: E402
from xretrieve.heads.local import LocalHead  # noqa: E402
from xretrieve.tokens import Tokens  # noqa: E402
from xretrieve.training.losses import HardestHinge  # noqa: E402
from xretrieve.training.trainee import Trainee  # noqa: E402
from xretrieve.version import __version__  # noqa: E402

ROWS = ("float32", "bfloat16")


def make(a: argparse.Namespace) -> Trainee:
    """The head, the hinge and the BiGRU; regions come from a cache."""
    torch.manual_seed(0)
    words = Words(Vocabulary(["<pad>", "<start>", "<end>", "<unk>", *(f"w{i}" for i in range(a.words - 4))]), dim=a.dim)
    sizes = {"dim": a.dim} if a.head == "scan" else {"dim": a.dim, "sim_dim": a.sim_dim}
    head = create_head(a.head, image_dim=a.features, text_dim=a.dim, **sizes)
    assert isinstance(head, LocalHead)
    head.memory = a.memory * 2**20 if a.memory else None
    return Trainee(head, HardestHinge(), None, words).train()


def batch(count: int, a: argparse.Namespace) -> tuple[Tokens, dict[str, Tensor], Tensor]:
    """Random regions and captions of ``count`` pairs; no two are duplicates."""
    lengths = caption_lengths(count)
    ids = torch.randint(4, a.words, (count, int(lengths.max())))
    images = Tokens.from_local(torch.randn(count, a.regions, a.features))
    return images, {"ids": ids, "lengths": lengths}, torch.zeros(1, count, count, dtype=torch.bool)


def step(trainee: Trainee, adam: torch.optim.Optimizer, inputs: tuple[Any, ...], dtype: torch.dtype) -> float:
    """One step; the loss."""
    with torch.autocast("cpu", dtype=dtype, enabled=dtype != torch.float32):
        loss, _ = trainee(*inputs)
    adam.zero_grad()
    loss.backward()
    torch.nn.utils.clip_grad_norm_(trainee.parameters(), 2.0)
    adam.step()
    return float(loss.detach())


def measure(row: str, a: argparse.Namespace) -> dict[str, float]:
    """One row in this process."""
    torch.set_num_threads(a.threads)
    trainee, dtype = make(a), getattr(torch, row)
    adam = torch.optim.Adam([p for p in trainee.parameters() if p.requires_grad], 2e-4)
    step(trainee, adam, batch(2, a), dtype)
    inputs, before = batch(a.batch, a), highest()
    wall, cpu = time.perf_counter(), time.process_time()
    loss = step(trainee, adam, inputs, dtype)
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    return {
        "loss": loss,
        "wall": wall,
        "cpu": cpu,
        "before": before / 2**20,
        "peak": max(before, highest()) / 2**20,
    }  # the kernel adds up late: the peak can read some kilobytes low


def main(arguments: list[str] | None = None) -> dict[str, Any]:
    """Measure every row and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--head", choices=("scan", "sgr", "saf", "tshsr"), default="tshsr")
    for key, value in (("batch", 128), ("memory", 0), ("threads", 1), ("features", 2048), ("dim", 1024),
                       ("sim-dim", 256), ("regions", 36), ("words", 8481)):  # fmt: skip
        parser.add_argument(f"--{key}", type=int, default=value)
    parser.add_argument("--rows", nargs="+", choices=ROWS, default=list(ROWS))
    parser.add_argument("--row", choices=ROWS, help="measure one row here and print it as JSON")
    a = parser.parse_args(arguments)
    if a.row:
        print(json.dumps(measure(a.row, a)))
        return {}
    keep = [f"--{k.replace('_', '-')}={v}" for k, v in vars(a).items() if k not in ("rows", "row")]
    print(f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores, {a.threads} threads; "
          f"Python {platform.python_version()}, torch {torch.__version__}, xretrieve {__version__}")  # fmt: skip
    print(f"{a.head}, batch {a.batch} x {a.batch}, F {a.features}, D {a.dim}, S {a.sim_dim}, {a.regions} regions, "
          f"{a.words} words; blocks kept: {f'{a.memory} MiB' if a.memory else 'the default'}")  # fmt: skip
    print(f"{'products':10}{'CPU s':>9}{'wall s':>9}{'ms/pair':>9}{'before GB':>11}{'peak GB':>9}{'loss':>10}")
    found: dict[str, Any] = {}
    for row in a.rows:
        line = [sys.executable, __file__, "--row", row, *keep]
        done = subprocess.run(line, capture_output=True, text=True, check=False)
        if done.returncode:
            raise SystemExit(done.stderr.strip()[-2000:] or f"{row}: stopped with exit status {done.returncode}")
        one = found[row] = json.loads(done.stdout.splitlines()[-1])
        print(f"{row:10}{one['cpu']:9.1f}{one['wall']:9.1f}{1e3 * one['cpu'] / a.batch**2:9.2f}{one['before']:11.2f}"
              f"{one['peak']:9.2f}{one['loss']:10.3f}", flush=True)  # fmt: skip
    return found


if __name__ == "__main__":
    main()
