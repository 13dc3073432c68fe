"""One thread that owns the model: a bounded queue before it, searches that wait are answered together."""

from __future__ import annotations

import asyncio
import math
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from xretrieve.app.errors import ApiError
from xretrieve.errors import XRetrieveError
from xretrieve.gallery_asked import Ask

if TYPE_CHECKING:
    from xretrieve.app.metrics import Metrics
    from xretrieve.gallery import Gallery
    from xretrieve.ranking import Ranking

LONGEST_WAIT = 60  # seconds that Retry-After asks for at most


@dataclass
class Job:
    """One thing to do: a search, or a call of a function; the answer goes to ``future``."""

    work: Ask | Callable[[], Any]
    future: Future[Any] = field(default_factory=Future)


class Worker:
    """Answers in the order of arrival.

    Args:
        gallery: only this thread searches it.
        queue: jobs that may wait.
        batch: searches at once.
        metrics: told about batches and waiting jobs.
    """

    def __init__(self, gallery: Gallery, queue: int, batch: int, metrics: Metrics) -> None:
        self._gallery, self._queue, self._batch, self._metrics = gallery, queue, batch, metrics
        self._jobs: deque[Job] = deque()
        self._changed = threading.Condition()
        self._stopped = False
        self._seconds = 0.05  # of one job, a running mean
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Begin to answer, or begin again after :meth:`stop`."""
        self._stopped = False
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="xretrieve-model", daemon=True)
            self._thread.start()

    def stop(self) -> None:
        """Finish what is being done; what waits is told that the server stops."""
        with self._changed:
            self._stopped = True
            waiting = list(self._jobs)
            self._jobs.clear()
            self._changed.notify_all()
        for job in waiting:
            if job.future.set_running_or_notify_cancel():
                job.future.set_exception(ApiError(503, "the server is stopping; try again later"))
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    @property
    def alive(self) -> bool:
        """Whether answers can be expected."""
        return self._thread is not None and self._thread.is_alive() and not self._stopped

    @property
    def waiting(self) -> int:
        """Jobs in the queue."""
        return len(self._jobs)

    async def search(self, ask: Ask) -> Ranking:
        """The answer of :meth:`xretrieve.Gallery.search`; a full queue is an :class:`ApiError` of status 503."""
        return await self._wait(ask)

    async def call(self, function: Callable[[], Any]) -> Any:
        """What ``function`` returns when its turn has come."""
        return await self._wait(function)

    async def _wait(self, work: Ask | Callable[[], Any]) -> Any:
        job = Job(work)
        with self._changed:
            if self._stopped:
                raise ApiError(503, "the server is stopping; try again later")
            if len(self._jobs) >= self._queue:
                self._metrics.rejected.inc()
                seconds = math.ceil(self._seconds * (len(self._jobs) + 1))
                wait = max(1, min(LONGEST_WAIT, seconds))
                raise ApiError(503, f"{len(self._jobs)} requests are waiting already; try again in {wait} s", wait)
            self._jobs.append(job)
            self._changed.notify()
        return await asyncio.wrap_future(job.future)

    def _run(self) -> None:
        while jobs := self._take():
            start = time.perf_counter()
            running = [job for job in jobs if job.future.set_running_or_notify_cancel()]
            if running:
                self._answer(running)
                each = (time.perf_counter() - start) / len(running)
                self._seconds += 0.2 * (each - self._seconds)

    def _take(self) -> list[Job]:
        """The next job, with the searches right behind it where it is one itself; none when the worker is stopped."""
        with self._changed:
            self._changed.wait_for(lambda: self._jobs or self._stopped)
            if not self._jobs:
                return []
            jobs = [self._jobs.popleft()]
            while isinstance(jobs[0].work, Ask) and self._jobs and len(jobs) < self._batch:
                if not isinstance(self._jobs[0].work, Ask):
                    break
                jobs.append(self._jobs.popleft())
            return jobs

    def _answer(self, jobs: list[Job]) -> None:
        try:
            first = jobs[0].work
            if isinstance(first, Ask):
                self._metrics.batch.observe(len(jobs))
                answers = self._gallery.search_many([job.work for job in jobs if isinstance(job.work, Ask)])
            else:
                answers = [first()]
        except Exception as error:
            if len(jobs) > 1:  # one of them; the others deserve their answer
                for job in jobs:
                    self._answer([job])
                return
            answers = [error]
        for job, answer in zip(jobs, answers, strict=True):
            if isinstance(answer, (XRetrieveError, Exception)):
                job.future.set_exception(answer)
            else:
                job.future.set_result(answer)
