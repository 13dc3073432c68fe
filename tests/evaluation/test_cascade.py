"""What is chosen on validation data is what counting by hand gives."""

from __future__ import annotations

import numpy as np
import pytest

from xretrieve.evaluation.cascade import cascade_ranks, choose, scale_of


def slow_rank(coarse, final, positive, rerank):
    """One query: sort by coarse, then the first ``rerank`` by final; the place of the positive, ties half."""
    order = sorted(range(len(coarse)), key=lambda i: (-coarse[i], i))
    kept = order[:rerank]
    if positive not in kept:
        above = sum(coarse[i] > coarse[positive] for i in range(len(coarse)))
        level = sum(coarse[i] == coarse[positive] for i in range(len(coarse))) - 1
        return max(above + level / 2, rerank)
    above = sum(final[i] > final[positive] for i in kept)
    return above + (sum(final[i] == final[positive] for i in kept) - 1) / 2


@pytest.mark.parametrize("rerank", [1, 3, 7, 20])
def test_ranks_among_candidates_are_those_of_a_slow_sort(rerank):
    rng = np.random.default_rng(0)
    coarse, final = (rng.integers(0, 9, (40, 20)).astype(np.float32) for _ in range(2))  # many ties
    positive = rng.integers(0, 20, 40)
    wanted = [slow_rank(*row, rerank) for row in zip(coarse, final, positive, strict=True)]
    assert cascade_ranks(coarse, final, positive, rerank).tolist() == wanted


def noisy(rng, positive, total, signal):
    """Scores of a stage: noise, and more for the right picture."""
    scores = rng.normal(size=(len(positive), total)).astype(np.float32)
    scores[np.arange(len(positive)), positive] += signal
    return scores


def test_two_stages_that_err_differently_are_blended_and_few_candidates_are_enough():
    rng = np.random.default_rng(1)
    positive = rng.integers(0, 300, 400)
    coarse = 0.01 * noisy(rng, positive, 300, 3.0)  # cosines, small
    head = 40 * noisy(rng, positive, 300, 2.5) - 7  # logits, large
    chosen = choose(coarse, head, positive, candidates=(10, 20, 50, 100, 200))
    assert 0.2 <= chosen["blend"] <= 0.7
    blend, first, second = (np.array(chosen["recall"][key]) for key in ("blend", "coarse", "head"))
    assert (blend > first + 5).all() and (blend > second + 5).all(), "errors that are independent cancel"
    by_rerank = {row["rerank"]: row["lost"] for row in chosen["by_rerank"]}
    assert chosen["lost"] == by_rerank[chosen["rerank"]] < 0.1
    assert all(lost >= 0.1 for rerank, lost in by_rerank.items() if rerank < chosen["rerank"]), "the fewest are taken"


def test_one_query_of_a_thousand_is_a_tenth_of_a_point_and_too_much():
    positive = np.zeros(1000, np.int64)
    coarse = np.tile(np.linspace(1, 0, 30, dtype=np.float32), (1000, 1))  # the right picture is first everywhere
    head = coarse.copy()
    coarse[0, 0] = 0.45  # but once it is no candidate among 10
    chosen = choose(coarse, head, positive, candidates=(10, 20), blends=(1.0,))
    assert [row["lost"] for row in chosen["by_rerank"]] == [0.1, 0.0] and chosen["rerank"] == 20


def test_what_is_called_weak_is_below_what_nearly_all_queries_find():
    rng = np.random.default_rng(3)
    positive = rng.integers(0, 50, 300)
    head = noisy(rng, positive, 50, 3.0)
    weak = choose(noisy(rng, positive, 50, 0.0), head, positive, blends=(1.0,))["weak"]
    assert 0.005 < (head.max(1) < weak).mean() < 0.015


def test_a_useless_stage_gets_no_share():
    rng = np.random.default_rng(2)
    positive = rng.integers(0, 50, 200)
    good, bad = noisy(rng, positive, 50, 3.0), noisy(rng, positive, 50, 0.0)
    assert choose(good, bad, positive)["blend"] <= 0.1
    worse = choose(bad, good, positive, candidates=(10, 20))
    assert worse["blend"] >= 0.9 and worse["rerank"] == "all", "no number of candidates is enough"


def test_scores_are_standardised_over_the_candidates():
    coarse = np.arange(400, dtype=np.float32)[None]
    mean, spread = scale_of(3 * coarse, coarse)
    assert mean == pytest.approx(3 * 349.5) and spread == pytest.approx(3 * np.arange(100).std())
