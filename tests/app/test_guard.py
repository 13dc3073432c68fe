"""Who may ask, how much may be sent, and what happens when too many ask."""

from __future__ import annotations

import asyncio
import io
import itertools
import threading
import time
from concurrent.futures import ThreadPoolExecutor, as_completed

import pytest
from PIL import Image as PILImage

from tests.app.conftest import Slow, client_of
from xretrieve.app.decoder import query_picture
from xretrieve.app.errors import ApiError
from xretrieve.app.guard import Guard
from xretrieve.app.lanes import Lanes
from xretrieve.app.metrics import Metrics
from xretrieve.app.settings import Settings
from xretrieve.errors import XRetrieveError

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


def test_a_picture_of_too_many_pixels_is_refused_before_it_is_decoded(served, monkeypatch, tmp_path):
    out = io.BytesIO()
    PILImage.new("1", (20_000, 20_000)).save(out, "PNG")  # 50 kB that become 400 million pixels
    small = io.BytesIO()
    PILImage.new("RGB", (110, 100)).save(small, "PNG")
    with client_of(served, max_pixels=10_000) as client:
        for data in (out, small):
            answer = client.post("/api/search/upload", files={"picture": data.getvalue()})
            assert answer.status_code == 400 and "pixels" in answer.json()["error"]
    monkeypatch.setattr("PIL.PngImagePlugin.PngImageFile.load", lambda self: pytest.fail("it was decoded"))
    for data in (out, small):
        with pytest.raises(XRetrieveError, match="pixels"):
            query_picture(data.getvalue(), 10_000, tmp_path)


def test_other_formats_than_pictures_of_a_folder_are_refused(client):
    out = io.BytesIO()
    PILImage.new("RGB", (9, 9)).save(out, "EPS")  # Pillow would start Ghostscript
    answer = client.post("/api/search/upload", files={"picture": out.getvalue()})
    assert answer.status_code == 400 and "not a picture in a format" in answer.json()["error"]


def test_an_exact_scan_of_more_than_the_limit_is_refused(served):
    with client_of(served, max_rerank=5) as client:
        answer = client.post("/api/search", json=DOG | {"rerank": "all"})
        assert answer.status_code == 422 and "at most 5 candidates" in answer.json()["error"]


def test_over_http_a_full_queue_is_503_with_retry_after(served, monkeypatch):
    slow = Slow()

    def search_many(self, asks):
        slow.started.set()
        assert slow.go.wait(10)
        return [XRetrieveError("let go")] * len(asks)

    monkeypatch.setattr(type(served), "search_many", search_many)
    with client_of(served, queue=3, batch=1) as client, ThreadPoolExecutor(8) as pool:
        waiting = [pool.submit(client.post, "/api/search", json=DOG)]
        assert slow.started.wait(10)
        waiting += [pool.submit(client.post, "/api/search", json=DOG) for _ in range(7)]
        rejected = [done.result() for done in itertools.islice(as_completed(waiting), 5)]  # one runs, two wait
        assert {answer.status_code for answer in rejected} == {503}
        assert all(int(answer.headers["retry-after"]) >= 1 for answer in rejected)
        assert "waiting already" in rejected[0].json()["error"]
        health = client.get("/api/health").json()
        assert health["waiting"] == 3 and health["lanes"] == {"texts": 3, "uploads": 0, "explanations": 0, "copies": 0}
        slow.go.set()
        assert sorted(done.result().status_code for done in waiting) == [400] * 3 + [503] * 5
        assert "xretrieve_rejected_total 5.0" in client.get("/metrics").text


def played(pieces, **settings):
    """What a request is answered whose body comes in these pieces: seconds to wait, and bytes."""
    sent = []

    async def receive():
        if not pieces:
            await asyncio.sleep(60)
        seconds, data = pieces.pop(0)
        await asyncio.sleep(seconds)
        return {"type": "http.request", "body": data, "more_body": True}

    async def send(message):
        sent.append(message)

    async def call():
        limits = Settings(**settings)
        app = Guard(None, limits, Metrics(), Lanes(limits, Metrics()))
        headers = [(b"host", b"localhost"), (b"transfer-encoding", b"chunked")]
        await app({"type": "http", "method": "POST", "path": "/api/search", "headers": headers}, receive, send)

    asyncio.run(call())
    return sent[0]["status"], sent[1]["body"]


