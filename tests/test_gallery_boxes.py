"""Galleries over features of stored boxes: explanations tell the boxes."""

import numpy as np
import pytest

import xretrieve as xr
from tests.gallery_fakes import tiny_matcher
from xretrieve.data.base import FeatureRow, RetrievalDataset
from xretrieve.gallery import Gallery

pytest.importorskip("timm")


def test_boxes_of_precomputed_regions_are_told(tmp_path):
    rng = np.random.default_rng(0)
    np.save(tmp_path / "ims.npy", rng.standard_normal((4, 3, 6)).astype(np.float32))
    np.save(tmp_path / "boxes.npy", np.arange(48).reshape(4, 3, 4))
    matcher = tiny_matcher("scan", image=xr.create_backbone("regions", dim=6, boxes=tmp_path / "boxes.npy"))
    rows = [FeatureRow(tmp_path / "ims.npy", i) for i in range(4)]
    data = RetrievalDataset("toy", "test", list("abcd"), rows, [], [], np.array([]), 4, "precomp")
    Gallery.build(matcher, data, tmp_path / "g.xr")
    ranking = Gallery.open(tmp_path / "g.xr", matcher).search("a red dog", k=4)
    boxes = ranking.explain(ranking.ids.index("c"))["attention"]["layout"]["boxes"]
    assert boxes == [[24, 25, 26, 27], [28, 29, 30, 31], [32, 33, 34, 35]]


def test_the_page_gets_boxes_as_shares_of_the_picture_or_of_their_own_extent(tmp_path):
    pytest.importorskip("fastapi")
    from xretrieve.app.answers import explanation

    rng = np.random.default_rng(0)
    np.save(tmp_path / "ims.npy", rng.standard_normal((2, 3, 6)).astype(np.float32))
    np.save(tmp_path / "boxes.npy", np.array([[[0, 0, 10, 20], [10, 0, 40, 40], [0, 0, 80, 50]]] * 2))
    matcher = tiny_matcher("scan", image=xr.create_backbone("regions", dim=6, boxes=tmp_path / "boxes.npy"))
    rows = [FeatureRow(tmp_path / "ims.npy", i) for i in range(2)]
    data = RetrievalDataset("toy", "test", list("ab"), rows, [], [], np.array([]), 2, "precomp")
    gallery = Gallery.build(matcher, data, tmp_path / "g.xr")
    told = explanation(gallery, xr.Text("a red dog"), "b")["attention"]["layout"]["boxes"]  # no file: its boxes' extent
    assert told == pytest.approx(np.array([[0, 0, 0.125, 0.4], [0.125, 0, 0.5, 0.8], [0, 0, 1, 1]]))
