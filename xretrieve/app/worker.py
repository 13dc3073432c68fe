"""A thread that answers in the order of arrival; searches that wait are answered together."""

from __future__ import annotations

import asyncio
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch

from xretrieve.app.errors import ApiError
from xretrieve.errors import XRetrieveError
from xretrieve.gallery.queries import Ask

if TYPE_CHECKING:
    from xretrieve.app.follow import Follower
    from xretrieve.app.lanes import Lane
    from xretrieve.app.metrics import Metrics
    from xretrieve.gallery import Gallery
    from xretrieve.ranking import Ranking

REPLACED = 10.0  # seconds that a search waits for a new state where the files of the old one are gone
STOPPING = "the server is stopping; try again later"


@dataclass
class Job:
    """One thing to do: a search, or a call of a function with the gallery; the answer goes to ``future``."""

    work: Ask | Callable[[Gallery], Any]
    lane: Lane
    future: Future[Any] = field(default_factory=Future)


class Worker:
    """One of them searches with texts, another one with pictures.

    Args:
        name: of its thread.
        follower: gives the gallery as it is now. One job sees one gallery, whatever happens on the disk meanwhile.
        batch: searches at once.
        metrics: told about batches.
    """

    def __init__(self, name: str, follower: Follower, batch: int, metrics: Metrics) -> None:
        self._name, self._follower, self._batch, self._metrics = name, follower, batch, metrics
        self._jobs: deque[Job] = deque()
        self._changed = threading.Condition()
        self._threads = torch.get_num_threads()
        self._stopped = True
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Begin to answer, or begin again after :meth:`stop` or the death of the thread."""
        self._stopped = False
        if self._thread is None or not self._thread.is_alive():
            self._thread = threading.Thread(target=self._run, name=self._name, daemon=True)
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
                job.future.set_exception(ApiError(503, STOPPING))
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    @property
    def alive(self) -> bool:
        """Whether answers can be expected."""
        return self._thread is not None and self._thread.is_alive() and not self._stopped

    async def search(self, ask: Ask, lane: Lane) -> tuple[Gallery, Ranking]:
        """The answer of :meth:`xretrieve.Gallery.search`, and the gallery that gave it."""
        return await self._wait(Job(ask, lane))

    async def call(self, function: Callable[[Gallery], Any], lane: Lane) -> Any:
        """What ``function`` returns when its turn has come."""
        return await self._wait(Job(function, lane))

    async def _wait(self, job: Job) -> Any:
        with self._changed:
            if self._stopped:
                raise ApiError(503, STOPPING)
            if not self.alive:
                self.start()
            self._jobs.append(job)
            self._changed.notify()
        return await asyncio.wrap_future(job.future)

    def _run(self) -> None:
        while jobs := self._take():
            start = time.perf_counter()
            running = [job for job in jobs if job.future.set_running_or_notify_cancel()]
            if running:
                self._take_processors(len(running) > 1 or bool(self._jobs))
                self._answer(running)
                for job in running:
                    job.lane.took((time.perf_counter() - start) / len(running))

    def _take_processors(self, busy: bool) -> None:
        """All of them for a request that is alone; one less where others wait, for whoever receives and refuses."""
        threads = max(1, self._threads - 1) if busy else self._threads
        if threads != torch.get_num_threads():
            torch.set_num_threads(threads)

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
        answers: list[Any]
        try:
            first = jobs[0].work
            if isinstance(first, Ask):
                self._metrics.batch.observe(len(jobs))
                answers = self._search([job.work for job in jobs if isinstance(job.work, Ask)])
            else:
                answers = [first(self._follower.gallery())]
        except BaseException as error:  # whatever it is: somebody waits for an answer, and others come after
            if len(jobs) > 1:  # one of them; the others deserve their answer
                for job in jobs:
                    self._answer([job])
                return
            answers = [error if isinstance(error, Exception) else RuntimeError(f"{type(error).__name__}: {error}")]
        for job, answer in zip(jobs, answers, strict=True):
            if isinstance(answer, Exception):
                job.future.set_exception(answer)
            else:
                job.future.set_result(answer)

    def _search(self, asks: list[Ask]) -> list[Any]:
        gallery = self._follower.gallery()
        found = gallery.search_many(asks)
        if any(isinstance(one, XRetrieveError) for one in found) and not gallery.current:
            self._follower.look(REPLACED)  # the files of that state may be gone
            if self._follower.newest is not gallery:
                return self._search(asks)
        return [one if isinstance(one, XRetrieveError) else (gallery, one) for one in found]
