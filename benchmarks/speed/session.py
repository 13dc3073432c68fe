"""One more turn in a session over a large gallery: milliseconds with and without the bound, and who needed reasoning.

    python benchmarks/speed/session.py [--images 100000] [--sessions 5] [--full 1,5,10] [--direction t2i] [--folder DIR]

The gallery is a real one on disk (float16 tokens, memory-mapped); only what a backbone would give is made up. Features
are synthetic, and clustered, because the bound lives on how the scores spread: there are topics (in few dimensions, so
that some are alike), each with some concepts; an image has a topic, each of its regions shows one of the topic's
concepts (one time in ten any other), with noise; a sentence is the concept of one region of the image that is looked
for, with noise. The head is
trained on such images for some steps, so that its reasoning has something to say; `--steps 0` leaves random weights.
The spread of the cheap score is printed beside the share of images that needed reasoning.

Without the bound every image is reasoned about. It gives the same ranking (asserted), and is measured for the turns of
`--full` in the first session.
"""

from __future__ import annotations

import argparse
import platform
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from xretrieve.gallery import Gallery
from xretrieve.gallery.items import Item
from xretrieve.gallery.matchers import identity
from xretrieve.gallery.store import Store
from xretrieve.gallery.token_files import DTYPE, TokenSpool
from xretrieve.heads import create_head
from xretrieve.heads.base import l2
from xretrieve.heads.hmrn import HMRN
from xretrieve.tokens import Prepared, Tokens
from xretrieve.version import __version__

TOPICS, PER_TOPIC, COMMON = 400, 40, 0.1
ALIKE, OWN = 6, 0.5  # dimensions of the topics; length of what a concept has beside its topic
MADE = 1000  # images that are made at a time


class World:
    """Images and sentences of clustered features.

    Args:
        regions, width: R and D.
        noise: length of the noise beside a concept of length 1.
        seed: of everything.
    """

    def __init__(self, regions: int, width: int, noise: float, seed: int = 0) -> None:
        self.regions, self.noise = regions, noise
        self.random = torch.Generator().manual_seed(seed)
        basis = torch.linalg.qr(self._normal(width, ALIKE))[0]  # (D,few)
        centres = l2(self._normal(TOPICS, 1, ALIKE)) @ basis.T
        self.concepts = l2(centres + OWN * l2(self._normal(TOPICS, PER_TOPIC, width)))  # (topics,per topic,D)

    def images(self, count: int) -> tuple[Tensor, Tensor]:
        """Regions (N,R,D), unit vectors, and the concepts behind them (N,R,D)."""
        topic = torch.randint(TOPICS, (count, 1), generator=self.random).expand(-1, self.regions)
        other = torch.randint(TOPICS, topic.shape, generator=self.random)
        stray = torch.rand(topic.shape, generator=self.random) < COMMON
        which = torch.randint(PER_TOPIC, topic.shape, generator=self.random)
        shown = self.concepts[torch.where(stray, other, topic), which]
        return self._noisy(shown), shown

    def sentences(self, shown: Tensor, turns: int) -> Tensor:
        """A sentence about each of ``turns`` regions of every image. (N,R,D) -> (N,T,D)."""
        place = torch.rand(shown.shape[:2], generator=self.random).argsort(1)[:, :turns]
        return self._noisy(shown.gather(1, place[..., None].expand(-1, -1, shown.shape[2])))

    def _noisy(self, x: Tensor) -> Tensor:
        return l2(x + self.noise * l2(self._normal(*x.shape)))

    def _normal(self, *shape: int) -> Tensor:
        return torch.randn(shape, generator=self.random)


class Told:
    """A matcher whose texts are names of vectors."""

    name, source = "synthetic features", ""
    device = torch.device("cpu")

    def __init__(self, head: HMRN) -> None:
        self.head, self.vectors = head, {}

    def fingerprint(self) -> str:
        """There is only one."""
        return "synthetic"

    def encode_texts(self, texts: Sequence[str]) -> Prepared:
        """Sentences by name."""
        return self.head.prepare_queries(Tokens.from_pooled(torch.stack([self.vectors[text] for text in texts])))


