"""Weights for each attribute: against a plain loop, one length for all gallery vectors, and what readers learn from."""

from __future__ import annotations

import math

import pytest
import torch
from torch.testing import assert_close

from xretrieve.errors import XRetrieveError
from xretrieve.heads import create_head
from xretrieve.heads.attribute_reading import longest
from xretrieve.heads.composed import raw_of, unit
from xretrieve.tokens import Tokens

VALUES = {"colour": ["red", "blue", "green"], "article": ["shirt", "shoe"]}
WIDTH, D = 7, 4


def build(values=VALUES, **options):
    torch.manual_seed(0)
    base = {"dim": D, "residual": False, "hidden": 8, "attributes": values, "sides": {"projection": "perceptron"}}
    return create_head("progressive", image_dim=WIDTH, text_dim=WIDTH, **{**base, **options}).eval()


def moved(head, size=0.5):
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in head.parameters():
            parameter.add_(size * torch.randn_like(parameter))
    return head


def tokens(count, seed):
    return Tokens.from_pooled(torch.randn(count, WIDTH, generator=torch.Generator().manual_seed(seed)))


def made(head, count=5):
    return head.prepare_gallery(tokens(count, 2)), head.prepare_queries(tokens(count, 3)), tokens(9, 4)


def test_a_score_is_the_weighted_log_probability_of_what_is_asked_for():
    head = moved(build())
    image, text, others = made(head)
    gallery = head.prepare_gallery(others)
    reading, floor = head.reading, head.reading.options.floor
    weights = head.compose(image, text).trace["attribute_weights"]  # (B,2,3)
    slow = torch.zeros(5, 9)
    for b in range(5):
        for g in range(9):
            u, s, x = (raw_of(p)[row] for p, row in ((image, b), (text, b), (gallery, g)))
            a = reading.importance.exp()
            asked = a[0] * (weights[b, 0, 0] * unit(u[:D]) + weights[b, 1, 0] * unit(s[:D]))
            slow[b, g] = asked @ unit(x[:D])
            start = D
            for k, size in enumerate((3, 2), start=1):
                p, t, y = (z[start : start + size].softmax(0) for z in (u, s, x))
                for v in range(size):
                    mixed = weights[b, 0, k] * p[v] + weights[b, 1, k] * t[v]
                    slow[b, g] += a[k] * mixed * math.log(1 + y[v].item() / floor)
                start += size
    fast = head.score(head.combine_image_text(image, text), gallery)
    ratio = slow / fast  # the same for all pictures of a query: only the length of the query differs
    assert_close(ratio, ratio[:, :1].expand_as(ratio), rtol=1e-4, atol=0)
    assert bool((ratio > 0).all())


@pytest.mark.parametrize("size", [0.0, 0.5, 30.0])
def test_gallery_vectors_and_queries_have_unit_length_whatever_is_read(size):
    head = moved(build(), size)
    with torch.no_grad():
        head.reading.importance.clamp_(-3, 3)
    image, text, others = made(head)
    gallery = head.prepare_gallery(others).pooled
    assert gallery.shape == (9, D + 5 + 1) and bool((gallery[:, -1] >= 0).all())
    for vectors in (gallery, head.combine_image_text(image, text).pooled, head.image_query(image).pooled, text.pooled):
        assert_close(vectors.norm(dim=1), torch.ones(len(vectors)), rtol=0, atol=1e-5)


@pytest.mark.parametrize(("size", "floor"), [(1, 0.001), (2, 0.001), (40, 0.001), (40, 0.2), (7, 0.9), (500, 1e-6)])
def test_no_probabilities_are_longer_than_the_bound(size, floor):
    generator = torch.Generator().manual_seed(0)
    peaked = torch.cat([torch.randn(2000, size, generator=generator) * scale for scale in (0.1, 1, 5, 30)]).softmax(1)
    even = torch.stack([torch.cat([torch.ones(m), torch.zeros(size - m)]) / m for m in range(1, size + 1)])
    squares = torch.log1p(torch.cat([peaked, even]).double() / floor).square().sum(1)
    bound = longest(size, floor)
    assert float(squares.max()) <= bound
    assert float(squares.max()) > 0.9 * bound  # no looser than needed


