"""`xretrieve export`, and the page that tells of it."""

from __future__ import annotations

import importlib
import json
import shutil
from pathlib import Path

import pytest
from typer.main import get_command

import xretrieve as xr
from tests.docs.pages import ROOT, blocks, commands
from tests.sharing.hub_server import Hub
from xretrieve.cli.main import VERBS, main

PAGE = (ROOT / "docs/sharing.md").read_text(encoding="utf-8")


@pytest.fixture(autouse=True)
def _here(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copytree(run, "runs/scenes-dual")


def test_the_commands_of_the_page_run_and_its_python_loads_what_they_wrote(
    hub: Hub, capsys: pytest.CaptureFixture[str]
) -> None:
    from PIL import Image

    Path("photos").mkdir()
    Image.new("RGB", (48, 48), "red").save("photos/red.png")
    for words in commands(PAGE):
        get_command(importlib.import_module(VERBS[words[0]][0]).app).make_context(words[0], list(words[1:]))
        if "--onnx" not in words:  # tests/sharing/test_graphs.py
            assert main(words) == 0, capsys.readouterr().err
    (code,) = [block for block in blocks(PAGE) if block.kind == "python"]
    exec(compile(code.text, "sharing.md", "exec"), {"__name__": "sharing"})
    said = capsys.readouterr().out
    assert "load it: xr.load('hf-hub:me/scenes-dual')" in said and said.rstrip().endswith("red.png")
    assert isinstance(xr.load("hf-hub:me/scenes-dual"), xr.Matcher)


def test_json_says_where_it_lies_and_nothing_else(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["export", "runs/scenes-dual", "--folder", "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    files = [path for path in Path("scenes-dual-export").rglob("*") if path.is_file()]
    assert said["out"] == "scenes-dual-export" and said["load"] == "xr.load('scenes-dual-export')"
    assert said["files"] == len(files) and said["bytes"] == sum(path.stat().st_size for path in files)


@pytest.mark.parametrize(
    "words, told",
    [
        (["runs/scenes-dual", "--folder", "--onnx"], "not both"),
        (["runs/scenes-dual", "--private"], "--hub"),
        (["runs/scenes-dual", "--hub", "scenes-dual"], "OWNER/NAME"),
        (["runs/nothing"], "no run folder 'runs/nothing'"),
    ],
)
def test_bad_input_is_one_line_and_leaves_nothing(
    words: list[str], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["export", *words]) == 2
    said = capsys.readouterr()
    assert told in said.err and not said.out and sorted(p.name for p in Path().iterdir()) == ["runs"]


def test_an_upload_that_fails_leaves_no_folder_behind(
    hub: Hub, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HF_TOKEN", "wrong")
    assert main(["export", "runs/scenes-dual", "--hub", "me/tiny"]) == 2
    assert "hf auth login" in capsys.readouterr().err and sorted(p.name for p in Path().iterdir()) == ["runs"]
