"""Ranks among candidates, against the golden arrays and by hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import xretrieve as xr
from xretrieve.errors import XRetrieveError
from xretrieve.evaluation.candidates import (
    attribute_ceiling,
    average_precision,
    candidate_counts,
    member_counts,
    ordered,
    removed,
)

OPTIONS = ("ks", "subset_ks", "map_ks", "ties")


def part(golden: Path, prefix: str) -> tuple[dict, dict, dict]:
    arrays = np.load(golden / "composed_metrics.npz")
    take = lambda p: {k[len(p) :]: arrays[k] for k in arrays.files if k.startswith(p)}  # noqa: E731
    return take(f"{prefix}in/"), {k: arrays[f"opt/{k}"] for k in OPTIONS}, take(f"{prefix}out/")


@pytest.mark.parametrize("prefix", ["", "plain/", "one/", "self/"])
def test_golden_metrics(golden: Path, prefix: str) -> None:
    inputs, options, expected = part(golden, prefix)
    found = xr.interop.replay("composed_metrics", {}, inputs, options)
    assert expected
    for name, want in expected.items():
        got = found[name]
        assert got.shape == want.shape, name
        finite = np.isfinite(want) if want.dtype.kind == "f" else np.ones(want.shape, bool)
        assert np.array_equal(np.isfinite(got) if want.dtype.kind == "f" else finite, finite), name
        assert np.abs(got[finite].astype(float) - want[finite].astype(float)).max(initial=0) <= 1e-9, name


def test_a_collapsed_model_gets_the_rank_of_chance() -> None:
    ranks = candidate_counts(np.zeros((4, 101), np.float32), np.arange(4)).ranks()
    assert (ranks == 50).all()


def test_the_removed_reference_is_no_candidate_and_the_kept_one_competes() -> None:
    scores = np.array([[9.0, 5.0, 1.0]])
    assert candidate_counts(scores, np.array([1])).ranks()[0] == 1
    assert candidate_counts(scores, np.array([1]), removed((1, 3), np.array([0]))).ranks()[0] == 0


def test_a_target_that_is_no_candidate_is_a_miss_at_every_k() -> None:
    counts = candidate_counts(np.ones((2, 3)), np.array([1, -1]), removed((2, 3), np.array([1, 0])))
    assert np.isinf(counts.ranks()).all() and not counts.tied.any()


def test_one_positive_gives_the_strict_rank() -> None:
    scores = np.random.default_rng(0).integers(0, 4, (30, 12)).astype(np.float32)
    target = np.arange(30) % 12
    strict = candidate_counts(scores, target).ranks()
    assert np.array_equal(candidate_counts(scores, target[:, None] == np.arange(12)).ranks(), strict)


def test_other_positives_are_no_obstacle() -> None:
    scores, positives = np.array([[4.0, 3.0, 2.0, 1.0]]), np.array([[False, True, False, True]])
    assert candidate_counts(scores, positives).ranks()[0] == 1


def test_subsets_may_be_short() -> None:
    scores = np.array([[0.1, 0.9, 0.5, 0.7]])
    members = np.array([[0, 2, 3, -1]])
    assert member_counts(scores, members, np.array([3]), np.array([0])).ranks()[0] == 1


def test_lists_break_ties_by_position_and_end_with_the_candidates() -> None:
    listed = ordered(np.array([[1.0, 2.0, 2.0]]), np.array([[True, True, False]]), 3)
    assert listed.tolist() == [[1, 0, -1]]


def test_average_precision_by_hand() -> None:
    scores, positives = np.array([[5.0, 4.0, 3.0, 2.0]]), np.array([[True, False, True, True]])
    everything = np.ones((1, 4), bool)
    got = average_precision(scores, positives, everything, [1, 3, 50])[0] / 100
    assert got == pytest.approx([1.0, (1 + 2 / 3) / 3, (1 + 2 / 3 + 3 / 4) / 3])
    assert average_precision(scores, ~everything, everything, [3])[0, 0] == 0


def test_attribute_ceiling_by_hand() -> None:
    assert attribute_ceiling(np.array([1, 4]), [1, 10]).tolist() == [62.5, 100]


def test_a_score_that_is_not_finite_names_the_query() -> None:
    with pytest.raises(XRetrieveError, match="query b and gallery position 1 is nan"):
        candidate_counts(np.array([[1.0, 2.0], [1.0, np.nan]]), np.array([0, 0]), query_ids=["a", "b"])


def test_shapes_that_do_not_fit_are_refused() -> None:
    with pytest.raises(XRetrieveError, match="do not fit"):
        candidate_counts(np.ones((2, 3)), np.ones((2, 2), bool))
