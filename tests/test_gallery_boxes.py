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
