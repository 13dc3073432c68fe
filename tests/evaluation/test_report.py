"""The report's files: nothing is lost on the way to disk and back, and the page stands alone."""

from __future__ import annotations

import re
import shutil
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from fake import FakeMatcher, make_dataset

from xretrieve.errors import XRetrieveError
from xretrieve.evaluation import Report, evaluate, evaluate_scores
from xretrieve.evaluation.html import PublishedRow, render
from xretrieve.evaluation.terminal import to_text
from xretrieve.utils import atomic

VOID = {"meta", "img", "br", "link", "input", "hr"}


class Checker(HTMLParser):
    """Every tag is closed in order; every address stays inside the file."""

    def __init__(self):
        super().__init__()
        self.open, self.text, self.images = [], [], []

    def handle_starttag(self, tag, attrs):
        if tag not in VOID:
            self.open.append(tag)
        for key, value in attrs:
            if key in ("src", "href"):
                assert value.startswith(("data:", "#")), value
            if tag == "img" and key == "src":
                self.images.append(value)

    def handle_startendtag(self, tag, attrs):
        pass

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


def check(page):
    checker = Checker()
    checker.feed(page)
    assert checker.open == []
    return re.sub(r"\s+", " ", " ".join(checker.text)), checker.images


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    return make_dataset(tmp_path_factory.mktemp("pictures"))


@pytest.fixture(scope="module")
def report(dataset):
    return evaluate(FakeMatcher(dataset, noise=1.5), dataset, bootstrap=60)


def test_folder_round_trip(report, tmp_path):
    report.save(tmp_path)
    assert {p.name for p in tmp_path.iterdir()} == {"report.json", "ranks.npz", "report.html"}
    again = Report.load(tmp_path)
    assert again.to_json() == report.to_json() and str(again) == str(report)
    for name in ("i2t_ranks", "t2i_ranks"):
        np.testing.assert_array_equal(getattr(again, name), getattr(report, name))
    assert again.thumbnails == report.thumbnails and again.caption_ids == report.caption_ids
    assert render(again) == render(report)


def test_page_says_what_it_must_and_reaches_nowhere(report):
    page = render(report)
    text, images = check(page)
    assert "http" not in page and "@import" not in page and "url(" not in re.sub(r"url\(#\w+\)", "", page)
    setting = report.metrics.setting
    for words in (
        "protocol full",
        "toy/test",
        "30 images",
        f"{setting.captions} captions",
        "coverage 100 %",
        "ties: expected",
        "60 resamples, seed 0",
        "Found",
        "In the middle",
        "Worst",
        "image to text",
        "text to image",
    ):
        assert words in text, words
    assert f"{report['rsum'].value:.1f}" in text and f"{report['rsum'].low:.1f}" in text
    assert images and all(src.startswith("data:image/jpeg;base64,") for src in images)
    assert page.count("<svg") == 2
    assert "caption &lt;" in page and "caption <" not in page  # captions are text, never markup


def test_page_shows_models_and_published_figures_apart(report, dataset):
    other = evaluate(FakeMatcher(dataset, seed=1), dataset, bootstrap=20, name="second")
    elsewhere = evaluate(FakeMatcher(d := make_dataset(n=20)), d, bootstrap=20, name="another split")
    row = PublishedRow("SGR", {"t2i_r1": 56.2, "rsum": 488.8}, "arXiv 2101.01368")
    page = render(report, rows=[report, other, elsewhere], published=[row])
    text, _ = check(page)
    measured, published = text.split("Published by others, not measured here")
    assert "second" in measured and "488.8" in published and "488.8" not in measured
    assert measured.count("fake") >= 1 and "other setting: protocol full, toy/test, 20 images" in measured
    assert page.count("<svg") == 3


def test_published_figures_stay_out_when_images_are_missing():
    part = make_dataset(expected=60)
    page = render(evaluate(FakeMatcher(part), part, bootstrap=20), published=[PublishedRow("SGR", {"rsum": 488.8})])
    assert "488.8" not in page and "1 published rows are not shown" in page and "only 50 %" in page