def make_head(args: argparse.Namespace, world: World) -> HMRN:
    """HMRN over given features, trained for a while."""
    torch.manual_seed(0)
    d = args.width
    head = create_head("hmrn", image_dim=d, text_dim=d, dim=d, sim_dim=d, direction=args.direction,
                       weight_horizon=args.rounds, image_project=False)  # fmt: skip
    adam = torch.optim.Adam([p for p in head.parameters() if p.requires_grad], 4e-4)

    def take(scores: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        target = torch.arange(len(scores))
        logits = 40 * scores
        return sum(torch.nn.functional.cross_entropy(x, target) for x in (logits, logits.T)), {}

    head.train()
    for _ in range(args.steps):
        regions, shown = world.images(args.batch)
        said = world.sentences(shown, args.rounds)
        sets = head.combine_sets(head.prepare_queries(Tokens.from_pooled(said.flatten(0, 1))),
                                 [args.rounds] * args.batch)  # fmt: skip
        loss, _ = head.training_loss(sets, head.prepare_gallery(Tokens.from_local(regions)), take)
        adam.zero_grad()
        loss.backward()
        adam.step()
    return head.eval()


@torch.inference_mode()
def make_gallery(args: argparse.Namespace, world: World, matcher: Told, folder: Path) -> tuple[Gallery, Tensor]:
    """A gallery on disk, and the concepts (sessions,R,D) behind its images that are looked for."""
    spool, vectors, wanted = TokenSpool(folder, pooled=False), [], []
    for start in range(0, args.images, MADE):
        regions, shown = world.images(min(MADE, args.images - start))
        made = matcher.head.prepare_gallery(Tokens.from_local(regions))
        spool.append(made)
        vectors.append(made.pooled)
        wanted.append(shown[: max(0, args.sessions - start)])
    tokens = {"dim": spool.dim, "dtype": DTYPE.name, "pooled": False}
    place = folder / "synthetic.xr"
    place.mkdir()
    flat = {"name": "flat", "options": {}}
    store = Store.create(place, args.width, identity(matcher), flat, coarse={"by": "head"}, tokens=tokens)
    items = [Item(str(row)) for row in range(args.images)]
    store.change(items=items, vectors=torch.cat(vectors).numpy(), tokens=spool, failed=[])
    return Gallery(Store.open(place), matcher), torch.cat(wanted)


def timed(call: Callable[[], Any]) -> tuple[Any, float, float]:
    """The result, wall milliseconds and CPU seconds."""
    wall, cpu = time.perf_counter(), time.process_time()
    found = call()
    return found, 1000 * (time.perf_counter() - wall), time.process_time() - cpu


def play(gallery: Gallery, name: str, said: Tensor, k: int, full: Sequence[int]) -> list[dict[str, float]]:
    """A session, one row per turn. said (T,D)."""
    session, rows = gallery.session(), []
    for turn, vector in enumerate(said, start=1):
        text = f"{name}, sentence {turn}"
        gallery.matcher.vectors[text] = vector
        _, add_ms, add_cpu = timed(lambda text=text: session.add(text))
        found, ms, cpu = timed(lambda: session.ranking(k))
        cheap, width = session._growing.bounds()
        row = {"add": add_ms, "rank": ms, "turn": add_ms + ms, "cpu": add_cpu + cpu, "share": found.share}
        row |= {"spread": float(cheap.std()), "width": width}
        if turn in full:
            everything, all_ms, all_cpu = timed(lambda: session.ranking(k, bounded=False))
            assert everything.ids == found.ids, f"turn {turn}: the bound changed the ranking"
            assert all(abs(a - b) < 1e-5 for a, b in zip(everything.scores, found.scores, strict=True))
            row |= {"full": add_ms + all_ms, "full_cpu": add_cpu + all_cpu}
        rows.append(row)
    return rows


def parse(words: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--direction", choices=("t2i", "i2t"), default="t2i")
    for name, value in (("images", 100_000), ("sessions", 5), ("rounds", 10), ("regions", 36), ("width", 256),
                        ("k", 10), ("steps", 100), ("batch", 32), ("threads", 0)):  # fmt: skip
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--noise", type=float, default=1.0, help="length of the noise beside a concept of length 1")
    parser.add_argument("--full", default="1,5,10", help="turns of the first session to measure without the bound too")
    parser.add_argument("--folder", help="where the gallery lies meanwhile; 1.9 GB for 100,000 images, twice at first")
    return parser.parse_args(words)


def main(words: list[str] | None = None) -> list[list[dict[str, float]]]:
    """Measure and print; gives the rows of every session."""
    args = parse(words)
    if args.threads:
        torch.set_num_threads(args.threads)
    full = [int(turn) for turn in args.full.split(",") if turn]
    world = World(args.regions, args.width, args.noise)
    matcher = Told(make_head(args, world))
    cpu = next((line.split(":")[1].strip() for line in open("/proc/cpuinfo") if line.startswith("model name")), "")
    print(
        f"{platform.system()} {platform.machine()} {cpu}, {torch.get_num_threads()} torch threads\n"
        f"Python {platform.python_version()}, torch {torch.__version__}, xretrieve {__version__}\n"
        f"{args.images} images, {args.regions} regions, width {args.width}, {args.direction}, top {args.k}, "
        f"{args.sessions} sessions; synthetic clustered features, head trained {args.steps} steps on them",
        flush=True,
    )
    with tempfile.TemporaryDirectory(dir=args.folder) as folder:
        gallery, shown = make_gallery(args, world, matcher, Path(folder))
        sets = world.sentences(shown, args.rounds)
        play(gallery, "warm-up", sets[0][:1], args.k, [])
        rows = [play(gallery, f"session {i}", said, args.k, [] if i else full) for i, said in enumerate(sets)]
    print("turn   add ms  rank ms  turn ms   CPU s   needed reasoning (low-high)   std of c   l      without bound")
    for turn, column in enumerate(zip(*rows, strict=True), start=1):
        middle = {key: statistics.median(row[key] for row in column) for key in column[-1]}
        shares = [100 * row["share"] for row in column]
        first = column[0]
        beside = f"{first['full']:9.0f} ms  CPU {first['full_cpu']:.1f} s" if "full" in first else ""
        print(
            f"{turn:4} {middle['add']:8.0f} {middle['rank']:8.0f} {middle['turn']:8.0f} {middle['cpu']:7.2f}"
            f"   {statistics.median(shares):7.3f} % ({min(shares):.3f}-{max(shares):.3f})   "
            f"{middle['spread']:8.3f}   {middle['width']:.3f}{beside}"
        )
    return rows


if __name__ == "__main__":
    main()
