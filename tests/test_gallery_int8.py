"""Galleries whose tokens are kept as int8: half the bytes, an error with a bound, and nothing lost over time."""

from __future__ import annotations

import json

import numpy as np
import pytest

import xretrieve as xr
from tests.gallery_fakes import noise_photos, tiny_matcher
from xretrieve.cli.main import main
from xretrieve.errors import XRetrieveError
from xretrieve.gallery import Gallery
from xretrieve.gallery.store import Store

pytest.importorskip("timm")
COUNT = 9
QUERY = "a red dog near yellow water"


@pytest.fixture(scope="module")
def sgr():
    return tiny_matcher("sgr")


@pytest.fixture
def photos(tmp_path):
    return noise_photos(tmp_path / "photos", COUNT)


@pytest.fixture
def small(sgr, photos, tmp_path):
    return Gallery.build(sgr, photos, tmp_path / "small.xr", tokens="int8")


def tokens_of(gallery):
    store = Store.open(gallery.path)
    return store.tokens([store.rows[id_] for id_ in sorted(store.rows)]).local


def part_of(gallery):
    (part,) = (gallery.path / "parts").iterdir()
    return part


def test_a_token_loses_at_most_half_a_step_and_takes_half_the_bytes(small, sgr, photos, tmp_path):
    large = Gallery.build(sgr, photos, tmp_path / "large.xr")
    kept, whole = tokens_of(small), tokens_of(large)
    step = whole.abs().amax(2, keepdim=True) / 127
    assert 0 < (kept - whole).abs().max() and ((kept - whole).abs() <= 0.51 * step + 1e-3 * whole.abs()).all()
    sizes = [np.load(part_of(one) / "local.npy").nbytes for one in (small, large)]
    assert 2 * sizes[0] == sizes[1] and small.info["tokens"]["dtype"] == "int8"
    exact, near = large.search(QUERY, k=COUNT), small.search(QUERY, k=COUNT)
    by_id = dict(zip(near.ids, near.scores, strict=True))
    moved = [abs(by_id[id_] - score) for id_, score in zip(exact.ids, exact.scores, strict=True)]
    assert max(moved) < 0.3 * np.std(exact.scores), "a model of random weights, larger than those of trained ones"


def test_adding_removing_and_merging_change_no_token(small, sgr, tmp_path):
    before, ids = tokens_of(small), sorted(small.ids)
    small.add(noise_photos(tmp_path / "more", 2, seed=5))
    small.save()
    again = Gallery.open(small.path, sgr)
    store = Store.open(again.path)
    assert (store.tokens([store.rows[id_] for id_ in ids]).local == before).all(), "rounding twice is rounding once"
    again.remove(ids[0])
    assert tokens_of(again).shape[0] == COUNT + 1


def test_what_is_missing_or_unknown_is_said(small, sgr, photos, tmp_path):
    with pytest.raises(XRetrieveError, match="float16"):
        Gallery.build(sgr, photos, tmp_path / "x.xr", tokens="int4")
    assert not (tmp_path / "x.xr").exists()
    (part_of(small) / "scales.npy").unlink()
    with pytest.raises(XRetrieveError, match="scales.npy is damaged: it is missing.*make it again"):
        Gallery.open(small.path)


def test_the_command_line_keeps_them_so(sgr, photos, tmp_path, capsys):
    sgr.save(tmp_path / "run" / "matcher")
    assert main(["index", str(photos), "--model", str(tmp_path / "run"), "--tokens", "int8", "--no-cache", "--json",
                 "--out", str(tmp_path / "g.xr")]) == 0  # fmt: skip
    assert json.loads(capsys.readouterr().out)["images"] == COUNT
    opened = xr.Gallery.open(tmp_path / "g.xr")
    assert opened.info["tokens"]["dtype"] == "int8" and len(opened.search(QUERY, k=3)) == 3
