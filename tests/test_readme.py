"""README.md cannot rot: its commands and its Python are run in a prepared folder, offline.

A model that would be downloaded is replaced by a tiny trained run, after its own words were parsed; the recipe
`image_text/scenes-dual` is a tiny one of the same name; the recipe over real photos is read, not trained.
"""

from __future__ import annotations

import importlib
import json
import re
import shlex
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from xretrieve.cli.main import VERBS, main

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
RUN = "runs/scenes-dual"
PRETRAINED = re.compile(r"open_clip:\S+")


def blocks(kind: str, text: str = README) -> list[str]:
    return re.findall(rf"^```{kind}\n(.*?)^```", text, re.M | re.S)


def commands(program: str, text: str = README) -> list[list[str]]:
    joined = "\n".join(blocks("sh", text)).replace("\\\n", " ")  # a line that ends in a backslash goes on in the next
    lines = [shlex.split(line, comments=True) for line in joined.splitlines()]
    return [words[1:] for words in lines if words[:1] == [program]]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with photos/, a tiny run, a tiny recipe of the README's name, and data/flickr8k with four photos."""
    folder = tmp_path_factory.mktemp("newcomer")
    rng = np.random.default_rng(0)
    names = ["beach.jpg", *(f"{i}.jpg" for i in range(11))]
    for name in names:
        (folder / "photos").mkdir(exist_ok=True)
        Image.fromarray(rng.integers(0, 255, (48, 64, 3), dtype=np.uint8)).save(folder / "photos" / name)
    images = folder / "data/flickr8k/images"
    images.mkdir(parents=True)
    records = []
    for i in range(1000):
        sentences = [{"raw": f"picture {i} in words {j}", "tokens": []} for j in range(5)]
        records.append({"filename": f"{i}.jpg", "split": "test", "sentences": sentences})
        if i < 4:
            (images / f"{i}.jpg").write_bytes((folder / f"photos/{i}.jpg").read_bytes())
    (images.parent / "dataset_flickr8k.json").write_text(json.dumps({"dataset": "flickr8k", "images": records}))
    recipe = {
        "name": "image_text/scenes-dual",
        "description": "tiny",
        "dataset": {"name": "scenes", "options": {"train": 12, "val": 6, "test": 6, "size": 48}},
        "image": {"backbone": "timm:test_resnet", "frozen": True, "options": {"pretrained": False, "size": 32}},
        "text": {"backbone": "words", "options": {"min_count": 1, "word_dim": 8, "dim": 8}},
        "head": {"name": "dual", "options": {"dim": 8}},
        "stages": [{"epochs": 1, "batch_size": 8, "loss": {"name": "infonce"}}],
        "protocol": "full",
    }
    (folder / "tasks/image_text").mkdir(parents=True)
    (folder / "tasks/image_text/scenes-dual.yaml").write_text(yaml.safe_dump(recipe))
    return folder


@pytest.fixture(autouse=True)
def _here(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(place)
    monkeypatch.setenv("XRETRIEVE_DATA", "data")
    if not (place / RUN / "report.json").is_file():
        assert main(["train", "image_text/scenes-dual"]) == 0


def test_every_command_of_the_readme_runs(capsys: pytest.CaptureFixture[str]) -> None:
    told = commands("xretrieve")
    assert {words[0] for words in told} >= {"index", "search", "train", "evaluate", "compare", "data", "doctor"}
    for words in told:
        parse(words)
        run = [PRETRAINED.sub(RUN, word) for word in words]
        if run[:2] == ["train", "image_text/flickr8k-dual"]:
            from xretrieve.training import load_recipe

            load_recipe(run[1], run[2:])
            continue
        if run[0] == "serve":  # runs until it is stopped: tests/app/test_serve.py
            assert Path(run[1], "gallery.json").is_file()
            continue
        if run[0] == "doctor":  # seconds of imports; tests/cli/test_doctor.py runs it
            continue
        if run[0] == "train" and "--list" not in run:
            run.append("--overwrite")
        status = main(run)
        said = capsys.readouterr()
        allowed = (0, 1) if run[:2] == ["data", "check"] else (0,)
        assert status in allowed, f"xretrieve {shlex.join(words)}: {said.err}"


def parse(words: list[str]) -> None:
    """The command line as written, without running it."""
    from typer.main import get_command

    command = get_command(importlib.import_module(VERBS[words[0]][0]).app)
    command.make_context(words[0], list(words[1:]))


@pytest.mark.parametrize("page", sorted(ROOT.glob("tasks/*/README.md")), ids=lambda page: page.parent.name)
def test_commands_of_the_task_pages_parse_and_their_recipes_take_the_keys(page: Path) -> None:
    from xretrieve.training import load_recipe

    for words in commands("xretrieve", page.read_text(encoding="utf-8")):
        parse(words)
        if words[0] == "train" and not words[1].startswith("-"):
            load_recipe(words[1], [word for word in words[2:] if "=" in word and not word.startswith("-")])


def test_the_python_of_the_readme_runs(capsys: pytest.CaptureFixture[str]) -> None:
    (code,) = blocks("python")
    exec(compile(code, "README.md", "exec"), {"__name__": "readme"})
    out = capsys.readouterr().out
    assert "1 " in out and "parts" in out
    assert Path("mine.xr/gallery.json").is_file() and Path("runs/other-seed/report.json").is_file()


def test_make_targets_exist() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.M))
    assert {words[0] for words in commands("make")} == {"demo", "test"} <= targets


def test_the_table_names_every_verb() -> None:
    assert set(re.findall(r"^\| `xretrieve (\w+)`", README, re.M)) == set(VERBS)


def test_folders_that_are_named_exist() -> None:
    for name in re.findall(r"^\| `(\w+)/` \|", README, re.M):
        assert (ROOT / name).is_dir(), name
