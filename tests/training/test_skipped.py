"""Pictures that cannot be read: training goes on without them and says so, once, in the run folder and the report."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from xretrieve.training import train
from xretrieve.training.recipe import BackboneConfig, DatasetConfig, HeadConfig, LossConfig, Recipe, StageConfig


def photos(root: Path, broken: dict[str, int]) -> None:
    """Six pictures per split; the first ``broken[split]`` of each cannot be read."""
    folder, rng, records = root / "flickr8k", np.random.default_rng(0), []
    (folder / "images").mkdir(parents=True)
    for split in ("train", "val", "test"):
        for i in range(6):
            name = f"{split}{i}.png"
            Image.fromarray(rng.integers(0, 255, (32, 32, 3), dtype=np.uint8)).save(folder / "images" / name)
            if i < broken.get(split, 0):
                (folder / "images" / name).write_bytes(b"" if i else b"\x89PNG cut short")
            sentences = [{"raw": f"picture {i} of {split}, text {j}", "tokens": []} for j in range(5)]
            records.append({"filename": name, "split": split, "sentences": sentences})
    (folder / "dataset_flickr8k.json").write_text(json.dumps({"dataset": "flickr8k", "images": records}))


def recipe(root: Path) -> Recipe:
    options = {"pretrained": False, "size": 32}
    return Recipe(
        name="tests/skipped",
        dataset=DatasetConfig("flickr8k", root=str(root)),
        image=BackboneConfig("timm:test_resnet", frozen=True, options=options),
        text=BackboneConfig("words", options={"min_count": 1, "word_dim": 8, "dim": 8}),
        head=HeadConfig("dual", {"dim": 8}),
        stages=[StageConfig(LossConfig("infonce"), epochs=1, batch_size=4, name=name) for name in ("one", "two")],
        protocol="full",
    )


def test_broken_training_pictures_are_named_once_and_kept_in_the_report(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    photos(tmp_path / "data", {"train": 4, "val": 1})
    run = train(recipe(tmp_path / "data"), out=tmp_path / "run")
    err = capsys.readouterr().err
    assert err.count("4 pictures of train could not be read") == 1, "said once, not in every stage"
    assert "train0.png" in err and "and 1 more in skipped.json" in err and "1 picture of val could" in err
    assert len(json.loads((tmp_path / "run/skipped.json").read_text())["train"]) == 4
    assert any("4 pictures of train" in line for line in run.report.warnings)
    assert "4 pictures of train" in (tmp_path / "run/report.html").read_text()
    train(recipe(tmp_path / "data"), out=tmp_path / "run", overwrite=True)
    assert "4 pictures of train" in capsys.readouterr().err, "a new run says it again"


def test_a_run_without_broken_pictures_says_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    photos(tmp_path / "data", {})
    run = train(recipe(tmp_path / "data"), out=tmp_path / "run")
    assert not run.report.warnings and not (run.folder / "skipped.json").exists()
    assert "could not be read" not in capsys.readouterr().err
