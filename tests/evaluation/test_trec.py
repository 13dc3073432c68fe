"""TREC files: read back, they give our recalls."""

from __future__ import annotations

import numpy as np
import pytest
from fake import FakeMatcher, make_dataset

from tests.evaluation.trec_files import read_qrels, read_run
from xretrieve.evaluation import evaluate
from xretrieve.evaluation.protocols import Protocol
from xretrieve.evaluation.trec import trec_id


@pytest.mark.parametrize("folds", [1, 5])
def test_run_and_qrels_give_the_same_recalls(tmp_path, folds):
    dataset = make_dataset()
    report = evaluate(FakeMatcher(dataset, noise=1.5), dataset, Protocol("p", folds=folds), bootstrap=0, trec=tmp_path)
    for direction in ("i2t", "t2i"):
        run, qrels = read_run(tmp_path / f"{direction}.run"), read_qrels(tmp_path / f"{direction}.qrels")
        assert run.keys() == qrels.keys() and len(run) == report[f"{direction}_r1"].queries
        order = dataset.image_ids if direction == "i2t" else dataset.caption_ids
        fold = np.arange(30) // (30 // folds) if direction == "i2t" else dataset.owner // (30 // folds)
        for k in (1, 5):
            hits = np.array([any(doc in qrels[trec_id(q)] for doc, _ in run[trec_id(q)][:k]) for q in order])
            # above the best own caption there are only negatives, so a hit at K is the same here as in our ranks
            recall = 100 * np.mean([hits[fold == f].mean() for f in range(folds)])
            assert recall == pytest.approx(report[f"{direction}_r{k}"].value)
        assert all([s for _, s in hits] == sorted((s for _, s in hits), reverse=True) for hits in run.values())


def test_ids_stay_one_word_and_stay_different(tmp_path):
    assert len({trec_id(name) for name in ("a b", "a%20b", "a\tb", "a_b")}) == 4
    assert all(len(trec_id(name).split()) == 1 for name in ("a b", "a\u00a0b", "é"))
