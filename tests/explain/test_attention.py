"""The numbers of an explanation: they sum to one over what is real, and say what the head computed."""

import json

import numpy as np
import pytest
import torch

from tests.heads.local_cases import images, make, texts
from xretrieve.backbones.places import Layout
from xretrieve.explain import attention_of, found_words


def pair(head, words=4, regions=5):
    """One caption and one picture, each padded further than it is long."""
    text = head.prepare_queries(texts([words], longest=6))
    image = head.prepare_gallery(images([regions], longest=8))
    return text, image


@pytest.mark.parametrize("case", ["scan", "scan-i2t-mean", "sgr", "saf-i2t", "tshsr"])
def test_weights_sum_to_one_over_real_tokens(case):
    head = make(case)
    told = attention_of(head, *pair(head, 4, 5), ["<start>", "a", "dog", "<end>"], Layout((1, 5)))
    assert told["words"] == ["<start>", "a", "dog", "<end>"] and told["regions"] == 5
    assert set(told["streams"]) == set(told["map"]) == set(head.streams)
    for stream, found in told["streams"].items():
        weights = np.array(found["weights"])
        assert weights.shape == ((4, 5) if stream == "t2i" else (5, 4)) and (weights >= 0).all()
        assert weights.sum(1) == pytest.approx(np.ones(len(weights)), abs=1e-5)
        assert weights.std() > 0.01, "weights that are all equal explain nothing"
        assert len(found["match"]) == len(weights) and np.abs(found["match"]).max() <= 1.0001
        assert sum(told["map"][stream]) == pytest.approx(1, abs=1e-5) and len(told["map"][stream]) == 5
    assert json.loads(json.dumps(told)) == told


def test_match_is_the_cosine_with_what_is_looked_at():
    head = make("tshsr")
    text, image = pair(head, 3, 4)
    told = attention_of(head, text, image)
    w, r = text.local[0, :3].detach().numpy(), image.local[0, :4].detach().numpy()

    def cosine(a, b):
        return (a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)

    words, regions = (np.array(told["streams"][s]["weights"]) for s in ("t2i", "i2t"))
    assert told["streams"]["t2i"]["match"] == pytest.approx(cosine(w, words @ r), abs=1e-4)
    assert told["streams"]["i2t"]["match"] == pytest.approx(cosine(r, regions @ w), abs=1e-4)
    heat = np.maximum(cosine(w, words @ r), 0) @ words
    assert told["map"]["t2i"] == pytest.approx(heat / heat.sum(), abs=1e-4)
    assert told["words"] == ["#1", "#2", "#3"] and told["layout"] is None, "what is not known is numbered"


def test_padding_and_holes_get_no_weight():
    head = make("tshsr")
    text, image = pair(head, 3, 5)
    image.mask[0, 2] = False
    told = attention_of(head, text, image)
    words, regions = (np.array(told["streams"][s]["weights"]) for s in ("t2i", "i2t"))
    assert not words[:, 2].any() and words.sum(1) == pytest.approx(np.ones(3), abs=1e-5)
    assert not regions[2].any() and regions[[0, 1, 3, 4]].sum(1) == pytest.approx(np.ones(4), abs=1e-5)
    assert told["map"]["t2i"][2] == told["map"]["i2t"][2] == 0


def test_the_weights_are_those_that_the_score_is_made_with():
    head = make("scan")  # t2i: the score is the pooled cosine of every word with what it looks at
    text, image = pair(head, 4, 5)
    match = torch.tensor(attention_of(head, text, image)["streams"]["t2i"]["match"])
    pooled = (head.lambda_lse * match).logsumexp(0) / head.lambda_lse
    assert pooled.item() == pytest.approx(head.score(text, image).item(), abs=1e-4)


def test_found_words_leave_markers_out():
    told = {"words": ["<start>", "dog", "<zorilla>", "snow"], "streams": {"t2i": {"match": [0.9, 0.5, 0.4, -0.2]}}}
    assert found_words(told) == [("dog", 0.5), ("snow", 0.0)]
    assert found_words({"words": ["dog"], "streams": {"i2t": {"match": [0.1]}}}) == []
