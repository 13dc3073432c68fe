"""Intervals: equal to a slow resampling, right on average, zero for a model against itself."""

from __future__ import annotations

import numpy as np
import pytest

from xretrieve.errors import XRetrieveError
from xretrieve.evaluation.bootstrap import (
    Difference,
    _weights,
    differences,
    intervals,
    recall_curve,
    resampled,
)
from xretrieve.evaluation.metrics import Column, Fold, compute, fold_values, mean, mean_of_parts, pair_folds


def draw(seed=0, n=60, low=1, high=6):
    rng = np.random.default_rng(seed)
    owner = np.repeat(np.arange(n), rng.integers(low, high, n))
    rng.shuffle(owner)
    return np.floor(rng.exponential(4, n)), np.floor(2 * rng.exponential(4, len(owner))) / 2, owner


def test_every_metric_equals_a_resample_made_by_hand():
    i2t, t2i, owner = draw()
    samples = resampled(pair_folds(i2t, t2i, owner), resamples=25, seed=7)
    ((_, weights),) = _weights(60, 25, [7, 0])
    assert (weights.sum(1) == 60).all()
    for r in range(25):
        drawn = np.repeat(np.arange(60), weights[r].astype(int))
        by_hand = compute(i2t[drawn], np.concatenate([t2i[owner == i] for i in drawn]))
        for name, value in by_hand.items():
            assert samples[name][r] == pytest.approx(value, abs=1e-9), name


def test_median_is_exact_when_images_differ_wildly():
    owner = np.repeat(np.arange(9), [200, 1, 1, 1, 1, 1, 1, 1, 1])  # the median jumps across the whole list
    t2i = np.concatenate([np.zeros(200), np.arange(1000.0, 1008.0)])
    samples = resampled(pair_folds(np.arange(9.0), t2i, owner), resamples=200)
    ((_, weights),) = _weights(9, 200, [0, 0])
    expected = [np.floor(np.median(np.repeat(t2i, w[owner].astype(int)))) + 1 for w in weights]
    np.testing.assert_array_equal(samples["t2i_medr"], expected)


def test_folds_average_their_own_resamples():
    i2t, t2i, owner = draw(n=60)
    whole = fold_values(pair_folds(i2t, t2i, owner, 5))[0]
    for name, (low, high) in intervals(resampled(pair_folds(i2t, t2i, owner, folds=5), resamples=400)).items():
        assert low <= whole[name] <= high, name


def test_interval_covers_the_truth_about_as_often_as_it_says():
    rng = np.random.default_rng(0)
    hits = 0
    for trial in range(200):
        ranks = (rng.random(200) > 0.4).astype(float) * 20  # true R@1 is 40 %
        low, high = intervals(resampled(pair_folds(ranks, ranks, np.arange(200)), resamples=200, seed=trial))["i2t_r1"]
        hits += low <= 40 <= high
    assert 180 <= hits <= 199


def test_captions_of_one_image_move_together():
    i2t, owner = np.arange(100.0) % 20, np.repeat(np.arange(100), 5)
    together, apart = i2t[owner], np.random.default_rng(0).permutation(i2t[owner])
    width = {
        name: np.ptp(intervals(resampled(pair_folds(i2t, t, owner)))["t2i_r10"])
        for name, t in (("together", together), ("apart", apart))
    }
    assert width["together"] > 1.7 * width["apart"]  # theory: sqrt(5); ignoring the grouping would make both equal


def test_same_seed_same_interval_and_another_seed_another():
    i2t, t2i, owner = draw()
    first, again, other = (intervals(resampled(pair_folds(i2t, t2i, owner), resamples=50, seed=s)) for s in (1, 1, 2))
    assert first == again != other


def paired(a: tuple, b: tuple, owner: np.ndarray) -> dict[str, Difference]:
    return differences(*(resampled(pair_folds(*ranks, owner)) for ranks in (a, b)), compute(*a), compute(*b))


def test_a_model_against_itself_differs_by_nothing():
    i2t, t2i, owner = draw()
    for d in paired((i2t, t2i), (i2t, t2i), owner).values():
        assert (d.value, d.low, d.high, d.p) == (0, 0, 0, 1)


def test_pairing_finds_a_small_gain_that_two_intervals_would_hide():
    i2t, t2i, owner = draw(n=300)
    better = np.maximum(t2i - 1, 0)
    d = paired((i2t, t2i), (i2t, better), owner)["t2i_r5"]
    assert d.value > 0 and d.low > 0 and d.p < 0.05
    a, b = (intervals(resampled(pair_folds(i2t, t, owner)))["t2i_r5"] for t in (t2i, better))
    assert d.high - d.low < (a[1] - a[0] + b[1] - b[0]) / 2
    back = paired((i2t, better), (i2t, t2i), owner)["t2i_r5"]
    assert (back.value, back.low, back.high) == pytest.approx((-d.value, -d.high, -d.low))


def test_no_resample_is_an_error():
    with pytest.raises(XRetrieveError, match="ask for at least 1"):
        resampled(pair_folds(np.zeros(2), np.zeros(2), np.arange(2)), resamples=0)


def test_strata_are_drawn_apart_and_lost_queries_never():
    rng = np.random.default_rng(5)
    group = np.array([4, 4, 7, -1, 1, 2, 9])
    strata = np.array(["a", "a", "a", "b", "b", "b", "b"])
    values = rng.random(7) * 100
    columns = [Column("all", "percent", "higher", mean, values),
               Column("b", "percent", "higher", mean, values, strata == "b"),
               Column("both", "percent", "higher", mean_of_parts, parts=("all", "b"))]  # fmt: skip
    drawn = resampled([Fold(columns, group, strata)], resamples=40, seed=3)
    draws = [np.random.default_rng([3, n]).integers(0, size, (40, size)) for n, size in enumerate((3, 2))]
    for r in (0, 39):
        chosen = [*np.array([1, 2, 9])[draws[0][r]], *np.array([4, 7])[draws[1][r]]]  # of b, whose group comes first
        rows = np.concatenate([np.flatnonzero(group == one) for one in chosen])
        own = values[rows].mean(), values[rows][strata[rows] == "b"].mean()
        assert [drawn[name][r] for name in ("all", "b", "both")] == pytest.approx([*own, sum(own) / 2])


def test_recall_curve_meets_the_table():
    i2t, t2i, owner = draw()
    value, low, high = recall_curve(t2i, owner, 60, 20)
    metrics = compute(i2t, t2i)
    assert [value[k - 1] for k in (1, 5, 10)] == pytest.approx([metrics[f"t2i_r{k}"] for k in (1, 5, 10)])
    assert (low <= value).all() and (value <= high).all()