def test_training_curve_appears_with_a_log(report, tmp_path):
    (tmp_path / "log.csv").write_text("stage,epoch,step,loss,rsum\na,1,5,3.5,\na,2,10,2.5,120.5\n")
    report.save(tmp_path)
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    check(page)
    assert "Training" in page and page.count("<svg") == 3
    (tmp_path / "log.csv").write_text("stage,epoch\n")
    assert "Training" not in render(report, log=tmp_path / "log.csv")


def test_pictures_that_cannot_be_read_are_named_instead():
    absent = make_dataset()
    page = render(evaluate(FakeMatcher(absent), absent, bootstrap=0))
    text, images = check(page)
    assert not images and "p 3.jpg" in text


def test_broken_or_missing_report_says_what_to_do(report, tmp_path):
    with pytest.raises(XRetrieveError, match="xretrieve evaluate"):
        Report.load(tmp_path)
    report.save(tmp_path)
    (tmp_path / "ranks.npz").write_bytes(b"PK broken")
    with pytest.raises(XRetrieveError, match="ranks.npz is broken"):
        Report.load(tmp_path)
    (tmp_path / "report.json").write_text('{"format": 99}')
    with pytest.raises(XRetrieveError, match="format 1"):
        Report.load(tmp_path)


def test_terminal_table_fits_80_columns_even_with_long_ranks():
    rng = np.random.default_rng(0)
    report = evaluate_scores(rng.standard_normal((400, 2000)), np.arange(2000) % 400, bootstrap=20)
    report.metrics.intervals["t2i_meanr"] = (1130.8, 1253.4)
    text = to_text(report, width=80)
    assert "…" not in text and "1131..1253" in text and max(map(len, text.splitlines())) <= 80
    assert "protocol full on scores/" in text and f"rsum {report['rsum'].value:.1f}" in text


class Killed(BaseException):
    pass


def test_a_report_is_all_of_its_files_or_none_wherever_a_kill_comes(report, tmp_path, monkeypatch):
    other = evaluate_scores(np.random.default_rng(1).standard_normal((20, 100)), np.arange(100) // 5, bootstrap=20)
    replace, seen = Path.replace, set()
    for step in range(20):
        report.save(tmp_path)
        left = [step]

        def killed(self, target, left=left):
            left[0] -= 1
            if left[0] < 0:
                raise Killed
            return replace(self, target)

        with monkeypatch.context() as patch:
            patch.setattr(Path, "replace", killed)
            patch.setattr("xretrieve.utils.atomic.shutil.rmtree", lambda *args, **options: None)
            dead = "999999999-" + atomic.me().split("-")[1]
            patch.setattr("xretrieve.utils.atomic.me", lambda dead=dead: dead)
            try:
                other.save(tmp_path)
                done = True
            except Killed:
                done = False
        found = Report.load(tmp_path)
        same = found["rsum"].value == other["rsum"].value
        assert np.array_equal(found.t2i_ranks, (other if same else report).t2i_ranks)
        seen.add((done, same))
        if done:
            break
    report.save(tmp_path)
    assert seen == {(False, False), (False, True), (True, True)}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["ranks.npz", "report.html", "report.json"]


def test_ranks_of_another_evaluation_are_noticed(report, tmp_path):
    other = evaluate_scores(np.random.default_rng(1).standard_normal((20, 100)), np.arange(100) // 5, bootstrap=20)
    report.save(tmp_path / "a")
    other.save(tmp_path / "b")
    shutil.copy(tmp_path / "b" / "ranks.npz", tmp_path / "a" / "ranks.npz")
    with pytest.raises(XRetrieveError, match="ranks.npz is damaged"):
        Report.load(tmp_path / "a")
    path = tmp_path / "b" / "report.json"
    path.write_text(path.read_text().replace('"value": 1', '"value": 2'))
    with pytest.raises(XRetrieveError, match="report.json is damaged: its bytes changed"):
        Report.load(tmp_path / "b")
