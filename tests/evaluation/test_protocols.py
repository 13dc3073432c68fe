"""Protocols refuse splits that they do not describe."""

from __future__ import annotations

import numpy as np
import pytest

from xretrieve.errors import XRetrieveError
from xretrieve.evaluation.protocols import Protocol, get_protocol, list_protocols, register_protocol


def test_names_and_nearest_name():
    assert {"flickr-1k", "coco-5k", "coco-1k", "full"} <= set(list_protocols())
    with pytest.raises(XRetrieveError, match="did you mean 'flickr-1k'"):
        get_protocol("flickr1k")


def test_a_gallery_of_another_size_points_to_full():
    with pytest.raises(XRetrieveError, match="'full'"):
        get_protocol("flickr-1k").check(1014)
    assert get_protocol("flickr-1k").check(1000) == []
    assert "smaller gallery" in get_protocol("flickr-1k").check(990, coverage=0.99)[0]
    with pytest.raises(XRetrieveError, match="folds"):
        get_protocol("coco-1k").check(4999, coverage=0.9998)


def test_usual_protocol_of_a_dataset():
    usual = [
        get_protocol(None, *args).name
        for args in (("flickr30k", 1000), ("flickr30k", 1014), ("mscoco", 5000), ("scenes", 5000))
    ]
    assert usual == ["flickr-1k", "full", "coco-5k", "full"]


def test_first_caption_mode_keeps_one_column_per_image():
    assert Protocol("x", captions="first").columns(np.array([1, 0, 1, 0, 2])).tolist() == [0, 1, 4]
    assert get_protocol("full").columns(np.array([0, 0])) is None


def test_bad_protocols_are_refused():
    with pytest.raises(XRetrieveError, match="tie rule"):
        Protocol("x", ties="lucky")
    with pytest.raises(XRetrieveError, match="caption mode"):
        Protocol("x", captions="some")
    with pytest.raises(XRetrieveError, match="exists already"):
        register_protocol(Protocol("full"))
