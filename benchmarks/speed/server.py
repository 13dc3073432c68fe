"""`xretrieve serve` under load: some clients search without a pause, malformed requests come among them.

    python benchmarks/speed/server.py INDEX [--clients 4] [--seconds 120] [--malformed 100] [--out FILE.json]

The server is a process of its own on the loopback, with its default limits. Texts are made of the words of
``WORDS``; a fifth of the searches have two details. Told are answers by status, the waiting time of searches, and the
server's memory before and after. An answer of status 5xx other than 503 (too much is waiting) is an error.
"""

from __future__ import annotations

import argparse
import base64
import json
import random
import signal
import statistics
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

from xretrieve.bench.tables import machine_line
from xretrieve.evaluation.evaluator import versions
from xretrieve.utils.files import write_json

WORDS = "dog man snow beach child red blue water grass bike runs jumps sits two black white street ball".split()


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
        process.wait(30)


def memory(pid: int) -> float:
    """Resident MiB of a process."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS"):
            return int(line.split()[1]) / 1024
    raise OSError(f"no VmRSS of process {pid}")


def search(number: int, address: str, until: float, waits: list[float], answers: Counter[str]) -> None:
    """One client: a search after the other until the time is up."""
    chance = random.Random(number)
    with httpx.Client(base_url=address, timeout=120) as client:
        while time.perf_counter() < until:
            texts = [" ".join(chance.sample(WORDS, 4)) for _ in range(2 if chance.random() < 0.2 else 1)]
            start = time.perf_counter()
            answer = client.post("/api/search", json={"texts": texts, "k": 24})
            waits.append(time.perf_counter() - start)
            answers[str(answer.status_code)] += 1


def disturb(address: str, many: int, seconds: float, answers: Counter[str]) -> None:
    """Requests that no server should like, spread over the time."""
    noise = random.Random(0).randbytes
    with httpx.Client(base_url=address, timeout=120) as client:
        for number in range(many):
            answer = [
                lambda: client.post("/api/search", content=noise(300), headers={"Content-Type": "application/json"}),
                lambda: client.post("/api/search/upload", files={"picture": noise(2000)}),
                lambda: client.post("/api/search", json={"texts": [None, {"a": 1}]}),
                lambda: client.post("/api/search", json={"texts": ["x" * 100_000]}),
                lambda: client.get("/api/pictures", params={"id": "../" * 40 + "etc/passwd"}),
                lambda: client.post("/api/search", content=b" " * 13_000_000),
                lambda: client.request("BREW", "/api/search"),
                lambda: client.post("/api/search", json={"picture": base64.b64encode(b"GIF89a" + noise(99)).decode()}),
                lambda: client.post("/api/sessions/" + "a" * 60 + "/undo"),
                lambda: client.post("/api/explain", json={"texts": ["a"], "id": "\x00"}),
            ][number % 10]()
            answers[str(answer.status_code)] += 1
            time.sleep(seconds / many / 2)


def measure(index: str, clients: int, seconds: float, malformed: int, more: list[str]) -> dict[str, Any]:
    """What the clients saw."""
    waits: list[float] = []
    good: Counter[str] = Counter()
    bad: Counter[str] = Counter()
    with server(index, more) as (address, pid):
        httpx.post(f"{address}api/search", json={"texts": ["a dog"]}, timeout=120)  # the first one loads what it needs
        before, until = memory(pid), time.perf_counter() + seconds
        work = [threading.Thread(target=search, args=(i, address, until, waits, good)) for i in range(clients)]
        work.append(threading.Thread(target=disturb, args=(address, malformed, seconds, bad)))
        for thread in work:
            thread.start()
        for thread in work:
            thread.join()
        after = memory(pid)
    waits.sort()
    errors = sum(many for status, many in (good + bad).items() if status.startswith("5") and status != "503")
    return {
        "index": index, "clients": clients, "seconds": seconds, "searches": len(waits), "answers": dict(good),
        "malformed": dict(bad), "errors": errors, "per_second": len(waits) / seconds,
        "p50_ms": 1000 * statistics.median(waits), "p95_ms": 1000 * waits[int(0.95 * len(waits))],
        "memory_before_mib": before, "memory_after_mib": after,
        "versions": versions(),
    }  # fmt: skip


def main(arguments: list[str] | None = None) -> dict[str, Any]:
    """Measure, print, and write what ``--out`` asks for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("index")
    parser.add_argument("--clients", type=int, default=4)
    parser.add_argument("--seconds", type=float, default=120)
    parser.add_argument("--malformed", type=int, default=100)
    parser.add_argument("--model", help="the run that made the index, where it was moved")
    parser.add_argument("--out", type=Path)
    a = parser.parse_args(arguments)
    found = measure(a.index, a.clients, a.seconds, a.malformed, ["--model", a.model] if a.model else [])
    print(
        f"{found['searches']} searches by {found['clients']} clients in {found['seconds']:g} s, "
        f"{found['per_second']:.1f} a second: p50 {found['p50_ms']:.0f} ms, p95 {found['p95_ms']:.0f} ms"
    )
    print(f"answers {found['answers']}; malformed {found['malformed']}; errors {found['errors']}")
    print(f"memory {found['memory_before_mib']:.0f} MiB before, {found['memory_after_mib']:.0f} MiB after")
    print(machine_line(found["versions"]))
    if a.out is not None:
        write_json(a.out, found)
    return found


if __name__ == "__main__":
    main()
