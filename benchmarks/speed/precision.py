"""Training steps and scoring blocks in float32, in bf16 and in what `precision: auto` takes, side by side in one run.

    python benchmarks/speed/precision.py [--avx2] [--runs 5] [--threads 1] [--rows dual-step sgr-step ... hmrn-scores]
        [--pictures 64] [--batch 16] [--images 50] [--captions 40] [--dim 512] [--sim-dim 128] [--regions 36]

``dual-step`` is a step of the recipe `image_text/scenes-dual` as it is shipped, with random pictures; the other steps
are those of training_memory.py and of HMRN's loss over five sentences, at --dim; ``scores`` are blocks of the scoring
engine. The ways take turns, and the median of their CPU seconds counts. ``auto`` runs by itself only where it is
neither of the two. ``--avx2`` limits the libraries to AVX2, so that bf16 is emulated, as most laptops do it.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # run as a file, it finds its neighbours too

from benchmarks.speed import rounds, scoring, training_memory  # noqa: E402
from xretrieve.heads.rounds import score_rounds  # noqa: E402
from xretrieve.heads.scoring import in_dtype, score_matrix  # noqa: E402
from xretrieve.training.build import build_matcher  # noqa: E402
from xretrieve.training.losses import HardestHinge, create_loss  # noqa: E402
from xretrieve.training.recipes import load_recipe  # noqa: E402
from xretrieve.training.trainee import Trainee  # noqa: E402
from xretrieve.utils.environment import processor  # noqa: E402
from xretrieve.utils.precision import DTYPES, described, resolve  # noqa: E402
from xretrieve.version import __version__  # noqa: E402

Work = Callable[[torch.dtype], object]
LIMITS = {"ATEN_CPU_CAPABILITY": "avx2", "ONEDNN_MAX_CPU_ISA": "AVX2", "DNNL_MAX_CPU_ISA": "AVX2",
          "MKL_ENABLE_INSTRUCTIONS": "AVX2"}  # fmt: skip


def dual_step(a: argparse.Namespace) -> Work:
    """The shipped recipe's model and loss; noise as pictures, five captions of ten words each."""
    recipe = load_recipe("image_text/scenes-dual")
    stage = recipe.stages[0]
    torch.manual_seed(0)
    words = [f"word{i}" for i in range(100)]
    captions = [" ".join(words[(7 * i + j) % 100] for j in range(10)) for i in range(5 * a.pictures)]
    matcher = build_matcher(recipe, captions)
    assert stage.loss is not None
    loss = create_loss(stage.loss.name, **stage.loss.options)
    trainee = Trainee(matcher.head, loss, matcher.image, matcher.text).train()
    none = torch.zeros(5, a.pictures, a.pictures, dtype=torch.bool)
    inputs = matcher.image.example(a.pictures, 0), matcher.text.prepare(captions), none
    return stepping(trainee, inputs)


def local_step(head: str) -> Callable[[argparse.Namespace], Work]:
    """A step of a head over local tokens with its BiGRU, all pairs of a batch."""

    def make(a: argparse.Namespace) -> Work:
        sizes = argparse.Namespace(head=head, memory=0, features=a.dim, dim=a.dim, sim_dim=a.sim_dim,
                                   regions=a.regions, words=200)  # fmt: skip
        return stepping(training_memory.make(sizes), training_memory.batch(a.batch, sizes))

    return make


def stepping(trainee: Trainee, inputs: tuple[Any, ...]) -> Work:
    """One optimizer step on the same batch again and again."""
    adam = torch.optim.Adam([p for p in trainee.parameters() if p.requires_grad], 1e-5)
    return lambda dtype: training_memory.step(trainee, adam, inputs, dtype)


@torch.no_grad()
def hmrn_inputs(a: argparse.Namespace, sets: int, images: int) -> Any:
    """HMRN, sets of five sentences, and images."""
    return rounds.inputs(argparse.Namespace(width=a.sim_dim, direction="t2i", rounds=5, images=images,
                                            regions=a.regions, sets=sets))  # fmt: skip


