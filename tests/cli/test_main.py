"""The verb table: help is quick because nothing heavy is imported; wrong verbs name the nearest."""

from __future__ import annotations

import ast
import errno
import importlib
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from xretrieve.cli.main import VERBS, main
from xretrieve.version import __version__

ROOT = Path(__file__).resolve().parents[2]
HEAVY = ("torch", "numpy", "matplotlib", "typer", "rich", "timm", "transformers", "faiss", "PIL", "yaml")


def run(*args: str) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run([sys.executable, *args], capture_output=True, text=True, env=env, timeout=120)


@pytest.mark.parametrize("flag", ["--help", "--version"])
def test_help_and_version_import_nothing_heavy(flag) -> None:
    code = (
        f"import sys, runpy; sys.argv = ['xretrieve', {flag!r}]\n"
        "try: runpy.run_module('xretrieve', run_name='__main__')\n"
        "except SystemExit as stop: assert not stop.code\n"
        f"print('loaded:', [m for m in sys.modules if m in {HEAVY!r} or m.split('.')[0] == 'xretrieve'])"
    )
    done = run("-c", code)
    assert done.returncode == 0, done.stderr
    loaded = done.stdout.splitlines()[-1].removeprefix("loaded: ")
    assert set(ast.literal_eval(loaded)) <= {"xretrieve", "xretrieve.cli", "xretrieve.cli.main", "xretrieve.version"}


def test_help_answers_in_half_a_second() -> None:
    def seconds() -> float:
        start = time.perf_counter()
        assert run("-m", "xretrieve", "--help").returncode == 0
        return time.perf_counter() - start

    assert min(seconds() for _ in range(5)) < 0.5  # the quickest of five: other work on the machine is not ours


def test_the_package_runs_as_a_module() -> None:
    done = run("-m", "xretrieve", "--version")
    assert (done.returncode, done.stdout, done.stderr) == (0, f"{__version__}\n", "")


def test_help_names_every_verb(capsys) -> None:
    assert main(["--help"]) == 0
    out = capsys.readouterr().out
    assert all(verb in out for verb in VERBS)
    assert main([]) == 0 and capsys.readouterr().out == out


def test_an_unknown_verb_names_the_nearest(capsys) -> None:
    assert main(["serch", "x"]) == 2
    said = capsys.readouterr()
    assert "did you mean 'search'" in said.err and said.out == "" and "Traceback" not in said.err


def test_version_is_printed_alone(capsys) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"{__version__}\n"


def test_an_unknown_option_is_one_line_and_status_2(capsys) -> None:
    assert main(["doctor", "--jsno"]) == 2
    said = capsys.readouterr().err
    assert "--jsno" in said and len(said.strip().splitlines()) == 1


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_can_be_imported_without_torch_and_says_help(verb, capsys) -> None:
    module = VERBS[verb][0]
    assert hasattr(importlib.import_module(module), "app")
    assert main([verb, "--help"]) == 0
    assert "Usage" in capsys.readouterr().out
    done = run("-c", f"import sys, {module}; print([m for m in ('torch', 'matplotlib', 'faiss') if m in sys.modules])")
    assert done.stdout.strip() == "[]", done.stderr


@pytest.mark.parametrize("words", [["--help"], ["train", "--list", "--json"]])
def test_a_reader_that_stops_reading_ends_it_silently(words) -> None:
    reader, writer = os.pipe()
    os.close(reader)  # as `| head` does once it has its lines
    done = subprocess.run([sys.executable, "-m", "xretrieve", *words], stdout=writer, stderr=subprocess.PIPE, text=True,
                          env={**os.environ, "PYTHONPATH": str(ROOT)}, timeout=120, check=False)  # fmt: skip
    os.close(writer)
    assert done.stderr == "" and done.returncode in (1, 141)


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO, errno.ESTALE])
def test_a_disk_that_cannot_is_one_sentence_and_status_2(number, monkeypatch, capsys) -> None:
    def app(*_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number), "/some/file")

    monkeypatch.setattr("xretrieve.cli.doctor.app", app)
    assert main(["doctor"]) == 2
    assert capsys.readouterr().err == f"error: /some/file: {os.strerror(number)}\n"


def test_an_output_that_is_full_is_one_sentence_and_status_2() -> None:
    words, where = [sys.executable, "-m", "xretrieve", "--help"], {**os.environ, "PYTHONPATH": str(ROOT)}
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            words, stdout=full, stderr=subprocess.PIPE, text=True, env=where, timeout=120, check=False
        )
    assert (done.returncode, done.stderr) == (2, "error: cannot write the output: No space left on device\n")
