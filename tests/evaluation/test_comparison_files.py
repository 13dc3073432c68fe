"""`compare` looks at the texts under the ids and pairs region files with photos; COCO says which captions it took."""

from __future__ import annotations

import numpy as np
import pytest

from xretrieve.errors import XRetrieveError
from xretrieve.evaluation import evaluate_scores
from xretrieve.evaluation.comparison import compare
from xretrieve.evaluation.data_digests import data_digests
from xretrieve.evaluation.protocols import get_protocol

TEXTS = ["A dog's ball.", "two cats", "snow", "a red car"]


def report(ids=("a", "b"), texts=TEXTS, metadata=(), seed=0):
    scores = np.random.default_rng(seed).normal(size=(2, 4)).astype(np.float32)
    made = evaluate_scores(scores, [0, 0, 1, 1], image_ids=ids, caption_ids=[f"{ids[0]}{c}" for c in range(4)],
                           bootstrap=0)  # fmt: skip
    made.dataset |= data_digests(list(ids), list(metadata), texts)
    return made


def test_other_texts_under_the_same_ids_are_refused():
    assert compare(report(), report(seed=1), resamples=20).warnings == []
    with pytest.raises(XRetrieveError, match="under the same ids the texts differ"):
        compare(report(), report(texts=[*TEXTS[:3], "a blue car"]), resamples=20)
    old = report()
    del old.dataset["texts"]
    assert compare(old, report(), resamples=20).warnings == [], "reports of older versions say nothing of texts"


def test_regions_and_photos_of_one_split_are_compared():
    photos = report(("COCO_val2014_000000000009.jpg", "x/COCO_val2014_000000000025.jpg"))
    regions = report(("9", "25"), ["a dog 's ball .", "two cats", "snow", "a red car"], seed=1)
    assert compare(photos, regions, resamples=20).warnings == []
    flickr = report(("0", "1"), metadata=[{"filename": "9.jpg"}, {"filename": "25.jpg"}])
    assert compare(flickr, regions, resamples=20).warnings == []
    (warning,) = compare(photos, report(("9", "25"), ["x", *TEXTS[1:]]), resamples=20).warnings
    assert "the texts differ" in warning
    with pytest.raises(XRetrieveError, match="image 0 is"):
        compare(photos, report(("9", "26")), resamples=20)


def test_coco_says_which_captions_it_counted():
    protocol = get_protocol("coco-5k")
    assert "protocol coco-5k-25000" in protocol.told("mscoco", 5000, 25010)[0]
    assert protocol.told("mscoco", 5000, 25000) == [] == get_protocol("full").told("mscoco", 5000, 25010)
    owner = np.array([0] * 7 + [1] * 5 + [2] * 6)
    assert get_protocol("coco-5k-25000").columns(owner).tolist() == [0, 1, 2, 3, 4, *range(7, 17)]
    assert get_protocol("coco-1k-25000").folds == 5 and get_protocol("coco-1k").columns(owner) is None
    mixed = np.array([1, 0, 1, 1, 1, 1, 1, 0])
    assert get_protocol("coco-5k-25000").columns(mixed).tolist() == [0, 1, 2, 3, 4, 5, 7]
