"""`xretrieve train`: list, run, JSON only on stdout, and errors of one line."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import yaml

from xretrieve.cli.main import main


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    folder = tmp_path / "data/f30k_precomp"
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for split in ("train", "dev", "test"):
        np.save(folder / f"{split}_ims.npy", rng.standard_normal((8, 3, 6)).astype(np.float32))
        (folder / f"{split}_caps.txt").write_text(
            "".join(f"picture {i // 5} of {split}\n" for i in range(40)), encoding="utf-8"
        )
    values = {
        "name": "mine/tiny",
        "dataset": {"name": "flickr30k", "root": str(tmp_path / "data"), "layout": "precomp"},
        "image": {"backbone": "regions", "frozen": True, "options": {"dim": 6}},
        "text": {"backbone": "words", "options": {"min_count": 1, "word_dim": 8, "dim": 8}},
        "head": {"name": "dual", "options": {"dim": 8}},
        "protocol": "full",
        "expect": {"rsum": [601, 602]},
        "stages": [{"epochs": 1, "batch_size": 8, "loss": {"name": "hinge"}}],
    }
    path = tmp_path / "tiny.yaml"
    path.write_text(yaml.safe_dump(values), encoding="utf-8")
    return path


def test_a_run_from_the_command_line(recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", str(recipe), "seed=2", "stages.0.lr=1e-4", "--out", str(tmp_path / "run"), "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["folder"] == str(tmp_path / "run") and len(said["log"]) == 1 and "rsum" in said["missed"]
    assert yaml.safe_load((tmp_path / "run/recipe.yaml").read_text())["seed"] == 2
    assert main(["train", str(recipe), "seed=2", "stages.0.lr=1e-4", "--out", str(tmp_path / "run"), "--resume"]) == 0
    out = capsys.readouterr()
    assert "run folder:" in out.out and "not met: rsum" in out.err


def test_the_list_names_the_shipped_recipes(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "--list"]) == 0
    assert "image_text/flickr8k-dual" in capsys.readouterr().out
    assert main(["train", "--list", "--json"]) == 0
    assert {"image_text/scenes-dual"} <= {row["name"] for row in json.loads(capsys.readouterr().out)}


@pytest.mark.parametrize(
    "words, said",
    [
        (["image_text/flickr8k-dula"], "did you mean 'image_text/flickr8k-dual'"),
        (["image_text/flickr8k-dual", "stages.0.lrr=1"], "did you mean 'lr'"),
        (["image_text/flickr8k-dual", "seed"], "write key=value"),
        ([], "xretrieve train --list"),
    ],
)
def test_bad_input_is_one_line(words: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", *words]) == 2
    err = capsys.readouterr().err
    assert said in err and err.count("\n") == 1
