"""Long work on several processor cores: trainings that do not wait for each other, each in a process of its own."""

from __future__ import annotations

import multiprocessing
import os
import threading
from collections.abc import Callable, Iterable, Sized
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.connection import wait
from typing import Any, TypeVar

from xretrieve.errors import XRetrieveError
from xretrieve.utils.allocation import keep_freed_memory

T = TypeVar("T")


def side_by_side(
    work: Callable[..., T], each: Iterable[tuple[Any, ...]], jobs: int, done: Callable[[T], None] | None = None
) -> list[T]:
    """``work(*arguments)`` for each tuple of arguments, up to ``jobs`` at once; the results in the order given.

    With one job, or one tuple, nothing is started: the calls are made here, one after the other. Else ``work``, its
    arguments and its results must be picklable, and a script must be importable (``if __name__ == "__main__":``).
    The cores are shared out among the processes. The first call that fails ends the others. Arguments that are made
    one by one (by a generator) are worked on from the first one on.

    Args:
        work: what is called.
        each: its arguments.
        jobs: processes.
        done: called with each result as soon as it is there, in any order.

    Raises:
        XRetrieveError: ``jobs`` is below 1, or a process was killed, as a system without memory does.
    """
    at_once = min(jobs, len(each)) if isinstance(each, Sized) else jobs
    with Workers(max(at_once, 1) if jobs > 0 else jobs) as workers:
        return workers.all(work, each, done)


class Workers:
    """Processes for :func:`side_by_side` that stay between its calls, with what they have loaded; a context.

    A process is started when there is work for it. Whatever ends the context early, Ctrl-C too, ends them at once.

    Args:
        jobs: how many at most; with one, the work is done here.
    """

    def __init__(self, jobs: int) -> None:
        if jobs < 1:
            raise XRetrieveError(f"jobs is {jobs}; give 1 or more")
        self.jobs = jobs
        self._others = set(multiprocessing.active_children())  # of whoever calls this
        threads = max(1, (os.cpu_count() or 1) // jobs)
        spawned = multiprocessing.get_context("spawn")
        self._pool = ProcessPoolExecutor(jobs, spawned, _begin, (threads,)) if jobs > 1 else None

    def __enter__(self) -> Workers:
        return self

    def start(self, work: Callable[..., Any], *arguments: Any) -> None:
        """Have something done that makes later work quicker; what goes wrong there is met again by that work. With one
        job it is left out."""
        if self._pool is not None:
            self._pool.submit(work, *arguments)

    def all(
        self, work: Callable[..., T], each: Iterable[tuple[Any, ...]], done: Callable[[T], None] | None = None
    ) -> list[T]:
        """As :func:`side_by_side`."""
        if self._pool is None:
            return [_told(work(*arguments), done) for arguments in each]
        try:
            futures = [self._pool.submit(work, *arguments) for arguments in each]
            for future in as_completed(futures):
                _told(future.result(), done)
        except BrokenProcessPool as error:
            raise XRetrieveError("a process was killed; for want of memory? try --jobs 1") from error
        return [future.result() for future in futures]

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if self._pool is None:
            return
        if kind is None:
            self._pool.shutdown()
            return
        self._pool.shutdown(wait=False, cancel_futures=True)
        for process in set(multiprocessing.active_children()) - self._others:
            process.terminate()


def _told(result: T, done: Callable[[T], None] | None) -> T:
    if done is not None:
        done(result)
    return result


def silent(line: str) -> None:
    """Says nothing: the default of what receives progress, since a lambda cannot be sent to another process."""


def _begin(threads: int) -> None:
    """What each process does first, before the work and with it torch is imported."""
    os.environ.setdefault("OMP_NUM_THREADS", str(threads))
    keep_freed_memory()
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """A process whose parent was killed would wait for work for ever."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os._exit(1)


def external() -> bool:
    """Whether torchrun started this process."""
    return "TORCHELASTIC_RUN_ID" in os.environ
