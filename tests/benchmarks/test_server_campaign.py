"""benchmarks/reliability/server.py, its short form: every request is answered, nothing mixed, memory bounded."""

from __future__ import annotations

import sys

import pytest

pytest.importorskip("timm")
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="memory is read from /proc")

from benchmarks.reliability.server import main  # noqa: E402


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return str(tmp_path_factory.mktemp("server-campaign"))


def campaign(folder, *names):
    return main(["--only", *names, "--seconds", "1", "--pictures", "30", "--small", "--folder", folder])


def test_nothing_that_clients_do_harms_the_searches_of_others(folder):
    found = campaign(folder, "headers", "bodies", "bombs", "malformed")
    for name in ("headers", "bodies", "bombs", "malformed"):
        texts = found[name]["texts"]["answers"]
        assert set(texts) == {"200"} and texts["200"] > 0, (name, texts)
    assert not {"none", "200", "500"} & set(found["malformed"]["answers"]), found["malformed"]
    for part in ("uploads", "explanations", "copies", "40_uploads"):
        assert set(found["bombs"][part]) <= {"200", "400", "503"} and found["bombs"][part], found["bombs"]
    assert found["bombs"]["memory_above_idle"] < 600


def test_every_request_is_answered_and_many_sessions_are_kept(folder):
    found = campaign(folder, "overload", "sessions")
    load = found["overload"]
    assert set(load["answers"]) <= {"200", "503"} and load["answers"]["200"] > 0, load
    assert load["search_afterwards"] == 200 and load["without_retry_after"] == 0
    assert found["sessions"]["opened"] == 250 and found["sessions"]["rankings"] == {"200": 40}


@pytest.mark.slow
def test_a_gallery_that_changes_is_never_mixed(folder):
    found = campaign(folder, "change")["change"]
    assert found["mixed"] == 0 and found["checked"] > 0 and found["seen_after_s"] < 10, found
    assert set(found["texts"]["answers"]) == {"200"} and set(found["answers"]) <= {"200", "404"}


@pytest.mark.slow
def test_alone_and_capacity_are_told(tmp_path, capsys):
    found = main(["--only", "alone", "capacity", "--seconds", "0.5", "--pictures", "5", "--small", "--folder",
                  str(tmp_path), "--out", str(tmp_path / "out.json"), "--serve", "-o", "batch=4"])  # fmt: skip
    assert found["alone"]["answers"] == {"200": 10} and found["alone"]["unknown_id_p50_ms"] > 0
    assert all(one["a_second"] > 0 for one in found["capacity"].values())
    assert (tmp_path / "out.json").is_file() and "alone: answers (200 10)" in capsys.readouterr().out
