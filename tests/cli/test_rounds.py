"""Query sets on the command line: evaluate a model under a protocol of rounds, another combination, compare."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from xretrieve.backbones import create_backbone
from xretrieve.cli.main import main
from xretrieve.evaluation import Report
from xretrieve.matcher import Matcher, build_head

WORDS = "dog cat tree car house boat bird fish red blue green big".split()


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A test split of 14 images in the precomp layout, whose captions are distinct word pairs."""
    folder = tmp_path / "data" / "f30k_precomp"
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    np.save(folder / "test_ims.npy", rng.standard_normal((14, 3, 6)).astype(np.float32))
    captions = [" ".join(rng.permutation(WORDS)[:3]) for _ in range(70)]
    (folder / "test_caps.txt").write_text("\n".join(captions) + "\n")
    return tmp_path / "data"


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A matcher with start weights."""
    torch.manual_seed(0)
    image = create_backbone("regions", dim=6)
    text = create_backbone("words", captions=WORDS, min_count=1, word_dim=8, dim=8)
    matcher = Matcher(image, text, build_head("dual", image, text, dim=8), name="a dual")
    return matcher.save(tmp_path / "run/matcher").parent


def evaluate(run: Path, root: Path, *more: str) -> int:
    return main(["evaluate", str(run), "--dataset", "flickr30k", "--root", str(root), "--layout", "precomp",
                 "--bootstrap", "50", *more])  # fmt: skip


def test_rounds_are_evaluated_printed_and_compared(
    run: Path, root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert evaluate(run, root, "--protocol", "rounds", "--out", str(tmp_path / "a")) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "14 query sets of up to 5 sentences" in said and "rsum of round 5" in said
    fused = ["--protocol", "rounds", "--combine", "rank_fusion", "--out", str(tmp_path / "b"), "--json"]
    assert evaluate(run, root, *fused) == 0
    values = json.loads(capsys.readouterr().out)
    assert values["about"]["sets are scored by"] == "rank fusion" and values["name"].endswith("rank fusion")
    assert len(values["rounds"]) == 5
    assert "recall by round" in (tmp_path / "b/report.html").read_text()
    assert main(["compare", str(tmp_path / "a"), str(tmp_path / "b"), "--json", "--bootstrap", "50"]) == 0
    found = json.loads(capsys.readouterr().out)["differences"]
    one, last = (Report.load(tmp_path / name) for name in "ab")
    assert found["round1_r1"]["difference"] == 0  # one sentence: the mean and the fusion rank alike
    assert found["round5_meanr"]["difference"] == last["round5_meanr"].value - one["round5_meanr"].value
    assert main(["compare", str(tmp_path / "a"), str(tmp_path / "b")]) == 0
    assert "round5_r10" in capsys.readouterr().out


def test_another_protocol_does_not_replace_the_runs_own_report(
    run: Path, root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (run / "recipe.yaml").write_text(
        f"name: x/own\ntask: multi_query\nprotocol: rounds\ndataset: {{name: flickr30k, root: '{root}'}}\n"
        "combine: mean_similarity\n"
    )
    assert evaluate(run, root) == 0 and Report.load(run).protocol.name == "rounds"
    assert Report.load(run).to_dict()["about"]["sets are scored by"] == "mean similarity"
    assert evaluate(run, root, "--combine", "paragraph") == 0
    assert evaluate(run, root, "--protocol", "full") == 0
    assert Report.load(run).to_dict()["about"]["sets are scored by"] == "mean similarity"
    assert Report.load(run / "flickr30k-test-rounds-paragraph").name == "x/own, paragraph"
    assert Report.load(run / "flickr30k-test-full").protocol.name == "full"


def test_wrong_names_are_said_at_once(run: Path, root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert evaluate(run, root, "--protocol", "rounds", "--combine", "rank-fusion") == 2
    assert "did you mean 'rank_fusion'" in capsys.readouterr().err
    assert evaluate(run, root, "--protocol", "flickr30k-5") == 2
    assert "ranks 1000 images, this split has 14; use the protocol 'rounds'" in capsys.readouterr().err
    assert evaluate(run, root, "--protocol", "full", "--combine", "rank_fusion") == 2
    assert "is for query sets" in capsys.readouterr().err