def test_a_body_that_never_arrives_is_given_up():
    status, body = played([], body_seconds=0.05)
    assert status == 408 and b"it may take 0.05 s" in body


def test_a_body_must_bring_bytes_at_a_rate(monkeypatch):
    monkeypatch.setattr("xretrieve.app.guard.GRACE", 0.1)
    start = time.perf_counter()
    status, body = played([(0.03, b"x")] * 100, body_rate=1000)  # 33 bytes a second
    assert status == 408 and b"must bring 1000 bytes a second" in body and time.perf_counter() - start < 2
    status, body = played([(0.03, b"x" * 100)] * 20 + [(0, b"x" * 3000)], body_rate=1000, max_body=4000)
    assert status == 413  # 3,300 bytes a second: it was read to its end


@pytest.mark.parametrize(
    ("headers", "status"),
    [({}, 200), ({"Sec-Fetch-Site": "same-origin", "Origin": "http://localhost"}, 200),
     ({"Sec-Fetch-Site": "none"}, 200), ({"Sec-Fetch-Site": "cross-site"}, 403), ({"Sec-Fetch-Site": "same-site"}, 403),
     ({"Origin": "http://localhost"}, 200), ({"Origin": "http://localhost:3000"}, 403),
     ({"Origin": "https://photos.example"}, 200), ({"Origin": "https://evil.example"}, 403), ({"Origin": "null"}, 403),
     ({"Origin": "http://[::1"}, 403)],
)  # fmt: skip
def test_pages_of_other_sites_may_not_make_a_browser_ask(served, headers, status):
    with client_of(served, hosts="photos.example") as client:
        form = {"picture": ("3.png", (served.picture("3.png")).read_bytes())}
        for answer in (
            client.post("/api/search", json=DOG, headers=headers),
            client.post("/api/search/upload", files=form, headers=headers),
            client.get("/api/pictures?id=3.png", headers=headers),
        ):
            assert answer.status_code == status, answer.text
            assert status == 200 or "a page of another site" in answer.json()["error"]
        assert client.get("/", headers=headers | {"Sec-Fetch-Mode": "navigate"}).status_code == 200, (
            "a link to the page"
        )


def test_texts_never_wait_for_pictures_nor_for_explanations(served, monkeypatch):
    go, explaining = threading.Event(), threading.Event()

    def explain(self, query, id_):
        explaining.set()
        assert go.wait(10)
        raise XRetrieveError("let go")

    monkeypatch.setattr(type(served), "explain", explain)
    monkeypatch.setattr("xretrieve.app.pictures.query_picture", hang)
    why = DOG | {"id": "3.png"}
    with client_of(served, explanations=2, uploads=2, picture_seconds=2.0) as client, ThreadPoolExecutor(8) as pool:
        reasons = [pool.submit(client.post, "/api/explain", json=why) for _ in range(2)]
        pictures = [pool.submit(client.post, "/api/search", json={"image": "3.png"}) for _ in range(2)]
        assert explaining.wait(10)
        until = time.perf_counter() + 10
        while client.get("/api/health").json()["lanes"] != {"texts": 0, "uploads": 2, "explanations": 2, "copies": 0}:
            assert time.perf_counter() < until
        for body, path in ((why, "/api/explain"), ({"image": "3.png"}, "/api/search")):
            answer = client.post(path, json=body)
            assert answer.status_code == 503 and int(answer.headers["retry-after"]) >= 1, answer.text
        assert client.post("/api/search", json=DOG).status_code == 200
        assert client.post("/api/sessions", json={"combine": "rank_fusion"}).status_code == 201
        go.set()
        assert [done.result().status_code for done in reasons + pictures] == [400] * 4


def hang(*_):
    time.sleep(60)


def test_large_bodies_have_room_for_so_many_bytes(served):
    lanes = Lanes(Settings(large=100), Metrics())
    with lanes.room(120), pytest.raises(ApiError, match="too many large requests"), lanes.room(1):
        pass  # one alone always has room
    with lanes.room(60), lanes.room(40):
        pass
    assert lanes.untidy


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
