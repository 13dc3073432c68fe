"""Scores made token by token have a precision: the gallery's, else the matcher's own; reports say which one."""

from __future__ import annotations

import numpy as np
import pytest

from tests.gallery_fakes import noise_photos, tiny_matcher
from tests.test_gallery_tokens import COUNT, QUERY, check_ranked, exact
from xretrieve.data.base import RetrievalDataset
from xretrieve.errors import XRetrieveError
from xretrieve.evaluation import evaluate
from xretrieve.gallery import Gallery


@pytest.fixture(scope="module")
def sgr():
    return tiny_matcher("sgr")


@pytest.fixture
def photos(tmp_path):
    return noise_photos(tmp_path / "photos", COUNT)


def test_searches_score_in_the_precision_that_the_gallery_was_built_with(sgr, photos, tmp_path, monkeypatch):
    low = Gallery.build(sgr, photos, tmp_path / "low.xr", precision="bf16")
    assert low.info["precision"] == "bf16" and low.scored_in == "bf16 (asked for)"
    wanted, found = exact(sgr, low), {hit.id: hit.score for hit in low.search(QUERY, k=COUNT)}
    assert any(found[i] != wanted[i] for i in found) and found == pytest.approx(wanted, abs=0.05)
    own = Gallery.build(sgr, photos, tmp_path / "own.xr")
    assert "precision" not in own.info and own.scored_in == "float32 (auto: XRETRIEVE_PRECISION=32)"
    monkeypatch.setenv("XRETRIEVE_PRECISION", "bf16")
    assert {hit.id: hit.score for hit in own.search(QUERY, k=COUNT)} == found
    monkeypatch.setattr(sgr, "precision", "32")  # the matcher's own goes before auto
    check_ranked(own.search(QUERY, k=COUNT), wanted)
    with pytest.raises(XRetrieveError, match="unknown precision 'half'"):
        Gallery.build(sgr, photos, tmp_path / "half.xr", precision="half")


def test_a_report_says_what_scores_were_made_in_and_the_matcher_keeps_its_own(sgr, photos):
    files = sorted(photos.iterdir())
    names = [file.name for file in files]
    data = RetrievalDataset("tiny", "test", names, files, [QUERY[: 5 + i] for i in range(COUNT)], names,
                            np.arange(COUNT), COUNT, "")  # fmt: skip
    low, full = (evaluate(sgr, data, "full", bootstrap=0, precision=name) for name in ("bf16", "32"))
    assert low.precision == {"scored": "bf16 (asked for)"} and full.precision == {"scored": "float32 (asked for)"}
    assert "scored in bf16" in str(low) and "scored in" in low.page() and sgr.precision == "auto"
    assert low.to_dict()["precision"] == low.precision
    with pytest.raises(XRetrieveError, match="unknown precision 'bf61'; did you mean 'bf16'"):
        evaluate(sgr, data, "full", precision="bf61")
    assert sgr.precision == "auto"
