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
    if jobs < 1:
        raise XRetrieveError(f"jobs is {jobs}; give 1 or more")
    at_once = min(jobs, len(each)) if isinstance(each, Sized) else jobs
    if at_once <= 1:
        return [_told(work(*arguments), done) for arguments in each]
    threads = max(1, (os.cpu_count() or 1) // at_once)
    others = set(multiprocessing.active_children())  # of whoever calls this
    pool = ProcessPoolExecutor(at_once, multiprocessing.get_context("spawn"), _begin, (threads,))
    try:
        futures = [pool.submit(work, *arguments) for arguments in each]
        for future in as_completed(futures):
            _told(future.result(), done)
    except BaseException as error:
        pool.shutdown(wait=False, cancel_futures=True)
        for process in set(multiprocessing.active_children()) - others:
            process.terminate()
        if isinstance(error, BrokenProcessPool):
            raise XRetrieveError("a process was killed; for want of memory? try --jobs 1") from error
        raise
    pool.shutdown()
    return [future.result() for future in futures]


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
