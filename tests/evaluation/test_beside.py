"""Published figures and an ensemble's members beside a report: marked as what they are, and gone where they mislead."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from xretrieve.errors import XRetrieveError
from xretrieve.evaluation import Report, evaluate_scores
from xretrieve.evaluation.published import published_rows
from xretrieve.evaluation.rows import MemberRow, member_row


def measured(name: str = "mine", expected: int | None = None) -> Report:
    owner = np.repeat(np.arange(6), 2)
    scores = np.random.default_rng(0).standard_normal((6, 12)).astype(np.float32)
    return evaluate_scores(scores, owner, protocol="full", expected_images=expected, bootstrap=50, name=name)


def squeezed(report: Report) -> str:
    return " ".join(str(report).split())


def test_published_figures_stand_under_their_own_heading_and_are_kept(tmp_path):
    report = measured()
    report.published = published_rows("flickr30k", "flickr-1k", ["SGR (paper)", "CHAN BiGRU"])
    text = squeezed(report)
    assert text.index("measured here") < text.rindex("mine") < text.index("published by others") < text.index("488.8")
    assert "79.7 94.5" in text  # a model without R@10 has empty cells
    again = Report.load(report.save(tmp_path, published=report.published))
    assert again.published == report.published and squeezed(again) == text
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "Published by others, not measured here" in page and "SGR (paper)" in page


def test_no_published_figure_beside_a_subset(tmp_path):
    report = measured(expected=20)
    report.published = published_rows("flickr30k", "flickr-1k", ["SGR (paper)"])
    assert "488.8" not in str(report) and "left out: images are missing" in squeezed(report)
    report.save(tmp_path, published=report.published)
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "488.8" not in page and "published rows are not shown" in page


def test_members_are_shown_with_their_interval_and_are_kept(tmp_path):
    report, own = measured("both*"), measured("one")
    report.members = [member_row(own)]
    assert report.members[0] == MemberRow("one", {k: own[k].value for k in report.members[0].values},
                                          own["rsum"].low, own["rsum"].high)  # fmt: skip
    text = squeezed(report)
    assert text.rindex("both*") < text.index("its members alone") < text.index("one ")
    assert Report.load(report.save(tmp_path, rows=[own])).members == report.members


def test_reports_of_older_runs_still_load(tmp_path):
    import json

    report = measured()
    report.save(tmp_path)
    values = json.loads((tmp_path / "report.json").read_text())
    assert values.pop("members") == [] and values.pop("published") == []
    assert values.pop("checksum")  # older ones have none
    (tmp_path / "report.json").write_text(json.dumps(values))
    assert Report.load(tmp_path).published == []


def test_a_published_row_that_nobody_printed_is_named():
    with pytest.raises(XRetrieveError, match=r"did you mean 'SGRAF\* \(paper\)'"):
        published_rows("mscoco", "coco-5k", ["SGRAF (paper)"])
    with pytest.raises(XRetrieveError, match="no figures are known for flickr8k"):
        published_rows("flickr8k", "flickr-1k", ["SCAN*"])
    names = ["SCAN*", "CAMP"]
    assert [row.name for row in published_rows("flickr30k", "flickr-1k", names)] == names
    assert dataclasses.asdict(published_rows("mscoco", "coco-1k", ["SCAN*"])[0])["values"]["rsum"] == 507.9
