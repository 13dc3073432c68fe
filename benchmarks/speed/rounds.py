"""All rounds of HMRN in one pass against a loop over query sets and rounds, at the published sizes.

    python benchmarks/speed/rounds.py [--direction t2i] [--images 1000] [--sets 1000] [--loop-sets 20] [--threads N]
        [--profile]

The loop is the plain form of the same equations, as the published code has it: one set and one round at a time against
all images, the set's sentences repeated for every image, three projections per reasoning step, all nodes to the end.
It is run on the first ``--loop-sets`` sets, whose scores must agree, and its seconds are scaled to all of them. Both
start from encoded regions and sentences. Every row runs in its own process, so that its peak of memory is its own. The
last line says what the multiply-adds that no exact saving removes take at the machine's fastest product: no way of
scoring all pairs is faster than that. `--profile` says where the engine's CPU time goes instead, in float32.
"""

from __future__ import annotations

import argparse
import json
import platform
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.functional import leaky_relu

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # run as a file, it finds its neighbour too

from benchmarks.speed.scoring import peak  # noqa: E402
from benchmarks.speed.scoring_profile import profile, table  # noqa: E402
from xretrieve.heads import create_head  # noqa: E402
from xretrieve.heads.hmrn import HMRN  # noqa: E402
from xretrieve.heads.rounds import score_rounds  # noqa: E402
from xretrieve.tokens import Prepared, Tokens  # noqa: E402
from xretrieve.version import __version__  # noqa: E402

ROWS = ("loop", "float32", "bfloat16")


def inputs(args: argparse.Namespace) -> tuple[HMRN, Prepared, Prepared]:
    """A head with random weights, and random sets and images, encoded."""
    torch.manual_seed(0)
    d = args.width
    head = create_head("hmrn", image_dim=d, text_dim=d, dim=d, sim_dim=d, direction=args.direction,
                       weight_horizon=args.rounds).eval()  # fmt: skip
    regions, said = torch.randn(args.images, args.regions, d), torch.randn(args.sets * args.rounds, d)
    sets = head.combine_sets(head.prepare_queries(Tokens.from_pooled(said)), [args.rounds] * args.sets)
    return head, sets, head.prepare_gallery(Tokens.from_local(regions))


def unit(x: Tensor) -> Tensor:
    return x / (torch.pow(x, 2).sum(dim=-1, keepdim=True).sqrt() + 1e-8)


def one_round(head: HMRN, images: Prepared, said: Tensor) -> Tensor:
    """Scores (N,) of all images for the sentences (r,D) of one set."""
    v, n, r = images.local, len(images), len(said)
    q = said.repeat(n, 1, 1)  # (N,r,D)
    s = leaky_relu(torch.bmm(v, q.transpose(1, 2)), 0.1)  # (N,R,r)
    if head.direction == "i2t":
        local = ((5 * s).softmax(2) * s).sum(2).mean(1)
    else:
        local = ((15 * s).softmax(1) * s).sum(1).mean(1)
    pool = head.t_global_w
    near, far = pool.embedding_local(said), pool.embedding_global(said.mean(0, keepdim=True))
    text = unit((pool.embedding_common(near * far).softmax(0) * said).sum(0))  # (D,)
    h = unit(s)  # each region over the sentences
    context = unit(torch.bmm((15 * h).softmax(1).transpose(1, 2), v))  # (N,r,D)
    nodes = unit(head.sim_tranloc_w(torch.pow(context - q, 2)))
    x = torch.cat([unit(head.sim_tranglo_w(torch.pow(images.pooled - text, 2)))[:, None], nodes], 1)  # (N,1+r,S)
    for step in head.ICR_module:
        edges = torch.bmm(step.graph_query_w(x), step.graph_key_w(x).transpose(1, 2)).softmax(-1)
        x = step.sim_graph_w(torch.bmm(edges, x)).relu()
    reason = torch.sigmoid(head.sim_w(x[:, 0])).squeeze(1)
    weight = float(head.round_weights(r)[-1])
    return 0.6 * local + 0.3 * weight * reason + 0.1 * (images.pooled @ text)


def by_loop(head: HMRN, sets: Prepared, images: Prepared) -> Tensor:
    """Scores (T,N,M)."""
    rounds = range(1, sets.mask.shape[1] + 1)
    return torch.stack([torch.stack([one_round(head, images, q[:r]) for q in sets.local], 1) for r in rounds])


