"""A pretrained model with a local weights file, from the first command to a reopened gallery: nothing is fetched."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import open_clip
import pytest
import torch
from PIL import Image

import xretrieve as xr
from xretrieve.cli.main import main

CONFIG = {
    "embed_dim": 16,
    "vision_cfg": {"image_size": 32, "layers": 1, "width": 64, "patch_size": 16},
    "text_cfg": {"context_length": 12, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 1},
}
MODEL = "open_clip:tiny-weights"


@pytest.fixture
def weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs/tiny-weights.json").write_text(json.dumps(CONFIG))
    open_clip.add_model_config(tmp_path / "configs")
    torch.manual_seed(0)
    torch.save(open_clip.create_model("tiny-weights").state_dict(), tmp_path / "w.pt")
    rng = np.random.default_rng(0)
    for i in range(4):
        (tmp_path / "photos").mkdir(exist_ok=True)
        Image.fromarray(rng.integers(0, 255, (40, 40, 3), dtype=np.uint8)).save(tmp_path / f"photos/{i}.png")
    monkeypatch.chdir(tmp_path)
    return tmp_path / "w.pt"


def test_a_gallery_remembers_the_weights_file(weights: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["index", "photos", "--model", MODEL, "--weights", "w.pt", "--no-cache", "--json"]) == 0
    made = json.loads(capsys.readouterr().out)["matcher"]
    assert made["source"] == MODEL and made["source_options"] == {"weights": str(weights.resolve())}
    assert main(["search", "photos.xr", "a dog", "--json"]) == 0  # no --model: the gallery loads it again
    hits = json.loads(capsys.readouterr().out)["hits"]
    assert main(["search", "photos.xr", "a dog", "--model", MODEL, "--weights", "w.pt", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["hits"] == hits
    assert len(xr.Gallery.open("photos.xr").search("a dog", k=2)) == 2
    assert main(["index", "photos", "--out", "photos.xr", "--add"]) == 0


def test_evaluate_takes_a_weights_file(weights: Path, flickr8k: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["evaluate", MODEL, "--weights", "w.pt", "--dataset", "flickr8k", "--root", str(flickr8k)]
    assert main([*words, "--protocol", "full", "--no-cache", "--json", "--bootstrap", "10"]) == 0
    assert json.loads(capsys.readouterr().out)["matcher"]["source"] == MODEL


@pytest.fixture
def flickr8k(tmp_path: Path) -> Path:
    """flickr8k in the Karpathy layout with three photos."""
    folder = tmp_path / "data/flickr8k"
    (folder / "images").mkdir(parents=True)
    records = []
    for i in range(3):
        Image.new("RGB", (20, 20), (80 * i, 0, 0)).save(folder / f"images/{i}.jpg")
        sentences = [{"raw": f"picture {i} caption {j}", "tokens": []} for j in range(5)]
        records.append({"filename": f"{i}.jpg", "split": "test", "sentences": sentences})
    (folder / "dataset_flickr8k.json").write_text(json.dumps({"dataset": "flickr8k", "images": records}))
    return tmp_path / "data"


@pytest.mark.parametrize(
    "words, said",
    [
        (["search", "photos.xr", "a dog", "--weights", "w.pt"], "--weights belongs to --model"),
        (["index", "photos", "--model", MODEL, "--weights", "none.pt", "--out", "x.xr"], "none.pt"),
        (["index", "photos", "--model", "run", "--weights", "w.pt", "--out", "x.xr"], "takes no options (weights)"),
    ],
)
def test_wrong_uses_are_one_line(
    weights: Path, words: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    xr.load(MODEL, weights=weights).save("run/matcher")
    if words[0] == "search":
        assert main(["index", "photos", "--model", MODEL, "--weights", "w.pt", "--no-cache"]) == 0
        capsys.readouterr()
    assert main(words) == 2
    err = capsys.readouterr().err
    assert said in err and err.count("\n") == 1
