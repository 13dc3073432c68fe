"""Query sets of any captioned dataset: which sentences, in which order, and what becomes of images without one."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import xretrieve as xr
from xretrieve.data.base import Region, RetrievalDataset
from xretrieve.data.turns import QuerySets, query_sets, spoken
from xretrieve.errors import XRetrieveError


def make(owner: list[int], images: int = 4) -> RetrievalDataset:
    return RetrievalDataset(
        "toy",
        "test",
        [f"i{n}" for n in range(images)],
        [Path(f"{n}.jpg") for n in range(images)],
        [f"caption {c}" for c in range(len(owner))],
        [str(c) for c in range(len(owner))],
        np.array(owner),
        images,
        "toy",
    )


def test_sets_are_the_first_sentences_of_each_image_in_stored_order() -> None:
    sets = query_sets(make([2, 0, 2, 1, 2, 0]), 2)
    said = [sets.said(row) for row in range(3)]
    assert said == [["caption 1", "caption 5"], ["caption 3"], ["caption 0", "caption 2"]]
    assert sets.owner.tolist() == [0, 1, 2] and sets.ids == ["i0", "i1", "i2"] and sets.sizes.tolist() == [2, 1, 2]
    assert (sets.longest, sets.reached(1), sets.reached(2), sets.reached(3)) == (2, 3, 2, 0)
    assert sets.left_out == ("1 image has no sentence and no query set, but is in the gallery (first: i3)",)


def test_without_a_limit_all_sentences_are_turns() -> None:
    assert query_sets(make([2, 0, 2, 1, 2, 3])).sizes.tolist() == [1, 1, 3, 1]


def test_regions_are_the_turns_where_the_dataset_says_so() -> None:
    data = make([0, 1, 2, 3])
    data.regions = [[Region((0, 0, 1, 1), f"thing {n}{k}") for k in range(n)] for n in range(4)]
    assert query_sets(data).texts == data.captions
    data.turns = "regions"
    view = spoken(data)
    assert view.captions == ["thing 10", "thing 20", "thing 21", "thing 30", "thing 31", "thing 32"]
    assert view.caption_ids[:2] == ["i1@0", "i2@0"] and spoken(view) is view
    assert query_sets(data, 2).sizes.tolist() == [1, 2, 2] and len(data.captions) == 4
    data.regions = []
    with pytest.raises(XRetrieveError, match="no image has region captions"):
        query_sets(data)


def test_scenes_give_ten_different_region_captions() -> None:
    data = xr.datasets.load("scenes", split="test", train=4, val=4, test=12)
    sets = query_sets(data, 10)
    assert sets.sizes.tolist() == [10] * 12
    for row in range(12):
        assert len(set(sets.said(row))) == 10 and sets.said(row) == [r.text for r in data.regions[row]]


def test_what_cannot_be_a_set_is_an_error() -> None:
    with pytest.raises(XRetrieveError, match="turns=0"):
        query_sets(make([0]), 0)
    with pytest.raises(XRetrieveError, match="nothing to ask"):
        query_sets(make([]))
    with pytest.raises(XRetrieveError, match="'x' has no sentence"):
        QuerySets([], np.array([0]), np.array([0]), ["x"])
    with pytest.raises(XRetrieveError, match="do not fit together"):
        QuerySets(["a"], np.array([2]), np.array([0]), ["x"])


def test_flickr8k_gives_five_turns(data_root: Path) -> None:
    sets = query_sets(xr.datasets.load("flickr8k", data_root, "test"), 5)
    assert len(sets) == 1000 and set(sets.sizes.tolist()) == {5} and len(sets.texts) == 5000
