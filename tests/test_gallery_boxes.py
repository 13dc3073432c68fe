"""Galleries over features of stored boxes: explanations tell the boxes."""

import numpy as np
import pytest

import xretrieve as xr
from tests.gallery_fakes import tiny_matcher
from xretrieve.data.base import FeatureRow, RetrievalDataset
from xretrieve.gallery import Gallery

pytest.importorskip("timm")


@pytest.fixture
def boxed(tmp_path):
    """A gallery of pictures a, b, ... whose three regions have these boxes (N,3,4)."""

    def build(boxes):
        count = len(boxes)
        features = np.random.default_rng(0).standard_normal((count, 3, 6))
        np.save(tmp_path / "ims.npy", features.astype(np.float32))
        np.save(tmp_path / "boxes.npy", boxes)
        matcher = tiny_matcher("scan", image=xr.create_backbone("regions", dim=6, boxes=tmp_path / "boxes.npy"))
        rows = [FeatureRow(tmp_path / "ims.npy", i) for i in range(count)]
        data = RetrievalDataset("toy", "test", list("abcdef"[:count]), rows, [], [], np.array([]), count, "precomp")
        Gallery.build(matcher, data, tmp_path / "g.xr")
        return Gallery.open(tmp_path / "g.xr", matcher)

    return build


def test_boxes_of_precomputed_regions_are_told(boxed):
    ranking = boxed(np.arange(48).reshape(4, 3, 4)).search("a red dog", k=4)
    boxes = ranking.explain(ranking.ids.index("c"))["attention"]["layout"]["boxes"]
    assert boxes == [[24, 25, 26, 27], [28, 29, 30, 31], [32, 33, 34, 35]]


def test_the_page_gets_boxes_as_shares_of_their_own_extent_where_there_is_no_picture(boxed):
    pytest.importorskip("fastapi")
    from xretrieve.app.answers import explanation

    gallery = boxed(np.array([[[0, 0, 10, 20], [10, 0, 40, 40], [0, 0, 80, 50]]] * 2))
    told = explanation(gallery, xr.Text("a red dog"), "b")["attention"]["layout"]["boxes"]
    assert told == pytest.approx(np.array([[0, 0, 0.125, 0.4], [0.125, 0, 0.5, 0.8], [0, 0, 1, 1]]))
