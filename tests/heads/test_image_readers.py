"""Readers of their own: who sees which features, in which order the values come, and options that do not fit."""

from __future__ import annotations

import pytest
import torch
from torch.testing import assert_close

from xretrieve.errors import XRetrieveError
from xretrieve.heads import create_head
from xretrieve.heads.attribute_reading import ImageReaders, ReadingOptions

NAMES, SIZES, WIDTH = ["article", "colour", "use"], [2, 3, 4], 6


def build(**options):
    torch.manual_seed(0)
    made = ReadingOptions(image_hidden=5, own_hidden=5, image_standardise=False, **options)
    return ImageReaders(WIDTH, NAMES, SIZES, made).eval()


def changed(readers, feature):
    """Which values (A,) change when one feature does."""
    features = torch.randn(8, WIDTH, generator=torch.Generator().manual_seed(1))
    other = features.clone()
    other[:, feature] += 3
    return (readers(features) != readers(other)).any(0).tolist()


def test_only_the_reader_of_its_own_sees_what_lies_behind_the_first_features():
    readers = build(own=["colour"], image_features=4)
    assert changed(readers, 5) == [False] * 2 + [True] * 3 + [False] * 4
    assert changed(readers, 3) == [True] * 9


def test_values_come_in_the_order_of_the_attributes():
    readers = build(own=["use", "article"], image_features=4)
    features = torch.randn(3, WIDTH)
    assert readers.alone == [True, False, True]
    want = [readers.own[0](features), readers.shared(features[:, :4]), readers.own[1](features)]
    assert [part.shape[1] for part in want] == SIZES
    assert_close(readers(features), torch.cat(want, 1))


def test_every_attribute_may_have_a_reader_of_its_own_and_none_must():
    assert build(own=NAMES).shared is None
    assert build(own=NAMES)(torch.randn(2, WIDTH)).shape == (2, 9)
    assert len(build(image_features=2).own) == 0
    assert changed(build(image_features=2), 2) == [False] * 9


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"own": ["color"]}, "unknown head option reading.own"),
        ({"image_features": 7}, "image_features is 7; the image backbone gives 6"),
        ({"image_features": -1}, "reading.image_features is -1"),
        ({"own_hidden": 0}, "reading.own_hidden is 0"),
    ],
)
def test_options_that_do_not_fit_are_refused(options, said):
    with pytest.raises(XRetrieveError, match=said):
        ImageReaders(WIDTH, NAMES, SIZES, ReadingOptions(**options))


def test_a_head_with_readers_of_their_own_is_rebuilt_from_its_configuration():
    head = create_head(
        "progressive", image_dim=WIDTH, text_dim=WIDTH, dim=4, residual=False, sides={"projection": "perceptron"},
        attributes={"article": ["shirt", "shoe"], "colour": ["red", "blue"]},
        reading={"own": ["colour"], "image_features": 4},
    )  # fmt: skip
    again = create_head(head.name, **head.config)
    again.load_state_dict(head.state_dict())
    assert again.reading.image.alone == [False, True] and again.reading.image.first == 4
