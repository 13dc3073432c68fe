"""Wrong input of every kind: each case must end in an answer or in one sentence.

    python -m benchmarks.reliability.fuzz --cases 10000 --seed 0

counts tracebacks, cases of over 10 seconds, cases that take over 1 GB, and code of files that ran. A fault prints its
kind and its seed; `--kind KIND --seed SEED --cases 1` makes that case again.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import random
import signal
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

SECONDS, MEMORY = 10, 1 << 30
LONGEST = 1000  # characters of a message


class _TooLongError(BaseException):
    """A case took too long; no reader may catch it."""


@dataclass
class Found:
    """What the cases did: by kind how many, how many were refused, and the faults by their seeds."""

    cases: collections.Counter[str] = field(default_factory=collections.Counter)
    refused: collections.Counter[str] = field(default_factory=collections.Counter)
    faults: list[tuple[str, str, int, str]] = field(default_factory=list)  # what, kind, seed, said

    def count(self, what: str) -> int:
        """Faults of one sort: traceback, hang, memory, code."""
        return sum(fault[0] == what for fault in self.faults)

    def summary(self) -> str:
        """One line."""
        total = sum(self.cases.values())
        return (f"fuzz: {total:,} cases, {sum(self.refused.values()):,} refused in one sentence; "
                f"tracebacks {self.count('traceback')}, hangs over {SECONDS} s {self.count('hang')}, "
                f"memory over 1 GB {self.count('memory')}, executed code {self.count('code')}")  # fmt: skip


def run(cases: int, seed: int = 0, kinds: Sequence[str] = (), folder: Path | None = None, say: Any = None) -> Found:
    """Try so many cases, the kinds in turn; case i has the seed ``seed + i``.

    Args:
        kinds: names of :data:`benchmarks.reliability.fuzz_cases.KINDS`; all of them by default.
        folder: for the files; default a temporary one.
        say: called with the number of cases done and what was found, now and then.
    """
    from benchmarks.reliability.fuzz_cases import ALLOWED, KINDS, World

    found, names = Found(), list(kinds or KINDS)
    with tempfile.TemporaryDirectory(dir=folder) as place, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        world = World(Path(place))
        for number in range(cases):
            kind, own = names[number % len(names)], seed + number
            found.cases[kind] += 1
            start, before = time.monotonic(), _peak(reset=True)
            try:
                with _alarm(SECONDS):
                    KINDS[kind](random.Random(f"{kind} {own}"), world)
            except ALLOWED as error:
                found.refused[kind] += 1
                if len(str(error)) > LONGEST or not str(error):
                    found.faults.append(("traceback", kind, own, f"a message of {len(str(error)):,} characters"))
            except _TooLongError:
                found.faults.append(("hang", kind, own, f"{time.monotonic() - start:.0f} s"))
            except Exception as error:
                last = traceback.extract_tb(error.__traceback__)[-1]
                said = f"{type(error).__name__}: {str(error)[:150]} ({Path(last.filename).name}:{last.lineno})"
                found.faults.append(("traceback", kind, own, said))
            if _peak() - before > MEMORY:
                found.faults.append(("memory", kind, own, f"{(_peak() - before) / MEMORY:.1f} GB"))
            if world.mark.exists():
                world.mark.rmdir()
                found.faults.append(("code", kind, own, "code of a file ran"))
            if say is not None and (number + 1) % 500 == 0:
                say(number + 1, found)
    return found


@contextlib.contextmanager
def _alarm(seconds: int) -> Iterator[None]:
    def stop(*_: Any) -> None:
        raise _TooLongError

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def _peak(reset: bool = False) -> int:
    """Bytes of memory at most since the last reset, where Linux tells; 0 elsewhere."""
    with contextlib.suppress(OSError):
        if reset:
            Path("/proc/self/clear_refs").write_text("5")
        for line in Path("/proc/self/status").read_text().split("\n"):
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    return 0


def main(argv: Sequence[str] | None = None) -> int:
    """Run the cases, print each fault and the summary; 1 where there was a fault."""
    parser = argparse.ArgumentParser(description="Wrong input of every kind.")
    parser.add_argument("--cases", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kind", action="append", default=[])
    given = parser.parse_args(argv)
    found = run(given.cases, given.seed, given.kind,
                say=lambda done, now: print(done, now.summary(), file=sys.stderr, flush=True))  # fmt: skip
    for what, kind, seed, said in found.faults:
        print(f"{what}: --kind {kind} --seed {seed} --cases 1: {said}")
    for kind, number in sorted(found.cases.items()):
        print(f"{kind}: {number:,} cases, {found.refused[kind]:,} refused")
    print(found.summary())
    return 1 if found.faults else 0


if __name__ == "__main__":
    sys.exit(main())
