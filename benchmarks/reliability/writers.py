"""Many programs and one gallery: additions, removals, merges, builds and readers at once.

    python benchmarks/reliability/writers.py
    python benchmarks/reliability/writers.py --rounds 2 --index flat

What was reported as added must be there, what was removed must not, of several builds to one place one is done, and
no reader may meet an error. Needs fork (Linux).
"""

from __future__ import annotations

import argparse
import multiprocessing
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from benchmarks.reliability.steps import MeanColours, draw  # noqa: E402
from xretrieve.errors import XRetrieveError  # noqa: E402
from xretrieve.gallery import Gallery  # noqa: E402
from xretrieve.query import Image  # noqa: E402

FORK = multiprocessing.get_context("fork")
WRITERS = 4
MATCHER: Any = MeanColours()


def _add(path: Path, folder: Path, start: Any, said: Any) -> None:
    gallery = Gallery.open(path, MATCHER)
    start.wait()
    added = [id_ for file in sorted(folder.iterdir()) for id_ in gallery.add([file]).added]
    gallery.remove(added[0])
    gallery.save()
    said.put(("there", added[1:], added[:1]))


def _read(path: Path, picture: Path, start: Any, stop: Any, said: Any) -> None:
    gallery, searches, errors = Gallery.open(path, MATCHER), 0, []
    start.wait()
    while not stop.is_set():
        searches += 1
        try:
            gallery.search(Image(picture), k=50)
            Gallery.open(path, MATCHER).search(Image(picture), k=1)
        except Exception as error:  # whatever it is: it is counted
            errors.append(repr(error))
            print(f"a reader met {error!r}", file=sys.stderr)
    said.put(("read", searches, errors))


def _build(photos: Path, path: Path, start: Any, said: Any) -> None:
    start.wait()
    try:
        said.put(("built", len(Gallery.build(MATCHER, photos, path)), ""))
    except XRetrieveError as error:
        said.put(("built", 0, str(error)))


def additions(root: Path, index: str) -> dict[str, int]:
    """Programs that add, remove and merge at once, beside two readers."""
    path, picture = root / "g.xr", next(draw(root / "first", 3, 1).iterdir())
    Gallery.build(MATCHER, root / "first", path, index=index)
    folders = [draw(root / f"more{n}", 3, 10 + n) for n in range(WRITERS)]
    start, stop, said = FORK.Barrier(WRITERS + 2), FORK.Event(), FORK.Queue()
    writers = [FORK.Process(target=_add, args=(path, folder, start, said)) for folder in folders]
    readers = [FORK.Process(target=_read, args=(path, picture, start, stop, said)) for _ in range(2)]
    for one in [*writers, *readers]:
        one.start()
    told = [said.get(timeout=120) for _ in writers]
    stop.set()
    read = [said.get(timeout=120) for _ in readers]
    for one in [*writers, *readers]:
        one.join()
    there = set(Gallery.open(path).ids)
    lost = sum(len(set(added) - there) + len(set(gone) & there) for _, added, gone in told)
    return {
        "additions": sum(len(added) + 1 for _, added, _ in told),
        "lost": lost,
        "searches": sum(count for _, count, _ in read),
        "errors": sum(len(errors) for *_, errors in read),
    }


def builds(root: Path) -> int:
    """Programs that build to one place at once: how many said that it was done, less the one that may."""
    sources = [draw(root / f"source{n}", 2, 20 + n) for n in range(2)]
    start, said = FORK.Barrier(2), FORK.Queue()
    running = [FORK.Process(target=_build, args=(source, root / "b.xr", start, said)) for source in sources]
    for one in running:
        one.start()
    told = [said.get(timeout=120) for _ in running]
    for one in running:
        one.join()
    assert len(Gallery.open(root / "b.xr")) == 2
    return sum(bool(count) for _, count, _ in told) - 1


def main(argv: list[str] | None = None) -> int:
    """The summary; status 1 where anything was lost."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--index", nargs="+", default=["flat", "hnsw"])
    given = parser.parse_args(argv)
    total = {"additions": 0, "lost": 0, "searches": 0, "errors": 0, "both": 0, "pairs": 0}
    for index in given.index:
        for _ in range(given.rounds):
            root = Path(tempfile.mkdtemp())
            try:
                for key, value in additions(root, index).items():
                    total[key] += value
                total["both"] += builds(root)
                total["pairs"] += 1
            finally:
                shutil.rmtree(root)
    told = "{additions} additions at once, {lost} lost; {searches} searches meanwhile, {errors} errors"
    print(f"writers: {told}; {{pairs}} pairs of builds to one place, {{both}} both done".format(**total))
    return int(bool(total["lost"] or total["errors"] or total["both"]))


if __name__ == "__main__":
    sys.exit(main())
