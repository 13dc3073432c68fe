"""An average of matchers over query sets: every round is the mean of the members' rounds."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

import xretrieve as xr
from xretrieve.backbones import create_backbone
from xretrieve.data.base import FeatureRow, RetrievalDataset
from xretrieve.ensemble import Ensemble
from xretrieve.errors import XRetrieveError
from xretrieve.matcher import Matcher, build_head

SETS = [["a red square", "a star", "two stars"], ["a blue circle"], ["one yellow star", "a square"]]


@pytest.fixture
def rows(tmp_path: Path) -> list[FeatureRow]:
    np.save(tmp_path / "x_ims.npy", np.random.default_rng(0).standard_normal((5, 3, 6)).astype(np.float32))
    return [FeatureRow(tmp_path / "x_ims.npy", i) for i in range(5)]


def member(direction: str, seed: int) -> Matcher:
    torch.manual_seed(seed)
    image = create_backbone("regions", dim=6)
    text = create_backbone("sentences", captions=[t for s in SETS for t in s], min_count=1, word_dim=8, dim=8)
    head = build_head("hmrn", image, text, dim=8, sim_dim=5, direction=direction, weight_horizon=3)
    return Matcher(image, text, head, name=direction)


def test_rounds_are_averaged_before_anything_is_ranked(rows: list[FeatureRow]) -> None:
    parts = {name: member(name, seed) for seed, name in enumerate(("t2i", "i2t"))}
    both = Ensemble(parts)
    found = both.score_rounds(both.encode_sets(SETS), both.encode_images(rows))
    assert found.shape == (3, 5, 3)  # rounds x images x sets
    alone = [m.score_rounds(m.encode_sets(SETS), m.encode_images(rows)) for m in parts.values()]
    torch.testing.assert_close(found, (alone[0] + alone[1]) / 2)
    assert not torch.allclose(alone[0], alone[1])
    last = both.score(both.encode_sets(SETS), both.encode_images(rows))
    torch.testing.assert_close(last, found[-1].T)


def test_an_average_is_evaluated_round_by_round_and_says_what_it_is(rows: list[FeatureRow]) -> None:
    texts = [f"{text} {i}" for i in range(5) for text in ("a red square", "a star")]
    data = RetrievalDataset("toy", "test", list("abcde"), rows, texts, [str(i) for i in range(10)],
                            np.repeat(np.arange(5), 2), 5, "toy")  # fmt: skip
    both = Ensemble({name: member(name, seed) for seed, name in enumerate(("t2i", "i2t"))}, name="both")
    report = xr.evaluate(both, data, "rounds", bootstrap=0)
    assert report.name == "both*" and report.about["direction"] == "t2i + i2t (ensemble)"
    assert report.about["H (rounds of the round weight)"] == "3 (ensemble)"
    assert report.about["regions per image"] == "3.0"


def test_an_empty_set_or_a_plain_string_is_refused() -> None:
    both = Ensemble({name: member(name, seed) for seed, name in enumerate(("t2i", "i2t"))})
    wrong = (([], "the list of query sets is empty"), ([["a"], []], "query set 1"), (["a dog"], "query set 0"))
    for sets, said in wrong:
        for matcher in (both, both.members[0]):
            with pytest.raises(XRetrieveError, match=said):
                matcher.encode_sets(sets)
