"""benchmarks/speed/composed.py at tiny sizes: both parts measure what they say."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("timm")

from benchmarks.speed.composed import grown, main, training  # noqa: E402
from tests.gallery_fakes import noise_photos, tiny_matcher  # noqa: E402
from xretrieve.gallery import Gallery  # noqa: E402
from xretrieve.gallery.store import Store  # noqa: E402

SMALL = ["dataset.options={train: 60, val: 12, test: 12, size: 48}", "stages.1.batch_size=8", "stages.1.epochs=9"]


@pytest.fixture(scope="module")
def gallery(tmp_path_factory):
    place = tmp_path_factory.mktemp("composed")
    matcher = tiny_matcher("dual")
    matcher.save(place / "run" / "matcher")
    from xretrieve.loading import load

    return Gallery.build(load(place / "run"), noise_photos(place / "photos", 5), place / "g.xr")


def test_the_first_copy_is_exact_and_the_others_are_like_it(gallery, tmp_path):
    large = Store.open(grown(gallery, 12, 0.1, tmp_path).path)
    own, made = Store.open(gallery.path).vectors(np.arange(5)), large.vectors(np.arange(12))
    assert made[:5] == pytest.approx(own, abs=1e-6)
    cosines = (made * own[np.arange(12) % 5]).sum(1)
    assert (cosines > 0.97).all() and (cosines[5:] < 0.99999).all()


def test_steps_are_counted_and_the_rate_is_that_of_the_median_step():
    found = training("composed/scenes-sum", 3, [*SMALL, "stages.1.skip=false"])
    assert found["steps"] == 3 and found["head"] == "sum" and found["batch"] == 8
    assert found["queries_per_cpu_s"] == pytest.approx(8000 / found["cpu_ms"])


def test_every_row_is_there(gallery, tmp_path, capsys):
    found = main(["--recipes", "--index", str(gallery.path), "--size", "20", "--queries", "3", "--indexes", "flat"])
    rows = ["model alone", "flat, picture and change", "flat, text alone"]
    assert [row["what"] for row in found["searching"]] == rows
    assert "flat, picture and change: p50" in capsys.readouterr().out
