"""Evaluation of composed queries: galleries, categories, caption modes, missing photos, intervals and files."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import xretrieve as xr
from tests.evaluation.composed_fakes import Sums, make_composed
from tests.evaluation.trec_files import read_qrels, read_run
from xretrieve.data.triplets import Listed
from xretrieve.errors import XRetrieveError
from xretrieve.evaluation import compare
from xretrieve.evaluation.candidates import recalls
from xretrieve.evaluation.composed import composed_metrics, evaluate_all, evaluate_composed_scores
from xretrieve.evaluation.composed_lists import write_cirr
from xretrieve.evaluation.composed_metrics import ComposedSetting
from xretrieve.evaluation.composed_vectors import Vectors, asked
from xretrieve.evaluation.report import Report


def by_hand(data, scores, queries, category="", kept=False, gallery=None, relaxed=False) -> np.ndarray:
    """Ranks in loops over the candidates of each query."""
    ranks = []
    for row, pair in enumerate(queries.pair):
        t = data.triplets[pair]
        if category and t.category != category:
            continue
        rows = [i for i in (gallery if gallery is not None else range(len(data))) if kept or i != t.reference]
        right = set(t.positives) if relaxed else {t.target}
        best = max(scores[row, i] for i in rows if i in right)
        wrong = [scores[row, i] for i in rows if i not in right]
        ranks.append(sum(s > best for s in wrong) + sum(s == best for s in wrong) / 2)
    return np.array(ranks)


def scored(data, mode, ties=True, seed=0):
    queries = asked(data, mode)
    scores = np.random.default_rng(seed).standard_normal((len(queries), len(data)))
    return queries, (np.round(scores * 2) / 2 if ties else scores).astype(np.float32)


@pytest.mark.parametrize("reference", ["kept", "removed"])
def test_each_category_is_ranked_in_its_own_gallery(reference: str) -> None:
    data = make_composed()
    queries, scores = scored(data, "and")
    report = evaluate_composed_scores(scores, data, f"fashion-iq/original/{reference}/and", bootstrap=50)
    for category, gallery in (("dress", range(20)), ("shirt", range(20, 40))):
        ranks = by_hand(data, scores, queries, category, reference == "kept", gallery)
        assert report[f"{category}_r10"].value == pytest.approx(recalls(ranks, [10])[0])
        assert report[f"{category}_r10"].queries == len(ranks) and report[f"{category}_r10"].gallery == 20
    six = [report[f"{c}_r{k}"].value for c in ("dress", "shirt") for k in (10, 50)]
    assert report.headline.name == "mean" and report.headline.value == pytest.approx(np.mean(six))
    assert report["mean_r10"].value == pytest.approx(np.mean(six[::2]))
    assert report["mean"].low <= report["mean"].value <= report["mean"].high


def test_strict_and_relaxed_stand_together_by_kind() -> None:
    data = make_composed("products")
    queries, scores = scored(data, "single")
    report = evaluate_composed_scores(scores, data, bootstrap=0)
    assert report.protocol.name == "products/split/removed/single"
    strict, relaxed = (by_hand(data, scores, queries, relaxed=r) for r in (False, True))
    kind = np.array([t.kind for t in data.triplets])
    same = np.array([t.extra["same_model"] for t in data.triplets])
    for k in (1, 10):
        assert report[f"strict_r{k}"].value == pytest.approx(recalls(strict, [k])[0])
        assert report[f"colour_relaxed_r{k}"].value == pytest.approx(recalls(relaxed[kind == "colour"], [k])[0])
        assert report[f"same_model_strict_r{k}"].value == pytest.approx(recalls(strict[same], [k])[0])
        mean = np.mean([recalls(relaxed[kind == name], [k])[0] for name in ("colour", "size")])
        assert report[f"mean_relaxed_r{k}"].value == pytest.approx(mean)
    number = np.array([len(t.positives) for t in data.triplets])
    assert report["ceiling_r1"].value == pytest.approx(100 * np.mean(1 / number))
    assert report.headline.name == "mean_relaxed_r10"
    assert all("strict" in text and "relaxed" in text and "same model" in text for text in (str(report), report.page()))


def test_cirr_subsets_and_their_mean() -> None:
    data = make_composed("cirr")
    queries, scores = scored(data, "single")
    report = evaluate_composed_scores(scores, data, bootstrap=0)
    ranks = []
    for row, t in enumerate(data.triplets):
        others = np.array([scores[row, m] for m in t.members if m not in (t.reference, t.target)])
        ranks.append((others > scores[row, t.target]).sum() + (others == scores[row, t.target]).sum() / 2)
    assert report["subset_r1"].value == pytest.approx(recalls(np.array(ranks), [1])[0])
    assert report["mean"].value == pytest.approx((report["r5"].value + report["subset_r1"].value) / 2)
    assert any("officially 2,297" in warning for warning in report.warnings)


def test_a_collapsed_model_scores_like_chance() -> None:
    report = xr.evaluate(Sums(collapsed=True), make_composed(), "fashion-iq-removed", bootstrap=0)
    assert report["dress_r10"].value == 100.0 and report.metrics.setting.tied == 30  # 9 is the middle of 19 candidates
    assert report["dress_r10"].pessimistic == 0.0 and report["dress_r10"].optimistic == 100.0
    assert "if ties were always lost" in str(report)


def test_two_queries_of_a_pair_stay_together_in_the_intervals() -> None:
    data = make_composed()
    queries, scores = scored(data, "both-orders", ties=False)
    assert len(queries) == 60 and queries.ids[:2] == ["q0#0", "q0#1"]
    scores[1::2] = scores[::2]  # both orders score alike: twice the queries, not twice the evidence
    double = evaluate_composed_scores(scores, data, "fashion-iq/original/kept/both-orders", bootstrap=300)
    single = evaluate_composed_scores(scores[::2], data, "fashion-iq/original/kept/and", bootstrap=300)
    assert double["mean"].value == single["mean"].value
    assert (double["mean"].low, double["mean"].high) == (single["mean"].low, single["mean"].high)
    assert double["dress_r10"].queries == 36


def test_mean_orders_averages_the_composed_vectors() -> None:
    data = make_composed()
    vectors = Vectors(Sums(), data)
    both, (units,) = vectors.queries("both-orders")
    mean, (averaged,) = vectors.queries("mean-orders")
    assert len(mean) == 30 and len(both) == 60 and vectors.members[0].encoded == 1
    expected = units.reshape(30, 2, -1).sum(1)
    np.testing.assert_allclose(averaged, expected / expected.norm(dim=1, keepdim=True), atol=1e-6)


def test_missing_photos_are_refused_then_give_two_values() -> None:
    data = make_composed(lost=6)
    queries, scores = scored(data, "and")
    with pytest.raises(XRetrieveError, match=r"6 of 46 gallery photos and 6 queries are missing \(first: gone0.*allow"):
        evaluate_composed_scores(scores, data)
    report = evaluate_composed_scores(scores, data, allow_missing=True, bootstrap=0)
    whole = evaluate_composed_scores(scores, make_composed(), bootstrap=0)
    assert report["dress_r10"].value == whole["dress_r10"].value
    assert report.with_lost["dress_r10"] == pytest.approx(report["dress_r10"].value * 18 / 24)
    assert report.with_lost["shirt_r10"] == report["shirt_r10"].value
    setting = report.metrics.setting
    assert isinstance(setting, ComposedSetting)
    assert setting.coverage == pytest.approx(40 / 46) and (setting.lost, setting.galleries["dress"]) == (6, 26)
    assert "over all queries" in str(report) and "86.96 %" in str(report)
    assert evaluate_composed_scores(scores, replace(data, allow_missing=True), bootstrap=0).with_lost
    assert composed_metrics(scores, data) == dict(report.metrics.values)


def test_an_unreachable_target_is_a_miss_and_counted() -> None:
    data = make_composed()
    data.triplets[0] = replace(data.triplets[0], target=data.triplets[0].reference)
    queries, scores = scored(data, "and")
    removed = evaluate_composed_scores(scores, data, "fashion-iq-removed", bootstrap=0)
    kept = evaluate_composed_scores(scores, data, "fashion-iq", bootstrap=0)
    assert (removed.metrics.setting.unreachable, kept.metrics.setting.unreachable) == (1, 0)
    assert np.isinf(removed.ranks[0]) and np.isfinite(kept.ranks[0])


def test_all_protocols_encode_the_images_once() -> None:
    matcher, data = Sums(), make_composed()
    reports = evaluate_all(matcher, data, bootstrap=20)
    assert [r.protocol.name for r in reports] == [
        "fashion-iq/original/kept/and", "fashion-iq/original/removed/and", "fashion-iq/val-union/removed/and",
    ]  # fmt: skip
    assert matcher.encoded == 1
    alone = xr.evaluate(Sums(), data, "fashion-iq-val", bootstrap=20)
    assert alone.metrics.values == reports[2].metrics.values and alone.metrics.intervals == reports[2].metrics.intervals


def test_wrong_protocols_and_hidden_targets_fail_before_anything_is_encoded() -> None:
    matcher, data = Sums(), make_composed()
    with pytest.raises(XRetrieveError, match="is for shoes, not for fashion_iq; for fashion_iq: fashion-iq/original"):
        xr.evaluate(matcher, data, "shoes")
    with pytest.raises(XRetrieveError, match="targets are not public"):
        xr.evaluate(matcher, replace(data, hidden=True), "fashion-iq")
    with pytest.raises(XRetrieveError, match="needs VAL's own list"):
        xr.evaluate(matcher, make_composed("shoes"), "shoes-val")
    with pytest.raises(XRetrieveError, match="queries x images"):
        evaluate_composed_scores(np.zeros((2, 2)), data)
    assert matcher.encoded == 0


def test_a_report_is_saved_read_and_compared(tmp_path: Path) -> None:
    data = make_composed("products", folder=tmp_path)
    a, b = (xr.evaluate(Sums(f"m{s}", seed=s), data, bootstrap=30, trec=tmp_path / f"trec{s}") for s in (0, 1))
    folder = a.save(tmp_path / "report", rows=[b])
    again = Report.load(folder)
    assert again.metrics.values == a.metrics.values and again.headline.low == a.headline.low
    assert np.array_equal(again.ranks, a.ranks) and again.samples == a.samples and again.protocol == a.protocol
    assert "data:image/jpeg" in (folder / "report.html").read_text() and a.samples[0].text.startswith("make it")
    found = compare(again, b, resamples=50)
    assert found["mean_relaxed_r10"].value == pytest.approx(b.headline.value - a.headline.value)
    run, relevant = read_run(tmp_path / "trec0/composed.run"), read_qrels(tmp_path / "trec0/composed.qrels")
    hits = [{d for d, _ in run[q][:10]} & relevant[q] for q in relevant]
    assert 100 * np.mean([bool(h) for h in hits]) == pytest.approx(a["strict_r10"].value)
    assert all(t.id in run and data.image_ids[t.reference] not in dict(run[t.id]) for t in data.triplets)


def test_the_servers_files_of_cirr(tmp_path: Path) -> None:
    data = make_composed("cirr")
    gallery = {"test1": Listed(np.arange(40), 40)}
    hidden = [replace(t, target=None) for t in data.triplets]
    data = replace(data, triplets=hidden, hidden=True, galleries=gallery)
    paths = write_cirr(tmp_path, Sums(), data)
    best, subset = (json.loads(path.read_text()) for path in paths)
    assert [p.name for p in paths] == ["recall.json", "recall_subset.json"]
    assert (best["version"], best["metric"], subset["metric"]) == ("rc2", "recall", "recall_subset")
    for t in hidden:
        reference = data.image_ids[t.reference]
        assert len(best[t.id]) == 39 and reference not in best[t.id] and len(set(best[t.id])) == 39
        members = {data.image_ids[m] for m in t.members} - {reference}
        assert len(subset[t.id]) == 3 and set(subset[t.id]) <= members
        assert subset[t.id] == [name for name in best[t.id] if name in members][:3]
    with pytest.raises(XRetrieveError, match="are for cirr"):
        write_cirr(tmp_path, Sums(), make_composed())
    with pytest.raises(XRetrieveError, match="1 photos are missing"):
        write_cirr(tmp_path, Sums(), replace(data, expected_images=41))
