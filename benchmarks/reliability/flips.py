"""Flipped bits in every file of indexes, a run and the feature cache: said, or harmless, and never silent.

    python benchmarks/reliability/flips.py
    python benchmarks/reliability/flips.py --flips 2

Each flip is one bit of one file. Then everything is opened and used; an error or another answer than before is counted,
and so is whether `xretrieve check` notices.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import warnings
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from benchmarks.reliability.steps import MeanColours, _point, _read_point, _report, draw  # noqa: E402
from xretrieve.data import shards  # noqa: E402
from xretrieve.errors import XRetrieveError  # noqa: E402
from xretrieve.evaluation import Report  # noqa: E402
from xretrieve.gallery import Gallery  # noqa: E402
from xretrieve.integrity import check_up  # noqa: E402
from xretrieve.query import Image  # noqa: E402
from xretrieve.tokens import Tokens  # noqa: E402

MATCHER: Any = MeanColours()


def _search(place: Path, picture: Path) -> Any:
    gallery = Gallery.open(place, MATCHER)
    found = gallery.search(Image(picture), k=9).to_json()
    return json.dumps([found, gallery.failed, gallery.info.get("cascade")], sort_keys=True)


def _run(place: Path) -> Any:
    report = Report.load(place)
    point = _read_point(place.parent)
    return json.dumps([report.to_dict(), report.t2i_ranks.tolist(), point], sort_keys=True)


def _cache(place: Path) -> Any:
    shards._SOUND.clear()
    found = shards.find_shards(place)
    return str([(shard.keys.tolist(), shard.local.tolist(), shard.pooled.tolist()) for shard in found if shard.sound()])


def places(root: Path) -> list[tuple[str, Path, Callable[[], Any]]]:
    """Name, folder, and what a reader finds in it."""
    photos = draw(root / "photos", 6, 1)
    picture = next(photos.iterdir())
    made = []
    for index in ("flat", "hnsw"):
        gallery = Gallery.build(MATCHER, photos, root / f"{index}.xr", index=index)
        gallery.add(draw(root / "more", 2, 2))
        made.append((f"index {index}", gallery.path, lambda path=gallery.path: _search(path, picture)))
    _report(0).save(root / "run")
    _point(root, 3)
    writer = shards.ShardWriter(root / "cache")
    writer.add([b"a" * 32], Tokens(torch.rand(1, 4, 3), torch.ones(1, 4, dtype=torch.bool), torch.rand(1, 3)))
    writer.flush()
    return [*made, ("run", root / "run", lambda: _run(root / "run")),
            ("feature cache", root / "cache", lambda: _cache(root / "cache"))]  # fmt: skip


def outcome(folder: Path, read: Callable[[], Any], before: Any) -> str:
    """`said` by an error when it is used, by `check` only, `harmless`, or `silent`."""
    noticed = bool(check_up(folder).problems)
    try:
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            found = read()
    except XRetrieveError:
        return "said"
    except Exception as error:  # a traceback
        print(f"{folder}: {error!r}", file=sys.stderr)
        return "traceback"
    if any("damaged" in str(one.message) for one in told):
        return "said"
    if found != before:
        return "check only" if noticed else "silent"
    return "check only" if noticed else "harmless"


def campaign(flips: int, seed: int = 0) -> dict[str, Counter[str]]:
    """How the flips of each place ended."""
    rng, ends = np.random.default_rng(seed), {}
    with tempfile.TemporaryDirectory() as folder:
        for name, place, read in places(Path(folder)):
            ends[name] = Counter[str]()
            before = read()
            whole = {path: path.read_bytes() for path in sorted(place.rglob("*")) if path.is_file()}
            for path, data in whole.items():
                for bit in rng.integers(0, 8 * len(data), flips):
                    wrong = bytearray(data)
                    wrong[bit // 8] ^= 1 << int(bit % 8)
                    path.write_bytes(wrong)
                    ends[name][outcome(place, read, before)] += 1
                    for old, content in whole.items():
                        old.parent.mkdir(parents=True, exist_ok=True)
                        old.write_bytes(content)
    return ends


def main(argv: list[str] | None = None) -> int:
    """The table and the summary; status 1 where a flip was silent."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--flips", type=int, default=20, help="of each file")
    given = parser.parse_args(argv)
    ends = campaign(given.flips)
    for name, told in ends.items():
        print(f"{name:14} " + ", ".join(f"{count} {end}" for end, count in sorted(told.items())))
    total = sum(ends.values(), Counter[str]())
    print(f"flips: {total.total()} flips, {total['said']} said when used, {total['check only']} by check, "
          f"{total['harmless']} harmless, {total['traceback']} tracebacks, {total['silent']} silent")  # fmt: skip
    return int(bool(total["silent"] or total["traceback"]))


if __name__ == "__main__":
    sys.exit(main())
