"""kill -9 before every file step of whatever is written, twice; then the work is done, as if nothing had been.

    python benchmarks/reliability/kill.py
    python benchmarks/reliability/kill.py --only add --every 3

A step is an event that Python reports before it happens: a file opened to write, renamed or removed, a folder made or
removed. After each kill a reader must find the state of before or that of after, and nothing else. At the end nothing
of a killed process may be left. Needs fork (Linux).
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import sys
import tempfile
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from benchmarks.reliability.steps import Step, steps  # noqa: E402

EVENTS = {"os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.truncate", "os.link", "os.symlink"}
WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT


def child(work: Any, place: Path, kill_at: int | None) -> int | None:
    """Run ``work`` in a process that is killed before its step ``kill_at`` (from 0); its steps, None where it was
    killed. Another end is an error."""
    reader, writer = os.pipe()
    pid = os.fork()
    if not pid:
        count = 0

        def hook(event: str, arguments: tuple[Any, ...]) -> None:
            nonlocal count
            if event in EVENTS or (event == "open" and _writes(arguments)):
                if count == kill_at:
                    os.kill(os.getpid(), signal.SIGKILL)
                count += 1

        status = 1
        try:
            sys.addaudithook(hook)
            work(place)
            os.write(writer, str(count).encode())
            status = 0
        finally:
            os._exit(status)
    os.close(writer)
    told = os.read(reader, 20)
    os.close(reader)
    _, status = os.waitpid(pid, 0)
    if os.WIFSIGNALED(status):
        return None
    if status:
        raise RuntimeError(f"the work failed after a kill before step {kill_at}: {work}")
    return int(told)


def _writes(arguments: tuple[Any, ...]) -> bool:
    path, mode, flags = arguments
    if str(path).startswith("/dev/"):
        return False
    return any(letter in mode for letter in "wax+") if isinstance(mode, str) else bool(flags & WRITES)


def left_over(place: Path) -> list[str]:
    """Hidden files and folders, and parts of a gallery that it does not name."""
    hidden = [str(path.relative_to(place)) for path in place.rglob("*") if path.name.startswith(".")]
    if (place / "g.xr" / "gallery.json").exists():
        from xretrieve.gallery.store import Store

        hidden += [str(path.relative_to(place)) for path in Store.open(place / "g.xr")._unnamed()]
    return hidden


def campaign(step: Step, every: int = 1) -> dict[str, Any]:
    """Kill one kind of work before each of its steps: how often, and what was wrong."""
    result: dict[str, Any] = {"step": step.name, "kills": 0, "lost": 0, "mixed": 0, "leftovers": 0}
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        step.begin(root / "begin")
        shutil.copytree(root / "begin", root / "place")
        before = step.state(root / "place")
        child(step.work, root / "place", None)
        after, at = step.state(root / "place"), 0
        while True:
            shutil.rmtree(root / "place")
            shutil.copytree(root / "begin", root / "place")
            if child(step.work, root / "place", at) is not None:
                break
            result["kills"] += 1
            result["mixed"] += _state(step, root / "place") not in (before, after)
            shutil.rmtree(root / "place")  # once more, without the reader that tidies up, and killed twice
            shutil.copytree(root / "begin", root / "place")
            child(step.work, root / "place", at)
            result["kills"] += 1 + (child(step.work, root / "place", at) is None)
            child(step.work, root / "place", None)
            result["lost"] += _state(step, root / "place") != after
            result["leftovers"] += bool(left_over(root / "place"))
            at += every
    return result


def _state(step: Step, place: Path) -> Any:
    try:
        return step.state(place)
    except Exception as error:  # whatever a reader meets is counted
        return repr(error)


def main(argv: list[str] | None = None) -> int:
    """The table and the summary; status 1 where anything was lost."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", help="one kind of work")
    parser.add_argument("--every", type=int, default=1, help="only each N-th step")
    given = parser.parse_args(argv)
    rows = []
    for step in steps():
        if given.only in (None, step.name):
            rows.append(campaign(step, given.every))
            print("{step:14} {kills:4} kills, {lost} lost, {mixed} mixed, {leftovers} left over".format(**rows[-1]))
    total = {key: sum(row[key] for row in rows) for key in ("kills", "lost", "mixed", "leftovers")}
    print("kill: {kills} kills, {lost} lost, {mixed} mixed states, {leftovers} leftovers".format(**total))
    return int(bool(total["lost"] or total["mixed"] or total["leftovers"]))


if __name__ == "__main__":
    sys.exit(main())
