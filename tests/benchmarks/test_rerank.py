"""benchmarks/quality/rerank.py on a tiny run: where the ranks come from."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from benchmarks.quality.rerank import main, ranks, reranked
from xretrieve.backbones import create_backbone
from xretrieve.errors import XRetrieveError
from xretrieve.matcher import Matcher, build_head


def test_ranks_count_ties_by_half() -> None:
    scores = torch.tensor([[1.0, 2.0, 2.0, 0.0]])
    assert [float(ranks(scores, torch.tensor([i]))[0]) for i in range(4)] == [2.0, 0.5, 0.5, 3.0]


def test_a_picture_outside_the_candidates_keeps_its_place_and_one_inside_gets_the_second_stage_s() -> None:
    first = torch.tensor([[5.0, 4.0, 3.0, 2.0], [5.0, 4.0, 3.0, 2.0]])
    candidates, second = torch.tensor([[0, 1], [0, 1]]), torch.tensor([[0.1, 0.9], [0.1, 0.9]])
    assert reranked(first, candidates, second, torch.tensor([1, 3])).tolist() == [0.0, 3.0]


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """An untrained SGR over scenes that says its coarse vectors are trained."""
    torch.manual_seed(0)
    image = create_backbone("timm:test_resnet", modality="image", pretrained=False, size=32, frozen=True)
    text = create_backbone("words", modality="text", captions=["a red ball left of a blue cube"] * 5, min_count=1,
                           word_dim=8, dim=8, frozen=True)  # fmt: skip
    for name, coarse in (("sgr", True), ("plain", False)):
        head = build_head("sgr", image, text, dim=8, sim_dim=4, coarse=coarse)
        Matcher(image, text, head, name).save(tmp_path / name)
    return tmp_path


def test_all_candidates_rank_as_all_pairs(run: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XRETRIEVE_CACHE", str(tmp_path / "cache"))
    import xretrieve as xr

    load = xr.datasets.load
    monkeypatch.setattr(xr.datasets, "load", lambda name, split: load(name, split=split, test=12))
    found = main([str(run / "sgr"), "--dataset", "scenes", "--tops", "3", "12", "--out", str(tmp_path / "r.json")])
    rows = {row["name"]: row for row in found["rows"]}
    assert [rows["top 12"][k] for k in ("r1", "r5", "r10")] == [rows["all pairs"][k] for k in ("r1", "r5", "r10")]
    assert (tmp_path / "r.json").is_file()
    with pytest.raises(XRetrieveError, match="no trained coarse vectors"):
        main([str(run / "plain"), "--dataset", "scenes"])
