"""Who may ask, how much may be sent, and what happens when too many ask."""

from __future__ import annotations

import asyncio
import io
import itertools
import threading
from concurrent.futures import ThreadPoolExecutor, as_completed

import pytest
from PIL import Image as PILImage

from tests.app.conftest import client_of
from xretrieve.app.errors import ApiError
from xretrieve.app.guard import Guard
from xretrieve.app.metrics import Metrics
from xretrieve.app.settings import Settings
from xretrieve.app.worker import Worker
from xretrieve.errors import XRetrieveError
from xretrieve.gallery_asked import Ask

DOG = {"texts": ["a dog"]}


def test_a_token_is_asked_for_everywhere_but_where_nothing_is_told(served):
    with client_of(served, token="s3cret") as client:
        for given in ("", "Bearer wrong", "s3cret", "Basic s3cret"):
            answer = client.post("/api/search", json=DOG, headers={"Authorization": given} if given else {})
            assert answer.status_code == 401 and "token" in answer.json()["error"]
            assert answer.headers["www-authenticate"] == "Bearer"
        for path in ("/api/info", "/metrics", "/api/pictures?id=3.png", "/api/nothing"):
            assert client.get(path).status_code == 401
        for path in ("/", "/docs", "/openapi.json", "/api/health", "/static/app.js"):
            assert client.get(path).status_code == 200
        right = {"Authorization": "Bearer s3cret"}
        assert client.post("/api/search", json=DOG, headers=right).status_code == 200
        assert client.get("/openapi.json").json()["security"] == [{"token": []}]


def test_head_is_answered_as_get_is_without_the_body(served):
    with client_of(served) as client:
        for path in ("/", "/docs", "/api/health", "/api/info", "/metrics", "/api/pictures?id=3.png", "/static/app.js",
                     "/api/nothing", "/api/search"):  # fmt: skip
            got, head = client.get(path), client.head(path)
            assert head.status_code == got.status_code and head.content == b"", path
            assert path == "/metrics" or head.headers["content-length"] == got.headers["content-length"], path


def test_on_loopback_only_requests_for_this_machine_are_answered(served):
    with client_of(served, hosts="photos.example") as client:
        for host, status in (("localhost:8765", 200), ("127.0.0.1", 200), ("[::1]:8765", 200), ("photos.example", 200),
                             ("evil.example", 403), ("localhost.evil.example", 403)):  # fmt: skip
            assert client.get("/api/health", headers={"Host": host}).status_code == status, host
    with client_of(served, host="0.0.0.0") as client:
        assert client.get("/api/health", headers={"Host": "any.example"}).status_code == 200


def test_a_body_beyond_the_limit_is_turned_away_announced_or_not(served):
    with client_of(served, max_body=2000) as client:
        long = {"texts": ["a"] * 20 + ["x" * 1000] * 3}
        answer = client.post("/api/search", json=long)
        assert answer.status_code == 413 and "larger than 2000 bytes" in answer.json()["error"]
        assert "content-security-policy" in answer.headers

        def pieces():
            for _ in range(10):
                yield b" " * 500

        assert client.post("/api/search", content=pieces()).status_code == 413
        assert client.post("/api/search", json=DOG).status_code == 200


def test_a_picture_of_too_many_pixels_is_refused_before_it_is_decoded(served, monkeypatch):
    out = io.BytesIO()
    PILImage.new("1", (20_000, 20_000)).save(out, "PNG")  # 50 kB that become 400 million pixels
    small = io.BytesIO()
    PILImage.new("RGB", (110, 100)).save(small, "PNG")
    with client_of(served, max_pixels=10_000) as client:
        monkeypatch.setattr("PIL.PngImagePlugin.PngImageFile.load", lambda self: pytest.fail("it was decoded"))
        for data in (out, small):
            answer = client.post("/api/search/upload", files={"picture": data.getvalue()})
            assert answer.status_code == 400 and "pixels" in answer.json()["error"]


def test_other_formats_than_pictures_of_a_folder_are_refused(client):
    out = io.BytesIO()
    PILImage.new("RGB", (9, 9)).save(out, "EPS")  # Pillow would start Ghostscript
    answer = client.post("/api/search/upload", files={"picture": out.getvalue()})
    assert answer.status_code == 400 and "not a picture in a format" in answer.json()["error"]


def test_an_exact_scan_of_more_than_the_limit_is_refused(served):
    with client_of(served, max_rerank=5) as client:
        answer = client.post("/api/search", json=DOG | {"rerank": "all"})
        assert answer.status_code == 422 and "at most 5 candidates" in answer.json()["error"]


class Slow:
    """A gallery whose searches wait until they are let go; counts what it is asked at once."""

    def __init__(self):
        self.go, self.sizes, self.started = threading.Event(), [], threading.Event()

    def search_many(self, asks):
        self.started.set()
        assert self.go.wait(10)
        self.sizes.append(len(asks))
        if any(ask.query == "bug" for ask in asks):
            raise RuntimeError("a bug")
        return [XRetrieveError("bad") if ask.query == "bad" else ask.query.upper() for ask in asks]


