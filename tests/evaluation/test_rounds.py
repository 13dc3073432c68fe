"""Query sets from matcher and dataset to a report: every round against slow loops, short sets, ties, and errors."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

import xretrieve as xr
from tests.evaluation.round_fakes import Rounds, make_sets
from tests.evaluation.trec_files import read_qrels, read_run
from xretrieve.data.turns import query_sets
from xretrieve.errors import XRetrieveError
from xretrieve.evaluation import get_protocol, list_protocols
from xretrieve.evaluation.metrics import values_of
from xretrieve.evaluation.protocols import RoundsProtocol
from xretrieve.evaluation.round_metrics import round_columns
from xretrieve.evaluation.round_report import RoundsReport
from xretrieve.evaluation.rounds import Counter, evaluate_round_scores


def slow_rank(scores: np.ndarray, image: int, ties: str) -> float:
    """The rank of one image among all, by a loop over the others."""
    share = {"expected": 0.5, "optimistic": 0.0, "pessimistic": 1.0}[ties]
    rank = 0.0
    for other, score in enumerate(scores):
        if other != image:
            rank += 1.0 if score > scores[image] else share if score == scores[image] else 0.0
    return rank


def tied_scores(sets: int, images: int, turns: int = 3) -> np.ndarray:
    return np.random.default_rng(1).integers(0, 6, (turns, images, sets)).astype(np.float32)


@pytest.mark.parametrize("ties", ["expected", "optimistic", "pessimistic"])
def test_ranks_and_metrics_equal_a_double_loop_with_ties(ties: str) -> None:
    data = make_sets(images=17, turns=3)
    sets = query_sets(data)
    scores = tied_scores(len(sets), 17)
    protocol = RoundsProtocol("loop", ties=ties)
    report = evaluate_round_scores(scores, sets, data, protocol, bootstrap=0)
    for turn in range(3):
        ranks = np.array([slow_rank(scores[turn, :, m], sets.owner[m], ties) for m in range(len(sets))])
        assert np.array_equal(report.ranks[turn], ranks)
        found = {name: metric.value for name, metric in report.at(turn + 1).items()}
        for k in (1, 5, 10):
            assert found[f"r{k}"] == pytest.approx(100 * sum(rank < k for rank in ranks) / len(ranks))
        assert found["medr"] == np.floor(np.median(ranks)) + 1
        assert found["meanr"] == pytest.approx(sum(ranks) / len(ranks) + 1)
    assert report["rsum"].value == pytest.approx(sum(report[f"round3_r{k}"].value for k in (1, 5, 10)))


def test_a_constant_matrix_finds_nothing_and_its_bounds_say_why() -> None:
    data = make_sets(images=20)
    report = evaluate_round_scores(
        np.zeros((4, 20, 20), np.float32), query_sets(data), data, RoundsProtocol("p"), bootstrap=0
    )
    assert report["round1_r1"].value == 0 and report["round4_medr"].value == 10
    assert (report["round4_r1"].pessimistic, report["round4_r1"].optimistic) == (0, 100)
    assert "rsum if ties were always lost 0.0, always won 300.0" in str(report)


def test_a_matcher_is_scored_round_by_round_against_all_images() -> None:
    data = make_sets(images=40)
    matcher = Rounds(data, noise=3, later=1.0)
    report = xr.evaluate(matcher, data, "rounds", bootstrap=100)
    assert isinstance(report, RoundsReport) and report.turns == 4
    sets = query_sets(data)
    scores = matcher.score_rounds(matcher.encode_sets([sets.said(m) for m in range(40)]), matcher.encode_images([]))
    whole = evaluate_round_scores(scores.numpy(), sets, data, get_protocol("rounds"), bootstrap=100)
    assert report.metrics.values == whole.metrics.values and report.metrics.intervals == whole.metrics.intervals
    assert report["round4_meanr"].value < report["round1_meanr"].value
    metric = report["round2_r5"]
    assert metric.low is not None and metric.high is not None and metric.low <= metric.value <= metric.high
    assert (metric.queries, metric.gallery, metric.setting.protocol) == (40, 40, "rounds")


def test_images_without_a_set_are_in_the_gallery_and_ask_nothing() -> None:
    data = make_sets(images=30, bare=5)
    report = xr.evaluate(Rounds(data), data, "rounds", bootstrap=50)
    assert report["round1_r1"].queries == 25 and report["round1_r1"].gallery == 30
    assert "5 images have no sentence and no query set" in report.about["left out"]
    scores = np.zeros((4, 30, 25), np.float32)
    scores[:, 29] = 1  # an image that nobody asks for stands above all
    sets = query_sets(data)
    counts = Counter(sets, data.image_ids)
    counts.add(np.arange(25), scores)
    assert (counts.counts().greater == 1).all()


def test_short_sets_keep_their_last_rank_and_are_counted() -> None:
    data = make_sets(images=30, short=6)
    sets = query_sets(data)
    scores = np.random.default_rng(0).standard_normal((4, 30, 30)).astype(np.float32)
    report = evaluate_round_scores(scores, sets, data, RoundsProtocol("p"), bootstrap=0)
    assert report.reached == [30, 30, 24, 24]
    for m in range(30):
        last = min(4, sets.sizes[m]) - 1
        assert report.ranks[last, m] == slow_rank(scores[last, :, m], m, "expected")
        assert (report.ranks[last:, m] == report.ranks[last, m]).all()
    assert "a set without a sentence left keeps its last rank" in str(report)
    rows = report.to_dict()["rounds"]
    assert [row["sets_with_a_sentence"] for row in rows] == [30, 30, 24, 24]


@pytest.mark.parametrize("combine", ["head", "mean_similarity", "rank_fusion", "paragraph"])
def test_blocks_of_sets_do_not_change_a_number(combine: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from xretrieve.evaluation import round_scores

    data = make_sets(images=23, short=0 if combine == "head" else 7)
    matcher = Rounds(data, noise=2)
    whole = xr.evaluate(matcher, data, "rounds", bootstrap=0, combine=combine)
    monkeypatch.setattr(round_scores, "BLOCK_SETS", 5)
    again = xr.evaluate(matcher, data, "rounds", bootstrap=0, combine=combine)
    assert np.array_equal(whole.counts.greater, again.counts.greater)
    assert whole.samples == again.samples
    assert whole.about["sets are scored by"] == ("the head" if combine == "head" else combine.replace("_", " "))


def test_combinations_of_single_sentences_equal_their_definitions() -> None:
    from xretrieve.evaluation.round_scores import RoundScorer

    data = make_sets(images=11, short=3)
    matcher, sets = Rounds(data, noise=2), query_sets(data)
    gallery = matcher.encode_images([])
    alone = (matcher.encode_texts(sets.texts).pooled @ gallery.pooled.T).numpy()
    starts = np.cumsum(sets.sizes) - sets.sizes
    scored = {name: RoundScorer.encode(matcher, sets, gallery, name).score(np.arange(11)).numpy() for name in
              ("mean_similarity", "rank_fusion", "paragraph")}  # fmt: skip
    for m in range(11):
        for turn in range(4):
            rows = alone[starts[m] : starts[m] + min(turn + 1, sets.sizes[m])]
            assert np.allclose(scored["mean_similarity"][turn, :, m], rows.mean(0), atol=1e-5)
            ranks = [[slow_rank(row, n, "expected") for n in range(11)] for row in rows]
            assert np.allclose(scored["rank_fusion"][turn, :, m], -np.mean(ranks, 0))
            joined = matcher.encode_texts([";".join(sets.said(m)[: turn + 1])])
            assert np.allclose(scored["paragraph"][turn, :, m], matcher.score(joined, gallery)[0], atol=1e-5)


def test_scores_that_are_turned_or_not_finite_are_refused() -> None:
    data = make_sets(images=30, bare=5)
    sets = query_sets(data)
    with pytest.raises(XRetrieveError, match=r"rounds x images x sets \(4, 30, 25\), got \(4, 25, 30\)"):
        evaluate_round_scores(np.zeros((4, 25, 30)), sets, data, RoundsProtocol("p"))
    scores = np.zeros((4, 30, 25), np.float32)
    scores[2, 7, 3] = np.nan
    with pytest.raises(XRetrieveError, match=r"image 'p 7.jpg' \(row 7\) and query set after round 3 'p 3.jpg'"):
        evaluate_round_scores(scores, sets, data, RoundsProtocol("p"))
    with pytest.raises(XRetrieveError, match="16-bit"):
        evaluate_round_scores(scores.astype(np.float16), sets, data, RoundsProtocol("p"))


def test_the_names_of_the_task_and_their_rules() -> None:
    assert list_protocols("multi_query") == [
        "coco-5", "coco-val2017-5", "flickr30k-5", "flickr8k-5", "phrases", "rounds", "scenes-10", "vg-10",
    ]  # fmt: skip
    assert get_protocol(None, "visual_genome", 9896).name == "vg-10" and get_protocol(None, "phrases").name == "phrases"
    assert get_protocol("vg-10").check(5000) == [] and get_protocol("vg-10").check(9896) == []
    with pytest.raises(XRetrieveError, match="'vg-10' ranks 9896 images, this split has 12; use the protocol 'rounds'"):
        get_protocol("vg-10").check(12)
    assert "90 %" in get_protocol("vg-10").check(8906, 0.9)[0]
    with pytest.raises(XRetrieveError, match="has 10 rounds, but no query set has more than 4 sentences"):
        xr.evaluate(Rounds(data := make_sets()), data, "scenes-10")
    assert get_protocol("rounds").rounds(25) == 10
    with pytest.raises(XRetrieveError, match="without folds"):
        RoundsProtocol("x", folds=5)
    with pytest.raises(XRetrieveError, match="did you mean 'rank_fusion'"):
        xr.evaluate(Rounds(data), data, "rounds", combine="rankfusion")
    with pytest.raises(XRetrieveError, match="is for query sets; protocol 'full' ranks single captions"):
        xr.evaluate(Rounds(data), data, "full", combine="rank_fusion")


def test_more_sentences_than_rounds_are_not_used() -> None:
    data = make_sets(images=20, turns=6)
    report = xr.evaluate(Rounds(data), data, RoundsProtocol("four", turns=4), bootstrap=0)
    assert report.turns == 4 and report.metrics.setting.captions == 80
    assert report.about["sentences"] == "the first 4 of each set, in stored order"


def test_trec_files_hold_every_round(tmp_path: Path) -> None:
    data = make_sets(images=25, short=2)
    report = xr.evaluate(Rounds(data, noise=2), data, "rounds", bootstrap=0, trec=tmp_path, combine="mean_similarity")
    assert sorted(p.name for p in tmp_path.iterdir()) == [*(f"round{r:02d}.run" for r in (1, 2, 3, 4)), "rounds.qrels"]
    right = read_qrels(tmp_path / "rounds.qrels")
    for turn in (1, 4):
        run = read_run(tmp_path / f"round{turn:02d}.run")
        top = np.mean([run[query][0][0] in docs for query, docs in right.items()])
        assert 100 * top == pytest.approx(report[f"round{turn}_r1"].value)


def test_the_bootstrap_draws_images_and_keeps_the_sets_of_one_together() -> None:
    from xretrieve.evaluation.bootstrap import resampled
    from xretrieve.evaluation.metrics import Fold

    rng = np.random.default_rng(0)
    owner = np.array([0, 0, 3, 3, 3, 9])
    ranks = rng.integers(0, 8, (2, 6)).astype(float)
    drawn = resampled([Fold(round_columns(ranks), owner)], resamples=400, seed=7)
    draws = np.random.default_rng([7, 0]).integers(0, 3, (400, 3))
    groups = [np.flatnonzero(owner == image) for image in (0, 3, 9)]
    for r in (0, 57, 399):
        rows = np.concatenate([groups[i] for i in draws[r]])
        expected = values_of(round_columns(ranks[:, rows]))
        assert {name: values[r] for name, values in drawn.items()} == pytest.approx(expected)


def test_a_block_that_needs_fewer_rounds_than_others_is_carried_on() -> None:
    from xretrieve.evaluation.round_scores import RoundScorer

    data = make_sets(images=8, short=4)
    matcher, sets = Rounds(data), query_sets(data)
    scorer = RoundScorer.encode(matcher, sets, matcher.encode_images([]), "mean_similarity")
    short = scorer.score([0, 1])
    assert short.shape == (4, 8, 2) and torch.equal(short[3], short[1])
