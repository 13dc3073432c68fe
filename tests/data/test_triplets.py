"""Composed queries as data: what a dataset of them must not accept, and the caption modes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from xretrieve.data.base import RetrievalDataset, Triplet
from xretrieve.data.modifications import MODES, query_texts, training_texts
from xretrieve.data.triplets import ComposedDataset, Listed, composed, rows_of
from xretrieve.errors import XRetrieveError


def plain(triplets: list[Triplet], images: int = 4) -> RetrievalDataset:
    ids = [f"i{k}" for k in range(images)]
    return RetrievalDataset("toy", "test", ids, [Path(i) for i in ids], [], [], np.zeros(0), images, "toy",
                            triplets=triplets)  # fmt: skip


def test_any_dataset_with_triplets_becomes_one_with_the_whole_split_as_gallery() -> None:
    data = composed(plain([Triplet(0, ("red",), 1), Triplet(1, ("blue",), 3, "colour")]))
    assert [t.id for t in data.triplets] == ["0", "1"] and data.kinds == ["colour"]
    assert data.gallery("split").rows.tolist() == [0, 1, 2, 3] and data.gallery("split").listed == 4
    assert [r.tolist() for r in rows_of(data.triplets)] == [[0, 1], [1, 3]]
    assert composed(data) is data


def test_a_dataset_without_triplets_is_refused() -> None:
    with pytest.raises(XRetrieveError, match="no composed queries"):
        composed(plain([]))


@pytest.mark.parametrize(
    ("triplet", "message"),
    [
        (Triplet(0, (), 1), "no modification text"),
        (Triplet(0, ("  ", ""), 1), "no modification text"),
        (Triplet(4, ("x",), 1), "reference is row 4, but there are 4 images"),
        (Triplet(0, ("x",), -1), "target is row -1"),
        (Triplet(0, ("x",), None), "has no target"),
        (Triplet(0, ("x",), 1, positives=(2,)), "target is not among its positives"),
        (Triplet(0, ("x",), 1, positives=(1, 1)), "twice among its positives"),
        (Triplet(0, ("x",), 1, members=(0, 2)), "target is not among its members"),
        (Triplet(0, ("x",), 1, members=(0, 1, 9)), "member is row 9"),
    ],
)
def test_a_broken_query_is_named(triplet: Triplet, message: str) -> None:
    with pytest.raises(XRetrieveError, match=message) as error:
        composed(plain([Triplet(0, ("fine",), 1, id="ok"), replace(triplet, id="bad one")]))
    assert "bad one" in str(error.value)


def test_ids_and_gallery_rows_are_unique() -> None:
    with pytest.raises(XRetrieveError, match="'a'.* occurs twice"):
        composed(plain([Triplet(0, ("x",), 1, id="a"), Triplet(1, ("x",), 2, id="a")]))
    data = composed(plain([Triplet(0, ("x",), 1)]))
    with pytest.raises(XRetrieveError, match="rows twice or outside"):
        replace(data, galleries={"split": Listed(np.array([0, 0]), 2)})
    with pytest.raises(XRetrieveError, match="unknown gallery rule.*did you mean 'split'"):
        data.gallery("splits")


def test_hidden_targets_can_be_loaded_but_not_trained_on() -> None:
    whole = composed(plain([Triplet(0, ("x",), 1)]))
    data = replace(whole, triplets=[Triplet(0, ("x",), None, id="q7")], hidden=True)
    assert isinstance(data, ComposedDataset)
    with pytest.raises(XRetrieveError, match="'q7' has no public target"):
        rows_of(data.triplets)


@pytest.mark.parametrize(
    ("mode", "expected"),
    [
        ("single", ["is shiny, and SILVER."]),
        ("and", ["Is shiny, and silver and has No sleeves"]),
        ("both-orders", ["Is shiny, and silver and has No sleeves", "Has no sleeves and is shiny, and SILVER"]),
        ("mean-orders", ["Is shiny, and silver and has No sleeves", "Has no sleeves and is shiny, and SILVER"]),
        ("each", ["is shiny, and SILVER.", "has No sleeves"]),
        ("tagged", ["<start> is shiny, and SILVER <and> has No sleeves <end>"]),
    ],
)
def test_caption_modes(mode: str, expected: list[str]) -> None:
    assert query_texts(["is shiny, and SILVER.", " has No sleeves"], mode) == expected


def test_an_empty_caption_leaves_the_other_alone_and_dangles_no_and() -> None:
    for texts in (["long", ""], ["", "long"], ["long", " . "]):
        assert query_texts(texts, "and") == ["Long"] and query_texts(texts, "each") == ["long"]
        assert query_texts(texts, "both-orders") == ["Long", "Long"]
        assert query_texts(texts, "tagged") == ["<start> long <end>"]
    with pytest.raises(XRetrieveError, match="no words"):
        query_texts([" ", "."], "and")
    with pytest.raises(XRetrieveError, match="did you mean 'both-orders'"):
        query_texts(["x"], "both-order")


def test_training_draws_from_both_orders_and_each_text_alone() -> None:
    four = ["Is red and is long", "Is long and is red", "Is red", "Is long"]
    assert training_texts(["is red", "is long"], "and-random") == four and "and-random" not in MODES
    assert training_texts(["is red", "is long"], "and") == four[:1]