def measure(args: argparse.Namespace) -> dict[str, float]:
    """One row in this process: seconds per million pairs and bytes beyond the inputs; its first scores are saved."""
    if args.threads:
        torch.set_num_threads(args.threads)
    with torch.inference_mode():
        head, sets, images = inputs(args)
        few = sets[: min(args.loop_sets, args.sets)]
        used = few if args.row == "loop" else sets

        def run(some: Prepared) -> Tensor:
            if args.row == "loop":
                return by_loop(head, some, images)
            return score_rounds(head, some, images, dtype=getattr(torch, args.row))

        run(few[:1])  # once for what a first call sets up
        before = memory("VmRSS")
        Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
        wall, cpu = time.perf_counter(), time.process_time()
        scores = run(used)
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
        torch.save(scores[:, :, : len(few)].clone(), args.scores)
    scale = args.sets / len(used)
    peak = max(0.0, memory("VmHWM") - before)  # the kernel adds up late: a peak of kilobytes can read below 0
    return {"wall": wall * scale, "cpu": cpu * scale, "mb": peak, "threads": torch.get_num_threads()}


def memory(what: str) -> float:
    """Of this process, in MB: ``VmRSS`` now, ``VmHWM`` at its peak."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(what)) / 1024


def multiply_adds(args: argparse.Namespace) -> int:
    """Of one pair over all rounds with every exact saving (specification of the task): products alone."""
    r, d, s = args.regions, args.width, args.width
    total = r * d * args.rounds  # dots, once for all rounds
    for said in range(1, args.rounds + 1):
        nodes = said + 1
        total += r * d * said + d * s * nodes  # contexts; their nodes
        total += s * s * (4 * said + 6) + 4 * s * nodes**2 + 2 * s * nodes  # three steps, the last for one node
    return total


def parse(words: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--direction", choices=("t2i", "i2t"), default="t2i")
    for name, value in (("images", 1000), ("sets", 1000), ("loop-sets", 20), ("rounds", 10), ("regions", 36),
                        ("width", 256), ("threads", 0)):  # fmt: skip
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--profile", action="store_true")
    parser.add_argument("--row", choices=ROWS, help="measure one row and print it as JSON")
    parser.add_argument("--scores", help="file for the row's first scores")
    return parser.parse_args(words)


def where(args: argparse.Namespace) -> None:
    """Print where the engine's time goes in float32."""
    torch.set_num_threads(args.threads or torch.get_num_threads())
    with torch.inference_mode():
        head, sets, images = inputs(args)
        fastest = peak(torch.float32, torch.get_num_threads())
        score_rounds(head, sets[:1], images, dtype=torch.float32)
        found, whole = profile(lambda: score_rounds(head, sets, images, dtype=torch.float32), 3)
    print(f"{args.images} images x {args.sets} sets, float32, {fastest / 1e9:.1f} G multiply-adds a CPU s at the "
          f"fastest product\n{table(found, whole, fastest)}")  # fmt: skip


def main() -> None:
    args = parse()
    if args.profile:
        where(args)
        return
    if args.row:
        print(json.dumps(measure(args)))
        return
    found, scores = {}, {}
    with tempfile.TemporaryDirectory() as folder:
        for row in ROWS:
            file = Path(folder) / row
            command = [sys.executable, __file__, *sys.argv[1:], "--row", row, "--scores", str(file)]
            done = subprocess.run(command, check=True, capture_output=True, text=True)
            found[row], scores[row] = json.loads(done.stdout.splitlines()[-1]), torch.load(file, weights_only=True)
    cpu = next((line.split(":")[1].strip() for line in open("/proc/cpuinfo") if line.startswith("model name")), "")
    print(
        f"{platform.system()} {platform.machine()} {cpu}, {found['loop']['threads']} torch threads\n"
        f"Python {platform.python_version()}, torch {torch.__version__}, xretrieve {__version__}\n"
        f"{args.images} images x {args.sets} sets, {args.rounds} rounds, {args.direction}, {args.regions} regions, "
        f"width {args.width}; the loop on {min(args.loop_sets, args.sets)} sets, scaled"
    )
    want = scores["loop"]
    apart = {row: float((scores[row] - want).abs().max()) for row in ROWS}
    assert apart["float32"] < 1e-5, apart
    assert apart["bfloat16"] < 2e-2, apart
    pairs = args.images * args.sets
    threads = found["loop"]["threads"]
    best = {row: 1e6 * multiply_adds(args) / peak(getattr(torch, row), threads) for row in ROWS[1:]}
    for row, name in (("loop", "loop over sets and rounds"), ("float32", "score_rounds, float32"),
                      ("bfloat16", "score_rounds, bfloat16")):  # fmt: skip
        one = found[row]
        each = 1e6 * one["cpu"] / pairs
        print(
            f"{name:26} wall {one['wall']:7.1f} s   CPU {one['cpu']:7.1f} s   {each:7.1f} us a pair   "
            f"x {found['loop']['cpu'] / one['cpu']:.2f} CPU   peak +{one['mb']:.0f} MB   scores within {apart[row]:.1e}"
        )
    loop = 1e6 * found["loop"]["cpu"] / pairs
    least = ", ".join(f"{row} {us:.0f} us a pair, x {loop / us:.1f} CPU" for row, us in best.items())
    print(f"{multiply_adds(args) / 1e6:.1f} million multiply-adds a pair, at the fastest product: {least}")


if __name__ == "__main__":
    main()
