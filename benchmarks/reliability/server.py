"""`xretrieve serve` under load and against slow or greedy clients: a line for each.

    python benchmarks/reliability/server.py [INDEX] [--only overload bombs] [--seconds 20] [--out FILE.json]
        [--pictures 1500] [--serve --workers 2]

Without INDEX one is made: a dual encoder of ordinary size with random weights (MobileNetV2, a GRU over 8,000 words)
over made-up pictures. Each scenario has a server of its own, with its default limits unless ``--serve`` adds some.
While a scenario harms the server, another client asks for a text search ten times a second; its waiting times are told
as `texts`. The clients run on the same machine and take their share of it. Linux.

    alone       searches one after the other on one connection
    capacity    8 and 256 clients that ask again as soon as they are answered
    overload    4 times the capacity, whether answered or not
    headers     1,100 connections whose headers never end
    bodies      129 requests whose bodies never end
    bombs       3 clients send a PNG of 49 million pixels without a pause, 3 ask for copies of such files, 3 for
                explanations; then 40 send 12 MiB at once
    malformed   nonsense among the searches
    sessions    10,000 sessions, each with a sentence
    change      another process adds and removes pictures during searches
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from benchmarks.reliability.load import (  # noqa: E402
    Clients,
    Told,
    bomb,
    closed_loop,
    get,
    make_index,
    memory,
    open_loop,
    post,
    server,
    text_search,
    upload,
)
from xretrieve.bench.tables import machine_line  # noqa: E402
from xretrieve.evaluation.provenance import versions  # noqa: E402
from xretrieve.utils.files import write_json  # noqa: E402


@dataclass
class Trial:
    """What a scenario works with.

    Args:
        address: of the server.
        pid: its process.
        index: what it serves.
        seconds: that each kind of load lasts.
        small: numbers for a test.
        capacity: searches a second, where they were measured.
        chance: draws the words.
    """

    address: str
    pid: int
    index: Path
    seconds: float
    small: bool
    capacity: float = 0.0
    chance: random.Random = field(default_factory=lambda: random.Random(0))

    def clients(self) -> Clients:
        """New ones."""
        return Clients(self.address)

    def text(self) -> bytes:
        """A text search."""
        return text_search(self.chance)

    def many(self, number: int) -> int:
        """That number, or a small one for a test."""
        return max(3, number // 40) if self.small else number


@asynccontextmanager
async def watched(trial: Trial) -> Any:
    """Another client's text searches, and the memory, during a scenario."""
    clients, seen, stop = trial.clients(), {"before": memory(trial.pid), "peak": 0.0}, asyncio.Event()

    async def ask() -> None:
        while not stop.is_set():
            start = time.perf_counter()
            await clients.ask(trial.text())
            seen["peak"] = max(seen["peak"], memory(trial.pid))
            await asyncio.sleep(max(0.0, 0.1 - (time.perf_counter() - start)))

    for _ in range(3):  # the first ones load what they need
        await clients.ask(trial.text())
    clients.told = Told()
    task = asyncio.ensure_future(ask())
    try:
        yield seen
    finally:
        stop.set()
        await task
        clients.close()
        await asyncio.sleep(1 if trial.small else 10)
        seen["after"] = memory(trial.pid)
        told = clients.told
        seen["texts"] = {"answers": plain(told), "p50_ms": told.ms(0.5), "p95_ms": told.ms(0.95)}


def plain(told: Told) -> dict[str, int]:
    """Answers by status."""
    return {("none" if status == 0 else str(status)): many for status, many in sorted(told.answers.items())}


async def alone(trial: Trial) -> dict[str, Any]:
    """Searches one after the other, and calls that need no model."""
    clients = trial.clients()
    for _ in range(trial.many(80)):  # the first ones load what they need
        await clients.ask(trial.text())
    clients.told = Told()
    for _ in range(trial.many(400)):
        await clients.ask(trial.text())
    searches, clients.told = clients.told, Told()
    for _ in range(trial.many(200)):
        await clients.ask(get("/api/health"))
    health = clients.told
    clients.told = Told()
    for _ in range(trial.many(120)):
        await clients.ask(get(f"/api/pictures?id=no-such-{trial.chance.random()}"))
    clients.close()
    return {"answers": plain(searches), "p50_ms": searches.ms(0.5), "p95_ms": searches.ms(0.95),
            "health_p50_ms": health.ms(0.5), "unknown_id_p50_ms": clients.told.ms(0.5, 404)}  # fmt: skip


