"""From matcher and dataset to report: the same numbers by every road, and what stops it."""

from __future__ import annotations

import numpy as np
import pytest
from fake import FakeMatcher, make_dataset

import xretrieve as xr
from xretrieve.errors import XRetrieveError
from xretrieve.evaluation import evaluate, evaluate_scores
from xretrieve.evaluation.metrics import compute
from xretrieve.evaluation.protocols import Protocol
from xretrieve.evaluation.ranks import rank_counts


def test_report_equals_the_pure_functions():
    dataset = make_dataset()
    matcher = FakeMatcher(dataset)
    report = xr.evaluate(matcher, dataset)
    scores = (matcher.texts @ matcher.images.T).numpy().T
    counts = rank_counts(scores, dataset.owner)
    assert report.metrics.values == pytest.approx(compute(counts.i2t(), counts.t2i()))
    assert report.matcher == {"name": "fake", "fingerprint": "fake-0", "source": "nowhere"}
    assert report["rsum"].low <= report["rsum"].value <= report["rsum"].high
    assert set(report.seconds) == {"wall", "cpu", "encode", "score"}


def test_a_metric_carries_its_setting():
    dataset = make_dataset(expected=40)
    report = evaluate(FakeMatcher(dataset), dataset, bootstrap=50, seed=3)
    metric = report["t2i_r5"]
    s = metric.setting
    assert (s.protocol, s.dataset, s.split, s.coverage, s.seed, s.resamples) == ("full", "toy", "test", 0.75, 3, 50)
    assert (metric.queries, metric.gallery) == (len(dataset.captions), 30)
    assert (report["i2t_r1"].queries, report["i2t_r1"].gallery) == (30, len(dataset.captions))
    assert "75 %" in report.warnings[0]
    with pytest.raises(XRetrieveError, match="did you mean 't2i_r5'"):
        report["t2i_r6"]


def test_folds_score_only_their_own_pairs_and_agree_with_the_whole_matrix():
    dataset = make_dataset()
    matcher = FakeMatcher(dataset, noise=2)
    protocol = Protocol("five", folds=5)
    report = evaluate(matcher, dataset, protocol, bootstrap=20)
    assert matcher.scored == 6 * len(dataset.captions)
    scores = (matcher.texts @ matcher.images.T).numpy().T
    whole = evaluate_scores(scores, dataset.owner, protocol=protocol, bootstrap=20)
    assert report.metrics.values == pytest.approx(whole.metrics.values)
    assert len(report.metrics.per_fold) == 5
    assert report["t2i_r1"].value == pytest.approx(np.mean([f["t2i_r1"] for f in report.metrics.per_fold]))
    assert report["t2i_r1"].gallery == 6
    for sample in report.samples:  # a fold sees no picture of another fold
        if sample.direction == "t2i":
            ids = [dataset.image_ids.index(hit.id) for hit in sample.hits]
            assert len({i // 6 for i in ids}) == 1


def test_tie_bounds_enclose_the_expected_value():
    scores = np.random.default_rng(0).integers(0, 3, (20, 60)).astype(np.float32)
    report = evaluate_scores(scores, np.arange(60) % 20, bootstrap=0)
    rsum = report["rsum"]
    assert rsum.pessimistic < rsum.value < rsum.optimistic and rsum.low is None
    assert "tied queries" in str(report) and "always lost" in str(report)


def test_first_caption_protocol_keeps_one_caption_per_image():
    dataset = make_dataset()
    report = evaluate(FakeMatcher(dataset), dataset, Protocol("first", captions="first"), bootstrap=0)
    assert report.metrics.setting.captions == 30 == len(report.caption_ids)
    assert len({i.split("#")[0] for i in report.caption_ids}) == 30


def test_wrong_protocol_stops_before_anything_is_encoded():
    dataset = make_dataset()
    with pytest.raises(XRetrieveError, match="'full'"):
        evaluate(None, dataset, "flickr-1k")


def test_a_matcher_that_skips_images_is_refused():
    dataset = make_dataset()
    matcher = FakeMatcher(dataset)
    matcher.images = matcher.images[:-1]
    with pytest.raises(XRetrieveError, match="29 of 30 images"):
        evaluate(matcher, dataset)


def test_nan_scores_name_image_and_caption():
    dataset = make_dataset()
    matcher = FakeMatcher(dataset)
    matcher.images[4] = np.nan
    with pytest.raises(XRetrieveError, match="p 4.jpg"):
        evaluate(matcher, dataset)


def test_samples_show_a_success_the_middle_and_the_worst():
    dataset = make_dataset()
    report = evaluate(FakeMatcher(dataset, noise=1.5), dataset)
    for direction, ranks in (("t2i", report.t2i_ranks), ("i2t", report.i2t_ranks)):
        by_outcome = {}
        for sample in report.samples:
            if sample.direction == direction:
                by_outcome.setdefault(sample.outcome, []).append(sample)
                assert sum(hit.right for hit in sample.hits) >= (sample.rank <= 5)
                assert [h.score for h in sample.hits] == sorted((h.score for h in sample.hits), reverse=True)
        assert all(s.rank == 1 and s.hits[0].right for s in by_outcome["found"])
        assert by_outcome["worst"][0].rank == ranks.max() + 1