@pytest.fixture
def slow():
    gallery = Slow()
    yield gallery
    gallery.go.set()


def test_a_full_queue_answers_503_and_what_waited_is_answered_together(slow):
    async def play():
        worker = Worker(slow, queue=4, batch=3, metrics=Metrics())
        worker.start()
        first = asyncio.create_task(worker.search(Ask("a")))
        await asyncio.to_thread(slow.started.wait, 5)
        rest = [asyncio.create_task(worker.search(Ask(text))) for text in ("b", "bad", "c", "d")]
        await asyncio.sleep(0)
        with pytest.raises(ApiError) as full:
            await worker.search(Ask("e"))
        assert full.value.status == 503 and full.value.retry >= 1
        assert int(full.value.answer().headers["retry-after"]) == full.value.retry
        slow.go.set()
        answers = await asyncio.gather(first, *rest, return_exceptions=True)
        worker.stop()
        return answers

    answers = asyncio.run(play())
    assert [str(answer) for answer in answers] == ["A", "B", "bad", "C", "D"] and slow.sizes == [1, 3, 1]


def test_over_http_a_full_queue_is_503_with_retry_after(served, monkeypatch):
    slow = Slow()

    def search_many(self, asks):
        slow.started.set()
        assert slow.go.wait(10)
        return [XRetrieveError("let go")] * len(asks)

    monkeypatch.setattr(type(served), "search_many", search_many)
    with client_of(served, queue=2, batch=1) as client, ThreadPoolExecutor(8) as pool:
        waiting = [pool.submit(client.post, "/api/search", json=DOG)]
        assert slow.started.wait(10)
        waiting += [pool.submit(client.post, "/api/search", json=DOG) for _ in range(7)]
        rejected = [done.result() for done in itertools.islice(as_completed(waiting), 5)]  # one runs, two wait
        assert {answer.status_code for answer in rejected} == {503}
        assert all(int(answer.headers["retry-after"]) >= 1 for answer in rejected)
        assert "waiting already" in rejected[0].json()["error"]
        assert client.get("/api/health").json()["waiting"] == 2
        slow.go.set()
        assert sorted(done.result().status_code for done in waiting) == [400] * 3 + [503] * 5
        assert "xretrieve_rejected_total 5.0" in client.get("/metrics").text


def test_a_body_that_never_arrives_is_given_up(served):
    sent = []

    async def forever():
        await asyncio.sleep(60)

    async def send(message):
        sent.append(message)

    async def call():
        app = Guard(None, Settings(body_seconds=0.05), Metrics())
        scope = {"type": "http", "method": "POST", "path": "/api/search", "headers": [(b"host", b"localhost")]}
        await app(scope, forever, send)

    asyncio.run(call())
    assert sent[0]["status"] == 408 and b"more than 0.05 s to arrive" in sent[1]["body"]


def test_a_bug_in_one_search_does_not_take_the_others_with_it(slow):
    async def play():
        worker = Worker(slow, queue=9, batch=9, metrics=Metrics())
        tasks = [asyncio.create_task(worker.search(Ask(text))) for text in ("a", "bug", "b")]
        await asyncio.sleep(0)
        slow.go.set()
        worker.start()
        answers = await asyncio.gather(*tasks, return_exceptions=True)
        worker.stop()
        return answers

    assert [str(answer) for answer in asyncio.run(play())] == ["A", "a bug", "B"]


def test_stopping_finishes_what_runs_and_tells_what_waits(slow):
    async def play():
        worker = Worker(slow, queue=9, batch=1, metrics=Metrics())
        worker.start()
        tasks = [asyncio.create_task(worker.search(Ask("a")))]
        await asyncio.to_thread(slow.started.wait, 5)
        tasks.append(asyncio.create_task(worker.search(Ask("b"))))
        await asyncio.sleep(0)
        slow.go.set()
        await asyncio.to_thread(worker.stop)
        answers = await asyncio.gather(*tasks, return_exceptions=True)
        with pytest.raises(ApiError, match="stopping"):
            await worker.search(Ask("c"))
        return answers

    answers = asyncio.run(play())
    assert answers[0] == "A" and ("stopping" in str(answers[1]) or answers[1] == "B")


def test_an_unforeseen_fault_is_a_sentence_without_details(served, monkeypatch):
    with client_of(served) as client:
        monkeypatch.setattr(type(served), "search_many", lambda self, asks: 1 / 0)
        answer = client.post("/api/search", json=DOG)
        assert answer.status_code == 500 and answer.json() == {"error": "the server failed at this; its log says more"}
        monkeypatch.undo()
        assert client.post("/api/search", json=DOG).status_code == 200


@pytest.mark.parametrize(
    ("given", "message"),
    [({"queue": 0}, "queue is 0"), ({"port": 70000}, "port is 70000"), ({"token": "sécret"}, "plain ASCII"),
     ({"max_texts": 51}, "a session takes 50"), ({"session_minutes": -1.0}, "session_minutes is -1.0")],
)  # fmt: skip
def test_settings_that_cannot_be_are_refused(given, message):
    with pytest.raises(XRetrieveError, match=message):
        Settings(**given)