def test_weights_start_even_sum_to_one_and_depend_on_the_text_alone():
    image, text, others = made(build())
    assert_close(build().compose(image, text).trace["attribute_weights"], torch.full((5, 2, 3), 0.5))
    head = moved(build())
    image, text, _ = made(head)
    first = head.compose(image, text)
    assert_close(first.weights.sum(1), torch.ones(5))
    assert_close(first.log_weights, first.weights.log())
    other = head.compose(head.prepare_gallery(others)[torch.arange(5)], text)
    assert_close(first.trace["attribute_weights"], other.trace["attribute_weights"])
    assert not torch.allclose(first.query, other.query)


def test_a_text_that_changes_one_attribute_keeps_the_others():
    """Weights set by hand: the text's colour, the picture's article."""
    head = build()
    with torch.no_grad():
        last = head.reading.weigh[-1]  # logits of [image, text] x [vector, colour, article]
        last.bias.copy_(torch.tensor([[30.0, -30.0, 30.0], [-30.0, 30.0, -30.0]]).flatten())
    logits = {"red shirt": [9, 0, 0, 9, 0], "blue shoe": [0, 9, 0, 0, 9]}
    raw = {name: torch.tensor([[0.0] * D + [float(v) for v in values]]) for name, values in logits.items()}
    query, _ = head.reading.compose(raw["red shirt"], raw["blue shoe"])
    gallery = {f"{c} {a}": torch.tensor([[0.0] * D + [9.0 * (c == v) for v in VALUES["colour"]]
                                         + [9.0 * (a == v) for v in VALUES["article"]]])
               for c in VALUES["colour"] for a in VALUES["article"]}  # fmt: skip
    scores = {name: (query @ head.reading.gallery(given).T).item() for name, given in gallery.items()}
    assert max(scores, key=scores.get) == "blue shirt"


def test_readers_learn_from_known_tags_only():
    head = build(reading={"smoothing": 0.1})
    raw = torch.randn(4, D + 5)
    tags = ["article=shirt", "article=shoe", "colour=red", "colour=blue", "colour=green"]
    value = torch.tensor([[1, 0, 1, 0, 0], [0, 1, 0, 0, 0], [0, 0, 0, 0, 1], [0, 0, 0, 0, 0]]).bool()
    known = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 0, 0, 0], [0, 0, 1, 1, 1], [1, 1, 1, 1, 1]]).bool()
    colour, article = raw[:, D : D + 3].log_softmax(1), raw[:, D + 3 :].log_softmax(1)

    def smooth(logs, right):
        return -(0.9 * logs[right] + 0.1 * logs.mean())

    slow = (smooth(colour[0], 0) + smooth(colour[2], 2)) / 2 + (smooth(article[0], 0) + smooth(article[1], 1)) / 2
    assert_close(head.reading.loss(raw, tags, value, known), slow)
    nothing = head.reading.loss(raw, tags, value & False, known & False)
    assert float(nothing) == 0


def test_stage_two_sees_the_vector_alone():
    head = moved(build())
    image, text, others = made(head)
    gallery = head.prepare_gallery(others)
    expected = head.scale() * unit(raw_of(text)[:, :D]) @ unit(raw_of(gallery)[:, :D]).T
    assert_close(head.single_logits(text.pooled, gallery.pooled), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"attributes": {"colour": ["red"]}}, "at least two values"),
        ({"attributes": ["colour"]}, "takes from the dataset"),
        ({"residual": True}, "residual: false"),
        ({"channels": True}, "channels: false"),
        ({"weights": "half"}, "weights: adaptive"),
        ({"attributes": None, "reading": {"floor": 0.1}}, "of 'attributes'"),
        ({"reading": {"floor": 0.0}}, "reading.floor"),
        ({"reading": {"florr": 0.1}}, "florr"),
    ],
)
def test_wrong_options_are_named(options, said):
    with pytest.raises(XRetrieveError, match=said):
        build(**options)