async def capacity(trial: Trial) -> dict[str, Any]:
    """What is served at most."""
    found: dict[str, Any] = {}
    for many in (8, trial.many(256)):
        clients = trial.clients()
        await closed_loop(clients, many, trial.seconds / 4, trial.text)
        told = await closed_loop(clients, many, trial.seconds, trial.text)
        found[f"{many} clients"] = {"answers": plain(told), "a_second": told.answers[200] / trial.seconds,
                                    "p50_ms": told.ms(0.5), "p95_ms": told.ms(0.95)}  # fmt: skip
        clients.close()
    return found


async def overload(trial: Trial) -> dict[str, Any]:
    """Four times what it can."""
    clients, can = trial.clients(), trial.capacity
    if not can:
        await closed_loop(clients, 64, trial.seconds / 4, trial.text)
        can = (await closed_loop(clients, 64, trial.seconds, trial.text)).answers[200] / trial.seconds
    start = time.perf_counter()
    told = await open_loop(clients, 4 * can, trial.seconds, trial.text)
    took = time.perf_counter() - start
    clients.close()
    status, _ = await trial.clients().ask(trial.text())
    return {"capacity": can, "sent_a_second": sum(told.answers.values()) / trial.seconds,
            "goodput": told.answers[200] / took, "share_of_capacity": told.answers[200] / took / can,
            "answers": plain(told), "p50_ms": told.ms(0.5), "p95_ms": told.ms(0.95),
            "refused_p95_ms": told.ms(0.95, 503), "without_retry_after": told.hasty,
            "search_afterwards": status}  # fmt: skip


async def headers(trial: Trial) -> dict[str, Any]:
    """Headers that never end, a byte every few seconds."""
    return await slow(trial, trial.many(1100), b"GET /api/health HTTP/1.1\r\nHost: localhost\r\nX-A: ", b"a")


async def bodies(trial: Trial) -> dict[str, Any]:
    """Bodies that never end, a byte every few seconds."""
    head = b"POST /api/search/upload HTTP/1.1\r\nHost: localhost\r\nContent-Type: multipart/form-data; boundary=e\r\n"
    return await slow(trial, trial.many(129), head + b"Content-Length: 9000000\r\n\r\n--e\r\n", b" ")


async def slow(trial: Trial, many: int, head: bytes, more: bytes) -> dict[str, Any]:
    """Connections that send ``head``, and then ``more`` once a second; when the server had dropped the last of them."""
    seconds = 2.0 if trial.small else max(trial.seconds, 45.0)
    async with watched(trial) as seen:
        writers, start, held = [], time.perf_counter(), 0
        for _ in range(many):
            try:
                _, writer = await asyncio.open_connection(*_place(trial))
                writer.write(head)
                writers.append(writer)
            except OSError:
                break
        opened, lasted = len(writers), 0.0
        while writers and time.perf_counter() - start < seconds:
            await asyncio.sleep(1)
            for writer in writers:
                writer.write(more)
            await asyncio.sleep(0)
            writers = [writer for writer in writers if not writer.transport.is_closing()]
            lasted = time.perf_counter() - start
        held = len(writers)
        for writer in writers:
            writer.close()
    return {"opened": opened, "of": many, "still_held": held, "seconds": lasted, **seen}


def _place(trial: Trial) -> tuple[str, int]:
    clients = trial.clients()
    return clients.host, clients.port


