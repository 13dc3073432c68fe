"""The table of published figures is typed by hand: its own sums must agree."""

from __future__ import annotations

import pytest

from xretrieve.evaluation.published import published_rows


@pytest.mark.parametrize("key", [("flickr30k", "flickr-1k"), ("mscoco", "coco-1k"), ("mscoco", "coco-5k")])
def test_every_rsum_is_the_sum_of_its_recalls(key):
    rows = published_rows(*key)
    assert len(rows) >= 8
    for row in rows:
        recalls = [v for name, v in row.values.items() if name != "rsum"]
        assert len(recalls) in (4, 6) and all(0 < v <= 100 for v in recalls), row
        if "rsum" in row.values and len(recalls) == 6:
            assert row.values["rsum"] == pytest.approx(sum(recalls), abs=0.6), row  # printed figures are rounded
