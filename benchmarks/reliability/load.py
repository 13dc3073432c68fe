"""HTTP clients that cost little, the server process that they call, and an index for it."""

from __future__ import annotations

import asyncio
import io
import json
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
from PIL import Image

from benchmarks.speed.start import make_run
from xretrieve.gallery import Gallery

WORDS = "dog man snow beach child red blue water grass bike runs jumps sits two black white street ball".split()
SIDE = 7000  # pixels of a bomb's side
LIMIT = 60.0  # seconds that a client waits for an answer


class Connection(asyncio.Protocol):
    """One connection, one request at a time."""

    def __init__(self) -> None:
        self.transport: asyncio.Transport | None = None
        self.open = False
        self._buffer = b""
        self._answer: asyncio.Future[tuple[int, bytes, bytes]] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Called by asyncio."""
        assert isinstance(transport, asyncio.Transport)
        self.transport, self.open = transport, True

    def data_received(self, data: bytes) -> None:
        """Called by asyncio."""
        self._buffer += data
        head, end, body = self._buffer.partition(b"\r\n\r\n")
        if not end:
            return
        lower = head.lower()
        place = lower.find(b"\r\ncontent-length:")
        length = int(lower[place + 17 :].split(b"\r\n", 1)[0]) if place >= 0 else 0
        if len(body) < length:
            return
        self._buffer = b""
        if b"\r\nconnection: close" in lower:
            self.open = False
        if self._answer is not None and not self._answer.done():
            self._answer.set_result((int(head[9:12]), head, body))

    def connection_lost(self, error: Exception | None) -> None:
        """Called by asyncio."""
        self.open = False
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(ConnectionError("closed without an answer"))

    async def ask(self, request: bytes) -> tuple[int, bytes, bytes]:
        """Status, head and body of the answer."""
        assert self.transport is not None
        self._answer = asyncio.get_running_loop().create_future()
        self.transport.write(request)
        return await asyncio.wait_for(self._answer, LIMIT)


@dataclass
class Told:
    """What clients saw: answers by status (0: none came), seconds of each by status."""

    seconds: dict[int, list[float]] = field(default_factory=dict)
    hasty: int = 0  # 503 without Retry-After

    def note(self, status: int, seconds: float) -> None:
        """One answer."""
        self.seconds.setdefault(status, []).append(seconds)

    @property
    def answers(self) -> Counter[int]:
        """How many of each status."""
        return Counter({status: len(some) for status, some in self.seconds.items()})

    def ms(self, share: float, status: int = 200) -> float:
        """A quantile of the time to an answer, in ms; NaN where there is none."""
        some = sorted(self.seconds.get(status, []))
        return 1000 * some[min(len(some) - 1, int(share * len(some)))] if some else float("nan")


class Clients:
    """Connections to one server; a request takes one that is free, or opens one."""

    def __init__(self, address: str) -> None:
        parts = urlsplit(address)
        assert parts.hostname is not None and parts.port is not None
        self.host, self.port = parts.hostname, parts.port
        self._free: list[Connection] = []
        self.told = Told()

    async def connect(self) -> Connection:
        """A new connection."""
        loop = asyncio.get_running_loop()
        _, made = await asyncio.wait_for(loop.create_connection(Connection, self.host, self.port), LIMIT)
        return made

    async def ask(self, request: bytes, fresh: bool = False) -> tuple[int, bytes]:
        """Status and body; status 0 where the connection was closed or nothing came in time."""
        start, status, body = time.perf_counter(), 0, b""
        try:
            one = None
            while self._free and not fresh and (one is None or not one.open):
                one = self._free.pop()
            if one is None or not one.open:
                one = await self.connect()
            status, head, body = await one.ask(request)
            if one.open:
                self._free.append(one)
            if status == 503 and b"\r\nretry-after:" not in head.lower():
                self.told.hasty += 1
        except (OSError, asyncio.TimeoutError):
            pass
        self.told.note(status, time.perf_counter() - start)
        return status, body

    def close(self) -> None:
        """Close what is open."""
        for one in self._free:
            if one.transport is not None:
                one.transport.close()


def post(path: str, body: bytes, kind: str = "application/json") -> bytes:
    """A whole request."""
    head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


def get(path: str) -> bytes:
    """A whole request."""
    return f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()


def text_search(chance: random.Random, k: int = 24) -> bytes:
    """A search with four words; every fifth has two details."""
    texts = [" ".join(chance.sample(WORDS, 4)) for _ in range(2 if chance.random() < 0.2 else 1)]
    return post("/api/search", json.dumps({"texts": texts, "k": k}).encode())


def upload(data: bytes) -> bytes:
    """A search with a picture file in a form."""
    head = b'--edge\r\nContent-Disposition: form-data; name="picture"; filename="a.png"\r\n\r\n'
    return post("/api/search/upload", head + data + b"\r\n--edge--\r\n", "multipart/form-data; boundary=edge")


async def closed_loop(clients: Clients, many: int, seconds: float, request: Callable[[], bytes]) -> Told:
    """``many`` clients that ask again as soon as they have an answer; a refused one waits a second, as it is told."""
    clients.told, until = Told(), time.perf_counter() + seconds

    async def one() -> None:
        while time.perf_counter() < until:
            status, _ = await clients.ask(request())
            if status == 503:
                await asyncio.sleep(max(0.0, min(1.0, until - time.perf_counter())))

    await asyncio.gather(*(one() for _ in range(many)))
    return clients.told


async def open_loop(clients: Clients, rate: float, seconds: float, request: Callable[[], bytes]) -> Told:
    """``rate`` requests a second, whatever the server does."""
    clients.told, start, tasks = Told(), time.perf_counter(), set()
    sent = 0
    while (now := time.perf_counter() - start) < seconds:
        while sent < now * rate:
            tasks.add(asyncio.ensure_future(clients.ask(request())))
            sent += 1
        await asyncio.sleep(0.002)
    await asyncio.gather(*tasks)
    return clients.told


@contextmanager
def server(index: str, more: list[str]) -> Iterator[tuple[str, int]]:
    """The address of a server over an index, and its process id."""
    command = [sys.executable, "-m", "xretrieve", "serve", index, "--port", "0", "--json", *more]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        if not line:
            raise SystemExit(f"the server did not start (status {process.wait()})")
        yield json.loads(line)["address"], process.pid
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            raise


def family(pid: int) -> list[int]:
    """A process and all below it."""
    found = [pid]
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        try:
            for child in task.read_text().split():
                found += family(int(child))
        except OSError:
            continue
    return found


def memory(pid: int) -> float:
    """MiB of a process and all below it, without what is read from files; what they share counts once."""
    total = 0.0
    for one in family(pid):
        try:
            for line in Path(f"/proc/{one}/smaps_rollup").read_text().splitlines():
                if line.startswith(("Pss_Anon:", "Pss_Shmem:")):
                    total += int(line.split()[1]) / 1024
        except OSError:
            continue  # it ended meanwhile
    return total


def bomb(small: bool = False, less: int = 0) -> bytes:
    """A PNG of few bytes and many pixels."""
    out, side = io.BytesIO(), (SIDE // 20 if small else SIDE) - less
    rows = np.random.default_rng(0).integers(0, 255, (1, side, 3), np.uint8)
    Image.fromarray(np.repeat(rows, side, 0)).save(out, "PNG", compress_level=1)
    return out.getvalue()


def make_index(folder: Path, pictures: int, tiny: bool) -> Path:
    """A gallery of made-up pictures, two of them bombs, and the run beside it."""
    place = folder / "made.xr"
    if place.exists():
        return place
    matcher, photos = make_run("words", "dual", folder / "run", tiny), folder / "photos"
    photos.mkdir(exist_ok=True)
    for number in range(pictures - 2):
        colours = np.random.default_rng(number).integers(0, 256, (6, 8, 3), dtype=np.uint8)
        Image.fromarray(colours).resize((320, 240)).save(photos / f"{number:05d}.jpg")
    for number in range(2):
        (photos / f"bomb-{number}.png").write_bytes(bomb(tiny, number))
    Gallery.build(matcher, photos, place)
    return place