def hmrn_step(a: argparse.Namespace) -> Work:
    """Loss and gradients of HMRN's pair stage; the sides are prepared."""
    head, sets, images = hmrn_inputs(a, a.batch, a.batch)
    hinge = HardestHinge()

    def work(dtype: torch.dtype) -> None:
        with in_dtype("cpu", dtype):
            loss, _ = head.train().training_loss(sets, images, lambda scores: hinge(scores.float()))
        head.zero_grad()
        loss.backward()

    return work


def local_scores(head: str) -> Callable[[argparse.Namespace], Work]:
    """Captions against images by the scoring engine."""

    def make(a: argparse.Namespace) -> Work:
        made, queries, gallery = scoring.make(head, argparse.Namespace(**vars(a), alike=1))
        return torch.inference_mode()(lambda dtype: score_matrix(made, queries, gallery, dtype=dtype))

    return make


def hmrn_scores(a: argparse.Namespace) -> Work:
    """Query sets against images after every round."""
    head, sets, images = hmrn_inputs(a, a.captions, a.images)
    return torch.inference_mode()(lambda dtype: score_rounds(head, sets, images, dtype=dtype))


ROWS: dict[str, Callable[[argparse.Namespace], Work]] = {
    "dual-step": dual_step, "sgr-step": local_step("sgr"), "tshsr-step": local_step("tshsr"), "hmrn-step": hmrn_step,
    "sgr-scores": local_scores("sgr"), "saf-scores": local_scores("saf"), "tshsr-scores": local_scores("tshsr"),
    "hmrn-scores": hmrn_scores,
}  # fmt: skip


def measure(row: str, a: argparse.Namespace) -> dict[str, float]:
    """Median CPU seconds of a row in each precision."""
    with torch.enable_grad():
        work, ways = ROWS[row](a), dict.fromkeys(["32", "bf16", resolve("auto")])
        took: dict[str, list[float]] = {way: [] for way in ways}
        for turn in range(a.runs + 1):
            for way in ways:
                start = time.process_time()
                work(DTYPES[way])
                if turn:  # the first one sets things up
                    took[way].append(time.process_time() - start)
    found = {way: statistics.median(seconds) for way, seconds in took.items()}
    return {**found, "auto": found[resolve("auto")]}


def main(arguments: list[str] | None = None) -> dict[str, dict[str, float]]:
    """Measure every row and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for key, value in (("runs", 5), ("threads", 1), ("pictures", 64), ("batch", 16), ("images", 50), ("captions", 40),
                       ("dim", 512), ("sim-dim", 128), ("regions", 36)):  # fmt: skip
        parser.add_argument(f"--{key}", type=int, default=value)
    parser.add_argument("--rows", nargs="+", choices=list(ROWS), default=list(ROWS))
    parser.add_argument("--avx2", action="store_true", help="as on a machine with AVX2 and no more")
    a = parser.parse_args(arguments)
    if a.avx2:
        given = [word for word in (arguments if arguments is not None else sys.argv[1:]) if word != "--avx2"]
        subprocess.run([sys.executable, __file__, *given], check=True, env={**os.environ, **LIMITS})
        return {}
    torch.set_num_threads(a.threads)
    machine = processor()
    print(f"{platform.system()} {machine['name']}, {machine['cores']} cores, {a.threads} threads; "
          f"{', '.join(machine['flags'])}; torch uses {torch.backends.cpu.get_cpu_capability()}")  # fmt: skip
    print(f"auto is {described('auto')}; Python {platform.python_version()}, torch {torch.__version__}, "
          f"xretrieve {__version__}")  # fmt: skip
    print(f"median CPU ms of {a.runs}: {a.pictures} pictures a step; batch {a.batch} x {a.batch}, D {a.dim}, S "
          f"{a.sim_dim}, {a.regions} regions; {a.captions} captions or sets x {a.images} images")  # fmt: skip
    print(f"{'':14}{'float32':>10}{'bf16':>10}{'auto':>10}{'bf16/float32':>14}{'auto/float32':>14}")
    found = {}
    for row in a.rows:
        one = found[row] = measure(row, a)
        cells = "".join(f"{1e3 * one[way]:10.1f}" for way in ("32", "bf16", "auto"))
        print(f"{row:14}{cells}{one['bf16'] / one['32']:14.2f}{one['auto'] / one['32']:14.2f}", flush=True)
    return found


if __name__ == "__main__":
    main()