async def bombs(trial: Trial) -> dict[str, Any]:
    """Pictures that take long to decode, copies of such files, explanations; then many large uploads at once."""
    data = upload(bomb(trial.small))
    ids = [hit["id"] for hit in await _hits(trial)]
    large = [id_ for id_ in ids if id_.startswith("bomb")] or ids
    found: dict[str, Any] = {}
    async with watched(trial) as seen:
        chance = trial.chance

        def why() -> bytes:
            return post("/api/explain", json.dumps({"texts": ["a red dog"], "id": chance.choice(ids)}).encode())

        def copy() -> bytes:
            return get(f"/api/pictures?id={chance.choice(large)}&size={chance.randint(100, 900)}")

        parts = {"uploads": lambda: data, "explanations": why, "copies": copy}
        told = await asyncio.gather(*(closed_loop(trial.clients(), 3, trial.seconds, make) for make in parts.values()))
        for name, one in zip(parts, told, strict=True):
            found[name] = plain(one)
        rest = random.Random(0).randbytes(11 * 2**20)
        clients = trial.clients()
        await asyncio.gather(*(clients.ask(upload(rest)) for _ in range(trial.many(40))))
        found["40_uploads"] = plain(clients.told)
    return found | {"memory_above_idle": seen["peak"] - seen["before"]} | seen


async def _hits(trial: Trial) -> list[dict[str, Any]]:
    _, body = await trial.clients().ask(post("/api/search", b'{"texts": ["a red dog"], "k": 200}'))
    return list(json.loads(body)["hits"])


async def malformed(trial: Trial) -> dict[str, Any]:
    """Nonsense; none of it may be a 5xx."""
    noise = random.Random(0).randbytes
    wrong = [
        post("/api/search", noise(300)), upload(noise(2000)), post("/api/search", b'{"texts": [null, {"a": 1}]}'),
        post("/api/search", json.dumps({"texts": ["x" * 100_000]}).encode()),
        get("/api/pictures?id=" + "../" * 40 + "etc/passwd"), post("/api/search", b" " * 13_000_000),
        post("/api/sessions/" + "a" * 60 + "/undo", b""), post("/api/explain", b'{"texts": ["a"], "id": "\\u0000"}'),
        post("/api/search", json.dumps({"picture": base64.b64encode(b"GIF89a" + noise(99)).decode()}).encode()),
        b"BREW /api/search HTTP/1.1\r\nHost: localhost\r\n\r\n", b"\x00\x01\x02\r\n\r\n",
    ]  # fmt: skip
    clients = trial.clients()
    async with watched(trial) as seen:
        for number in range(trial.many(220)):
            await clients.ask(wrong[number % len(wrong)], fresh=True)
    return {"answers": plain(clients.told), **seen}


async def sessions(trial: Trial) -> dict[str, Any]:
    """Many open sessions; a ranking of the first and of the last."""
    clients, names, many = trial.clients(), [], trial.many(10_000)
    start = memory(trial.pid)
    for _ in range(many):
        status, body = await clients.ask(post("/api/sessions", b"{}"))
        if status == 201:
            names.append(json.loads(body)["session"])
            await clients.ask(post(f"/api/sessions/{names[-1]}/add", b'{"text": "a red dog"}'))
    opened = clients.told
    clients.told = Told()
    for name in names[:20] + names[-20:]:
        await clients.ask(get(f"/api/sessions/{name}/ranking"))
    return {"answers": plain(opened), "opened": len(names), "add_p50_ms": opened.ms(0.5), "add_p95_ms": opened.ms(0.95),
            "rankings": plain(clients.told), "ranking_p95_ms": clients.told.ms(0.95),
            "memory_above_idle": memory(trial.pid) - start}  # fmt: skip


