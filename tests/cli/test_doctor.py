"""`xretrieve doctor`: what is wrong is said in one sentence, with what to do; only what is needed fails the command."""

from __future__ import annotations

import configparser
import json
import re
import sys
from pathlib import Path

import pytest

from xretrieve.cli.main import main
from xretrieve.utils import environment
from xretrieve.utils.environment import (
    NEEDED,
    Problem,
    cache_problems,
    faiss_problems,
    hub,
    package_problems,
    probe,
    torch_problems,
)

ROOT = Path(__file__).resolve().parents[2]
GOOD_TORCH = {
    "version": "2.9.1+cpu",
    "cuda_build": None,
    "threads": 2,
    "cpu_capability": "AVX2",
    "mps": False,
    "cuda": [],
}
GOOD_PRECISION = [
    {"device": "cpu", "auto": "float32", "why": "no bf16 instructions", "bf16": "is only emulated: 7.0 times as long"}
]
GOOD_FAISS = {"version": "1.12", "gpus": 0, "gpu_build": False}


@pytest.fixture
def quick(monkeypatch, tmp_path):
    """Answers in place of the processes that import torch, torchvision and faiss."""
    answers = {
        environment.TORCH_PROBE: (GOOD_TORCH, ""),
        environment.FAISS_PROBE: (GOOD_FAISS, ""),
        environment.PRECISION_PROBE: (GOOD_PRECISION, ""),
        environment.TORCHVISION_PROBE: ({"version": "0.24.1+cpu"}, ""),
    }
    monkeypatch.setattr(environment, "probe", lambda code: answers[code])
    monkeypatch.setenv("XRETRIEVE_DATA", str(tmp_path))
    return answers


def test_the_packages_are_those_of_the_installation() -> None:
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg")
    listed = dict(
        re.fullmatch(r"([\w-]+)(?:>=([\d.]+))?.*", line).groups("")
        for line in config["options"]["install_requires"].split()
    )
    assert NEEDED == {name: lowest for name, lowest in listed.items() if name != "uvloop" or sys.platform != "win32"}


def test_a_sound_machine_gives_status_0(quick, capsys) -> None:
    assert main(["doctor"]) == 0
    out = capsys.readouterr().out
    assert "All that xretrieve needs works." in out and "BROKEN" not in out
    assert all(word in out for word in ("CPU", "FAISS", "data root", "cache", "scenes", "torch 2"))


def test_what_auto_means_here_and_what_bf16_would_cost_are_said(quick, capsys) -> None:
    assert main(["doctor"]) == 0
    said = "precision  auto is float32 on cpu (no bf16 instructions); bf16 is only emulated: 7.0 times as long"
    assert said in capsys.readouterr().out
    assert main(["doctor", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["precision"] == GOOD_PRECISION


def test_json_is_all_that_is_printed(quick, capsys) -> None:
    assert main(["doctor", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["torch"]["version"] == "2.9.1+cpu" and "flickr8k" in report["data"]["datasets"]
    assert report["packages"].keys() == NEEDED.keys()


def test_torchvision_of_another_torch_fails_and_names_the_pair(quick, capsys) -> None:
    quick[environment.TORCHVISION_PROBE] = (None, "RuntimeError: operator torchvision::nms does not exist")
    assert main(["doctor"]) == 1
    out = capsys.readouterr().out
    assert re.search(r"BROKEN: torchvision .* and torch 2.9.1\+cpu do not fit .*nms", out)
    assert "pip install -U torch torchvision" in out


def test_torch_that_does_not_start_still_gives_a_report(quick, capsys) -> None:
    quick[environment.TORCH_PROBE] = (None, "ImportError: libcudart.so.12: no such file")
    assert main(["doctor", "--json"]) == 1
    report = json.loads(capsys.readouterr().out)
    assert report["torch"] is None and "libcudart" in report["problems"][0]["what"]


def test_builds_for_different_devices_are_a_note_only() -> None:
    [problem] = torch_problems(GOOD_TORCH, {"version": "0.24.1+cu128"}, "")
    assert "different devices" in problem.what and not problem.broken
    assert not torch_problems(GOOD_TORCH, {"version": "0.24.1"}, "")


def test_missing_and_old_packages_name_the_command() -> None:
    found = {**{name: "99.0" for name in NEEDED}, "timm": None, "typer": "0.9.4", "numpy": "0.1"}
    what = {p.what: p for p in package_problems(found)}
    assert what["timm is not installed."].do == "Type: pip install 'timm>=1.0'"
    assert "typer 0.9.4 is older than 0.12." in what and len(what) == 2
    assert not package_problems({"typer": "0.12.0", "torch": "2.10.0+cu128"})  # 2.10 is later than 2.4


def test_two_faiss_wheels_are_named_and_one_is_kept() -> None:
    both = {"faiss-cpu": "1.12", "faiss-gpu-cu12": "1.12"}
    [problem] = faiss_problems(both, GOOD_FAISS, "", cuda=True)
    assert "pip uninstall -y faiss-cpu faiss-gpu-cu12, then: pip install faiss-gpu-cu12" in problem.do
    assert faiss_problems(both, GOOD_FAISS, "", cuda=False)[0].do.endswith("pip install faiss-cpu")


def test_no_faiss_is_no_problem_but_a_broken_one_is_said() -> None:
    assert not faiss_problems({}, None, "", cuda=False)
    [problem] = faiss_problems({"faiss-cpu": "1.12"}, None, "ImportError: x", cuda=False)
    assert "cannot be imported (ImportError: x)" in problem.what and not problem.broken


def test_a_cache_that_cannot_be_written_is_broken_and_a_full_one_a_note() -> None:
    place = {"path": "p", "size": 0, "free": 1 << 40, "writable": True}
    assert not cache_problems(place)
    assert cache_problems({**place, "writable": False})[0].broken
    assert cache_problems({**place, "free": 5}) and not cache_problems({**place, "free": 5})[0].broken


def test_a_dataset_that_raises_does_not_stop_the_report(quick, monkeypatch, capsys) -> None:
    from xretrieve.data import datasets

    def fail(name, root=None):
        raise ValueError("no such layout")

    monkeypatch.setattr(datasets, "found", fail)
    assert main(["doctor"]) == 0
    assert "Looking for dataset flickr8k failed: no such layout" in capsys.readouterr().out


def test_a_missing_data_root_is_a_note(quick, monkeypatch, tmp_path, capsys) -> None:
    monkeypatch.setenv("XRETRIEVE_DATA", str(tmp_path / "nowhere"))
    assert main(["doctor"]) == 0
    assert "There is no data root at" in capsys.readouterr().out


def test_the_hub_is_off_when_the_environment_says_so(monkeypatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert hub()["offline"] and hub()["because"][0] == "HF_HUB_OFFLINE"
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    monkeypatch.delenv("TRANSFORMERS_OFFLINE", raising=False)
    assert not hub()["offline"]


def test_a_probe_that_dies_says_why() -> None:
    assert probe("print('{\"a\": 1}')") == ({"a": 1}, "")
    assert probe("raise ImportError('gone')") == (None, "ImportError: gone")
    assert probe("import os; os._exit(9)") == (None, "the process ended with status 9")


@pytest.mark.slow
def test_this_machine_is_examined_for_real() -> None:
    report, problems = environment.examine()
    assert report["torch"] and not [p for p in problems if p.broken]
    assert all(isinstance(p, Problem) and p.do for p in problems)
