"""The threads that answer, and the places before them."""

from __future__ import annotations

import asyncio
import threading

import pytest
import torch

from xretrieve.app.errors import ApiError
from xretrieve.app.lanes import Lanes
from xretrieve.app.metrics import Metrics
from xretrieve.app.settings import Settings
from xretrieve.app.worker import Worker
from xretrieve.gallery.queries import Ask


def texts_lane(**settings):
    return Lanes(Settings(**settings), Metrics()).texts


def worker_of(slow, batch):
    return Worker("test", slow, batch, Metrics())


def test_what_waited_is_answered_together(slow):
    async def play():
        worker, lane = worker_of(slow, batch=3), texts_lane()
        worker.start()
        first = asyncio.create_task(worker.search(Ask("a"), lane))
        await asyncio.to_thread(slow.started.wait, 5)
        rest = [asyncio.create_task(worker.search(Ask(text), lane)) for text in ("b", "bad", "c", "d")]
        await asyncio.sleep(0)
        slow.go.set()
        answers = await asyncio.gather(first, *rest, return_exceptions=True)
        worker.stop()
        return answers

    assert [said(answer) for answer in asyncio.run(play())] == ["A", "B", "bad", "C", "D"] and slow.sizes == [1, 3, 1]


def test_a_search_that_is_alone_has_all_processors_and_the_others_one_less(slow):
    threads, before = [], torch.get_num_threads()

    def note(gallery):
        threads.append(torch.get_num_threads())
        if len(threads) == 1:
            slow.started.set()
            slow.go.wait(10)

    async def play():
        torch.set_num_threads(3)
        worker, lane = worker_of(slow, batch=1), texts_lane()
        worker.start()
        tasks = [asyncio.create_task(worker.call(note, lane))]
        await asyncio.to_thread(slow.started.wait, 5)
        tasks += [asyncio.create_task(worker.call(note, lane)) for _ in range(2)]
        await asyncio.sleep(0)
        slow.go.set()
        await asyncio.gather(*tasks)
        worker.stop()

    try:
        asyncio.run(play())
    finally:
        torch.set_num_threads(before)
    assert threads == [3, 2, 3]


def said(answer):
    """The ranking of an answer, or the words of an error."""
    return str(answer) if isinstance(answer, BaseException) else answer[1]


def test_a_full_lane_is_503_and_so_is_one_that_is_too_slow():
    lanes = Lanes(Settings(queue=20, queue_seconds=1.0), Metrics())
    for _ in range(20):
        lanes.texts.enter()
    with pytest.raises(ApiError, match="20 text searches are waiting already") as full:
        lanes.texts.enter()
    assert full.value.status == 503 and int(full.value.answer().headers["retry-after"]) == full.value.retry >= 1
    for _ in range(10):
        lanes.texts.leave()
    for _ in range(50):
        lanes.texts.took(2.0)  # seconds a request
    with pytest.raises(ApiError, match="10 text searches are waiting already") as slow:
        lanes.texts.enter()
    assert 15 < slow.value.retry <= 22  # 11 that take 2 seconds each
    for _ in range(3):
        lanes.texts.leave()
    lanes.texts.enter()  # 8 may always wait


def test_a_place_moves_only_where_there_is_one():
    lanes = Lanes(Settings(uploads=1), Metrics())
    with lanes.place(lanes.texts) as first, lanes.place(lanes.texts) as second:
        first.move(lanes.uploads)
        with pytest.raises(ApiError, match="1 searches with a picture are waiting"):
            second.move(lanes.uploads)
        assert (lanes.texts.inside, lanes.uploads.inside, lanes.waiting) == (1, 1, 2)
    assert lanes.waiting == 0


def test_a_bug_in_one_search_does_not_take_the_others_with_it(slow):
    async def play():
        worker, lane = worker_of(slow, batch=9), texts_lane()
        worker.start()
        tasks = [asyncio.create_task(worker.search(Ask(text), lane)) for text in ("a", "bug", "b")]
        await asyncio.sleep(0)
        slow.go.set()
        answers = await asyncio.gather(*tasks, return_exceptions=True)
        worker.stop()
        return answers

    assert [said(answer) for answer in asyncio.run(play())] == ["A", "a bug", "B"]


@pytest.mark.parametrize("fault", [SystemExit, KeyboardInterrupt, BaseException, MemoryError])
def test_whatever_a_job_raises_is_answered_and_the_next_one_is_worked_on(slow, fault):
    def fail(gallery):
        raise fault("of a library")

    async def play():
        worker, lane = worker_of(slow, batch=9), texts_lane()
        worker.start()
        with pytest.raises(Exception, match="of a library"):
            await asyncio.wait_for(worker.call(fail, lane), 10)
        assert await asyncio.wait_for(worker.call(lambda gallery: "next", lane), 10) == "next" and worker.alive
        worker._thread = threading.Thread(target=int)  # a thread that is dead for any other reason
        worker._thread.start()
        worker._thread.join()
        assert await asyncio.wait_for(worker.call(lambda gallery: "next", lane), 10) == "next" and worker.alive
        worker.stop()

    asyncio.run(play())


def test_stopping_finishes_what_runs_and_tells_what_waits(slow):
    async def play():
        worker, lane = worker_of(slow, batch=1), texts_lane()
        worker.start()
        tasks = [asyncio.create_task(worker.search(Ask("a"), lane))]
        await asyncio.to_thread(slow.started.wait, 5)
        tasks.append(asyncio.create_task(worker.search(Ask("b"), lane)))
        await asyncio.sleep(0)
        slow.go.set()
        await asyncio.to_thread(worker.stop)
        answers = await asyncio.gather(*tasks, return_exceptions=True)
        with pytest.raises(ApiError, match="stopping"):
            await worker.search(Ask("c"), lane)
        return answers

    answers = asyncio.run(play())
    assert said(answers[0]) == "A" and ("stopping" in str(answers[1]) or said(answers[1]) == "B")