async def change(trial: Trial) -> dict[str, Any]:
    """Another process adds a picture and removes it again, while it is searched for by its id: an answer has it where
    its revision does."""
    picture = trial.index.parent / f"new-{time.time_ns()}.png"
    Image.effect_noise((64, 64), 80).convert("RGB").save(picture)
    clients, waits, has, mixed = trial.clients(), [], {}, 0
    answers: list[tuple[int, bool]] = []
    body = post("/api/search", json.dumps({"image": picture.name, "k": 3}).encode())
    environment, stop = os.environ | {"OMP_NUM_THREADS": "1"}, asyncio.Event()

    async def ask() -> None:
        while not stop.is_set():
            status, answer = await clients.ask(body)
            if status == 200:
                told = json.loads(answer)
                answers.append((told["revision"], picture.name in [hit["id"] for hit in told["hits"]]))
            await asyncio.sleep(0.02)

    async with watched(trial) as seen:
        task = asyncio.ensure_future(ask())
        count = await _health(trial, lambda health: True)
        for turn in range(2 if trial.small else 6):
            added = turn % 2 == 0
            work = f"add([{str(picture)!r}])" if added else f"remove({picture.name!r})"
            code = f"from xretrieve.gallery import Gallery; Gallery.open({str(trial.index)!r}).{work}"
            done = await asyncio.create_subprocess_exec(sys.executable, "-c", code, env=environment,
                                                        stderr=subprocess.PIPE)  # fmt: skip
            _, said = await done.communicate()
            if done.returncode:
                raise SystemExit(f"the change failed: {said.decode()}")
            start, wanted = time.perf_counter(), count["pictures"] + added
            health = await _health(trial, lambda now, wanted=wanted: now["pictures"] == wanted)  # type: ignore[misc]
            waits.append(time.perf_counter() - start)
            has[health.get("revision")] = added
            await asyncio.sleep(1)
        stop.set()
        await task
        mixed = sum(has[revision] != there for revision, there in answers if revision in has)
    return {"seen_after_s": max(waits), "answers": plain(clients.told), "checked": len(answers), "mixed": mixed, **seen}


async def _health(trial: Trial, wanted: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
    """What the server says of itself, as soon as it is as wanted, at most after a minute."""
    clients, start = trial.clients(), time.perf_counter()
    while time.perf_counter() - start < 60:
        status, body = await clients.ask(get("/api/health"))
        if status == 200 and wanted(json.loads(body)):
            break
        await asyncio.sleep(0.1)
    clients.close()
    return dict(json.loads(body)) if status == 200 else {}


SCENARIOS: dict[str, Callable[[Trial], Awaitable[dict[str, Any]]]] = {
    one.__name__: one for one in (alone, capacity, overload, headers, bodies, bombs, malformed, sessions, change)
}


def flat(found: dict[str, Any], before: str = "") -> str:
    """A dict in a line."""
    parts = []
    for key, value in found.items():
        if isinstance(value, dict):
            parts.append(f"{key} ({flat(value)})")
        else:
            parts.append(f"{key} {value:.1f}" if isinstance(value, float) else f"{key} {value}")
    return before + ", ".join(parts)


def main(arguments: list[str] | None = None) -> dict[str, Any]:
    """Measure, print a line for each scenario, and write what ``--out`` asks for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("index", nargs="?", type=Path)
    parser.add_argument("--only", nargs="*", default=list(SCENARIOS), choices=list(SCENARIOS))
    parser.add_argument("--seconds", type=float, default=20)
    parser.add_argument("--pictures", type=int, default=1500)
    parser.add_argument("--folder", type=Path, help="keeps the made index")
    parser.add_argument("--small", action="store_true", help="for tests: tiny models, small numbers, one server")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--serve", nargs=argparse.REMAINDER, default=[], help="options of `xretrieve serve`, last")
    a = parser.parse_args(arguments)
    found: dict[str, Any] = {"versions": versions()}
    print(machine_line(found["versions"]), flush=True)
    with tempfile.TemporaryDirectory() as name:
        index = a.index or make_index(a.folder or Path(name), a.pictures, a.small)
        can = 0.0
        for names in [a.only] if a.small else [[name] for name in a.only]:
            with server(str(index), a.serve) as (address, pid):
                for name in names:
                    trial = Trial(address, pid, index, a.seconds, a.small, can)
                    found[name] = asyncio.run(SCENARIOS[name](trial))
                    if name == "capacity":
                        can = max(one["a_second"] for one in found[name].values())
                    print(f"{name}: {flat(found[name])}", flush=True)
    if a.out is not None:
        write_json(a.out, found)
    return found


if __name__ == "__main__":
    main()
