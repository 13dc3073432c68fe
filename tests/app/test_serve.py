"""`xretrieve serve` as a process: it starts, answers, and leaves cleanly when told to."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest

from tests.gallery_fakes import noise_photos, tiny_matcher
from xretrieve.cli.main import main
from xretrieve.gallery import Gallery

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def index(tmp_path_factory):
    folder = tmp_path_factory.mktemp("serve")
    matcher = tiny_matcher("dual")
    matcher.save(folder / "run" / "matcher")
    Gallery.build(tiny_matcher("dual"), noise_photos(folder / "photos", 4), folder / "p.xr")
    return folder / "p.xr"


@pytest.mark.parametrize("stop", [signal.SIGTERM, pytest.param(signal.SIGINT, marks=pytest.mark.slow)])
def test_it_starts_answers_and_stops_with_status_0(index, stop):
    command = [sys.executable, "-m", "xretrieve", "serve", str(index), "--port", "0", "--json", "--model",
               str(index.parent / "run")]  # fmt: skip
    server = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                              env=os.environ | {"OMP_NUM_THREADS": "1"})  # fmt: skip
    try:
        told = json.loads(server.stdout.readline())
        assert told["pictures"] == 4 and told["address"].startswith("http://127.0.0.1:")
        request = urllib.request.Request(
            told["address"] + "api/search", json.dumps({"texts": ["a red dog"], "k": 2}).encode(),
            {"Content-Type": "application/json"},
        )  # fmt: skip
        with urllib.request.urlopen(request, timeout=30) as answer:
            assert len(json.load(answer)["hits"]) == 2
        server.send_signal(stop)
        assert server.wait(30) == 0
        assert server.stderr.read() == ""
    finally:
        server.kill()
        server.communicate()


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["-o", "max_kk=3"], "unknown key 'max_kk'; did you mean 'max_k'?"),
        (["-o", "queue=-1"], "queue is -1"),
        (["-o", "port=3"], "write --host, --port and --token instead"),
        (["--host", "203.0.113.7"], "cannot listen on 203.0.113.7"),
        (["--model", "nowhere"], "no run folder 'nowhere'"),
    ],
)
def test_what_cannot_be_served_is_one_line(index, capsys, more, message):
    assert main(["serve", str(index), *(["--model", str(index.parent / "run")] * ("--model" not in more)), *more]) == 2
    said = capsys.readouterr().err
    assert message in said and said.strip().splitlines()[-1].startswith("error: ")


def test_a_taken_port_is_one_line(index, capsys):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        assert main(["serve", str(index), "--model", str(index.parent / "run"), "--port", port]) == 2
    assert f"port {port} (Address already in use)" in capsys.readouterr().err


def test_no_index_is_one_line(tmp_path, capsys):
    assert main(["serve", str(tmp_path)]) == 2
    assert "is not a gallery" in capsys.readouterr().err


@pytest.mark.skipif(sys.platform != "linux", reason="workers are forked")
def test_workers_share_sessions_and_counters_and_one_that_dies_is_replaced(index):
    command = [sys.executable, "-m", "xretrieve", "serve", str(index), "--port", "0", "--json", "--model",
               str(index.parent / "run"), "--workers", "2"]  # fmt: skip
    server = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                              env=os.environ | {"OMP_NUM_THREADS": "1"})  # fmt: skip

    def call(path, body=None):
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(address + path, data, {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=30) as answer:
            return answer.read().decode()

    def workers():
        return {int(pid) for task in Path(f"/proc/{server.pid}/task").iterdir()
                for pid in (task / "children").read_text().split()}  # fmt: skip

    try:
        address = json.loads(server.stdout.readline())["address"]
        session = json.loads(call("api/sessions", {}))["session"]
        call(f"api/sessions/{session}/add", {"text": "a red dog"})
        before = workers()
        assert len(before) == 2
        for pid in before:
            os.kill(pid, signal.SIGKILL)
        until = time.monotonic() + 20
        while (len(workers()) < 2 or workers() & before) and time.monotonic() < until:
            time.sleep(0.05)
        assert len(workers()) == 2 and not workers() & before
        ranking = json.loads(call(f"api/sessions/{session}/ranking"))
        assert ranking["texts"] == ["a red dog"] and len(ranking["hits"]) == 4
        for _ in range(8):
            call("api/search", {"texts": ["a red dog"]})
        told = call("metrics")
        assert 'xretrieve_requests_total{path="/api/search",status="200"} 8.0' in told, "of both"
        assert "xretrieve_sessions 1.0" in told and "xretrieve_pictures 4.0" in told
        server.send_signal(signal.SIGTERM)
        assert server.wait(30) == 0
        assert server.stderr.read() == ""
    finally:
        server.kill()
        server.communicate()


def test_workers_that_cannot_be_are_one_line(index, capsys):
    assert main(["serve", str(index), "--model", str(index.parent / "run"), "--port", "0", "--workers", "0"]) != 0
    assert "workers is 0; give at least 1" in capsys.readouterr().err
