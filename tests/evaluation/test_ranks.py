"""Ranks and metrics against the golden arrays and against slow double loops."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from xretrieve.errors import XRetrieveError
from xretrieve.evaluation.metrics import compute, fold_values, pair_folds
from xretrieve.evaluation.ranks import image_to_text_ranks, rank_counts, text_to_image_ranks, top_k

RULES = ("expected", "optimistic", "pessimistic")


def slow_ranks(scores, owner):
    """The rule of the protocol, one comparison at a time: (greater, equal) per image, the same per caption."""
    n, c = scores.shape
    i2t, t2i = [], []
    for i in range(n):
        best = max(scores[i, j] for j in range(c) if owner[j] == i)
        rivals = [scores[i, j] for j in range(c) if owner[j] != i]
        i2t.append((sum(r > best for r in rivals), sum(r == best for r in rivals)))
    for j in range(c):
        best = scores[owner[j], j]
        rivals = [scores[i, j] for i in range(n) if i != owner[j]]
        t2i.append((sum(r > best for r in rivals), sum(r == best for r in rivals)))
    return np.array(i2t), np.array(t2i)


def ragged_owner(rng, n):
    owner = np.repeat(np.arange(n), rng.integers(1, 8, n))
    rng.shuffle(owner)
    return owner


@pytest.mark.parametrize("prefix", ["", "ties/", "ragged/"])
def test_golden_ranks_metrics_and_best_items(golden, prefix):
    arrays = np.load(golden / "recall.npz")
    sims = arrays[f"{prefix}in/sims"]
    per_image = int(arrays["opt/captions_per_image"])
    owner = arrays["ragged/in/caption_to_image"] if prefix == "ragged/" else np.arange(sims.shape[1]) // per_image
    counts = rank_counts(sims, owner)
    for ties, suffix in zip(RULES, ("", "_optimistic", "_pessimistic"), strict=True):
        for name, got, alone in (
            ("i2t", counts.i2t(ties), image_to_text_ranks(sims, owner, ties)),
            ("t2i", counts.t2i(ties), text_to_image_ranks(sims, owner, ties)),
        ):
            key = f"{prefix}out/{name}_ranks{suffix}"
            if key in arrays:
                np.testing.assert_array_equal(got, arrays[key])
            np.testing.assert_array_equal(got, alone)
    metrics = compute(counts.i2t(), counts.t2i())
    for name in ("i2t", "t2i"):
        got = [metrics[f"{name}_{m}"] for m in ("r1", "r5", "r10", "medr", "meanr")]
        np.testing.assert_allclose(got, arrays[f"{prefix}out/{name}"], atol=1e-9)
        best = top_k(sims if name == "i2t" else sims.T, 1)[0][:, 0]
        if f"{prefix}out/{name}_top1" in arrays:
            np.testing.assert_array_equal(best, arrays[f"{prefix}out/{name}_top1"])
    assert metrics["rsum"] == pytest.approx(float(arrays[f"{prefix}out/rsum"]), abs=1e-9)
    if f"{prefix}out/bounds_i2t_r1" in arrays:
        bounds = [compute(counts.i2t(t), counts.t2i(t))["i2t_r1"] for t in ("pessimistic", "optimistic")]
        np.testing.assert_allclose(bounds, arrays[f"{prefix}out/bounds_i2t_r1"], atol=1e-9)


def test_golden_five_folds_keep_their_labels(golden):
    arrays = np.load(golden / "recall.npz")
    sims, folds = arrays["in/sims"], int(arrays["opt/folds"])
    owner = np.arange(sims.shape[1]) // int(arrays["opt/captions_per_image"])
    counts = rank_counts(sims, owner, folds)
    mean, per_fold = fold_values(pair_folds(counts.i2t(), counts.t2i(), owner, folds))
    names = [f"{d}_{m}" for d in ("i2t", "t2i") for m in ("r1", "r5", "r10", "medr", "meanr")]
    np.testing.assert_allclose([[m[k] for k in names] for m in per_fold], arrays["fold5/out/per_fold"], atol=1e-9)
    np.testing.assert_allclose([mean[k] for k in names], arrays["fold5/out/mean"], atol=1e-9)
    assert mean["rsum"] == pytest.approx(float(arrays["fold5/out/rsum"]), abs=1e-9)


@pytest.mark.parametrize("levels", [0, 1, 3, 50])
@pytest.mark.parametrize("seed", [0, 1])
def test_double_loop_with_ties_and_ragged_owners(levels, seed):
    rng = np.random.default_rng([seed, levels])
    owner = ragged_owner(rng, 17)
    scores = rng.standard_normal((17, len(owner))).astype(np.float32)
    if levels:
        scores = np.floor(rng.random(scores.shape) * levels).astype(np.float32)
    i2t, t2i = slow_ranks(scores, owner)
    for given in (scores, scores.astype(np.float64), torch.from_numpy(scores), np.ascontiguousarray(scores.T).T):
        counts = rank_counts(given, owner)
        np.testing.assert_array_equal(np.stack([counts.i2t_greater, counts.i2t_equal], 1), i2t)
        np.testing.assert_array_equal(np.stack([counts.t2i_greater, counts.t2i_equal], 1), t2i)


def test_matrix_larger_than_one_tile_with_every_negative_winning():
    n, c = 300, 4500  # several tiles down and across, and counters that would overflow if a tile were larger
    owner = np.arange(c) % n
    scores = np.ones((n, c), np.float32)
    scores[owner, np.arange(c)] = 0
    counts = rank_counts(scores, owner)
    assert (counts.i2t() == c - c // n).all() and (counts.t2i() == n - 1).all() and counts.tied == 0


def test_folds_with_shuffled_captions_equal_the_blocks_cut_by_hand():
    rng = np.random.default_rng(3)
    owner = ragged_owner(rng, 20)
    scores = np.round(rng.standard_normal((20, len(owner))), 1)
    counts = rank_counts(scores, owner, 5)
    for fold in range(5):
        columns = np.flatnonzero(owner // 4 == fold)
        alone = rank_counts(scores[fold * 4 : fold * 4 + 4][:, columns], owner[columns] - fold * 4)
        np.testing.assert_array_equal(counts.i2t()[fold * 4 : fold * 4 + 4], alone.i2t())
        np.testing.assert_array_equal(counts.t2i()[columns], alone.t2i())


def test_constant_matrix_is_no_success():
    owner = np.repeat(np.arange(1000), 5)
    metrics = compute(rank_counts(c := np.zeros((1000, 5000), np.float32), owner).i2t(), text_to_image_ranks(c, owner))
    assert metrics["rsum"] == 0 and metrics["t2i_meanr"] == 500.5


def test_equal_scores_among_own_captions_are_not_rivals():
    assert image_to_text_ranks(np.array([[1.0, 1.0, 0.0], [0.0, 0.0, 1.0]]), [0, 0, 1]).tolist() == [0, 0]


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_value_that_is_not_finite_names_the_pair(bad):
    scores = np.random.default_rng(0).random((4, 8))
    scores[2, 5] = bad
    with pytest.raises(XRetrieveError, match=r"image 'c.jpg' \(row 2\) and caption 'c.jpg#1' \(row 5\) is"):
        rank_counts(
            scores,
            np.arange(8) // 2,
            image_ids=[f"{x}.jpg" for x in "abcd"],
            caption_ids=[f"{x}.jpg#{i}" for x in "abcd" for i in (0, 1)],
        )
    with pytest.raises(XRetrieveError, match="image row 2 and caption row 5"):
        text_to_image_ranks(scores, np.arange(8) // 2)


def test_owner_maps_that_do_not_fit_are_named():
    scores = np.zeros((3, 4))
    with pytest.raises(XRetrieveError, match="image row 2 has no caption"):
        rank_counts(scores, [0, 0, 1, 1])
    with pytest.raises(XRetrieveError, match="caption row 3 has owner 3"):
        rank_counts(scores, [0, 1, 2, 3])
    with pytest.raises(XRetrieveError, match=r"owner has shape \(3,\)"):
        rank_counts(scores, [0, 1, 2])
    with pytest.raises(XRetrieveError, match="2 folds"):
        rank_counts(scores, [0, 1, 2, 2], folds=2)
    with pytest.raises(XRetrieveError, match="did you mean 'optimistic'"):
        rank_counts(scores, [0, 1, 2, 2]).i2t("optimist")


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_scores_are_refused(dtype):
    with pytest.raises(XRetrieveError, match="float32"):
        rank_counts(torch.zeros(2, 2, dtype=dtype), [0, 1])


def test_top_k_orders_ties_by_column_also_at_the_cut():
    rng = np.random.default_rng(0)
    scores = rng.integers(0, 4, (40, 30)).astype(np.float32)
    for k in (1, 3, 29, 30, 99):
        np.testing.assert_array_equal(top_k(scores, k, block=7)[0], np.argsort(-scores, axis=1, kind="stable")[:, :k])
