"""An exported folder loads anywhere with equal scores, and its card says what was measured and nothing else."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
import yaml

import xretrieve as xr
from xretrieve.data.info import INFO
from xretrieve.evaluation import Report
from xretrieve.sharing import export

TEXTS = ["a red circle", "a large blue square beside a small green one"]


@pytest.fixture(scope="module")
def out(run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("export") / "shared"
    export(run, folder, name="hf-hub:me/tiny", license="cc-by-4.0")
    return folder


def test_an_exported_folder_scores_as_the_run_does(out: Path, run: Path, tmp_path: Path) -> None:
    moved = shutil.copytree(out, tmp_path / "elsewhere")
    mine, theirs = xr.load(run), xr.load(moved)
    data = xr.datasets.load("scenes", split="test", train=12, val=6, test=6, size=48)
    scores = [m.score(m.encode_texts(TEXTS), m.encode_images(data.images)) for m in (mine, theirs)]
    assert torch.equal(*scores) and theirs.fingerprint() == mine.fingerprint()


def test_every_number_of_the_card_is_one_of_the_report(out: Path, run: Path) -> None:
    card, report = (out / "README.md").read_text(), Report.load(run)
    for name in report.metrics:
        metric = report[name]
        low, high = metric.low, metric.high
        assert low is not None and high is not None
        interval = f"{low:.1f} to {high:.1f}"
        assert f"| {name} | {metric.value:.1f} | {interval} | {metric.queries} | {metric.gallery} |" in card
    assert str(report.metrics.setting) in card and "coverage 100 %" in card


def test_the_card_has_the_terms_of_the_data_the_licence_the_recipe_and_how_to_load(out: Path) -> None:
    card = (out / "README.md").read_text()
    header = yaml.safe_load(card.split("---")[1])
    assert header == {"library_name": "xretrieve", "tags": ["image-retrieval", "image_text"], "license": "cc-by-4.0"}
    assert INFO["scenes"].terms in card and "xr.load('hf-hub:me/tiny')" in card and "Twelve drawn pictures" in card
    recipe = yaml.safe_load(card.split("```yaml\n")[1].split("```")[0])
    assert recipe["head"]["name"] == "dual" and recipe == yaml.safe_load((out / "recipe.yaml").read_text())


def test_no_licence_is_invented(run: Path, tmp_path: Path) -> None:
    export(run, tmp_path / "out")
    card = (tmp_path / "out/README.md").read_text()
    assert "stated no licence" in card and "license:" not in card


def test_nothing_of_this_machine_is_shared(out: Path, run: Path, tmp_path: Path) -> None:
    """Places of files, single queries and pictures of the data stay here."""
    there = shutil.copytree(run, tmp_path / "run")
    recipe = yaml.safe_load((there / "recipe.yaml").read_text())
    recipe["dataset"]["root"], recipe["image"]["weights"] = "/home/me/data", "/home/me/weights.safetensors"
    (there / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    export(there, tmp_path / "out")
    texts = [p.read_text() for p in (tmp_path / "out").rglob("*") if p.suffix in (".md", ".json", ".yaml")]
    assert not any("/home/me" in text or str(run.parent) in text for text in texts)
    assert yaml.safe_load((tmp_path / "out/recipe.yaml").read_text())["image"]["weights"] == "weights.safetensors"
    results = json.loads((out / "results.json").read_text())
    assert "samples" not in results[0] and not list(out.glob("*.html"))


def test_a_report_of_other_weights_is_refused_and_nothing_is_left(run: Path, tmp_path: Path) -> None:
    there = shutil.copytree(run, tmp_path / "run")
    report = json.loads((there / "report.json").read_text())
    report["matcher"]["fingerprint"] = "other"
    report.pop("checksum")  # changed by hand, and said to be so
    (there / "report.json").write_text(json.dumps(report))
    with pytest.raises(xr.XRetrieveError, match="other weights.*xretrieve evaluate"):
        export(there, tmp_path / "out")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["run"]


def test_a_folder_that_is_there_is_replaced_only_when_asked(run: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out/mine.txt").write_text("keep")
    with pytest.raises(xr.XRetrieveError, match="--overwrite"):
        export(run, tmp_path / "out")
    assert (tmp_path / "out/mine.txt").is_file()
    export(run, tmp_path / "out", overwrite=True)
    assert not (tmp_path / "out/mine.txt").exists() and (tmp_path / "out/README.md").is_file()


def test_an_ensemble_is_shared_whole_as_a_folder_and_one_by_one_as_onnx(run: Path, tmp_path: Path) -> None:
    both = xr.Ensemble({"a": xr.load(run), "b": xr.load(run)}, name="pair")
    both.save(tmp_path / "pair")
    export(tmp_path / "pair", tmp_path / "out")
    back = xr.load(tmp_path / "out")
    assert isinstance(back, xr.Ensemble) and back.names == ["a", "b"] and back.fingerprint() == both.fingerprint()
    assert "no evaluation came with these weights" in (tmp_path / "out/README.md").read_text()
    with pytest.raises(xr.XRetrieveError, match="one at a time.*pair/members/a"):
        export(tmp_path / "pair", tmp_path / "onnx", "onnx")
    assert not (tmp_path / "onnx").exists()
