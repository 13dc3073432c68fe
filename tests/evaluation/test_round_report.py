"""The report of query sets: what the terminal, the files and the page show, and the paired comparison of two."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import xretrieve as xr
from tests.evaluation.round_fakes import Rounds, make_sets
from xretrieve.errors import XRetrieveError
from xretrieve.evaluation import Report, compare, round_terminal
from xretrieve.evaluation.round_report import RoundsReport
from xretrieve.evaluation.round_terminal import rounds_table
from xretrieve.evaluation.rows import MemberRow, member_row


@pytest.fixture
def report(tmp_path: Path) -> RoundsReport:
    data = make_sets(tmp_path, images=30, short=3)
    data.notes = ["2 images <were> left out"]
    found = xr.evaluate(Rounds(data, noise=3), data, "rounds", bootstrap=60, seed=2, combine="mean_similarity")
    assert isinstance(found, RoundsReport)
    return found


def test_a_saved_report_comes_back_the_same(report: RoundsReport, tmp_path: Path) -> None:
    folder = report.save(tmp_path / "run")
    again = Report.load(folder)
    assert isinstance(again, RoundsReport) and again.to_dict() == report.to_dict()
    assert np.array_equal(again.ranks, report.ranks) and again.protocol == report.protocol
    assert again.thumbnails == report.thumbnails and again.samples == report.samples
    assert again["round2_r5"] == report["round2_r5"]


def test_json_has_every_round_with_what_it_was_measured_on(report: RoundsReport) -> None:
    values = json.loads(report.to_json())
    assert [row["round"] for row in values["rounds"]] == [1, 2, 3, 4]
    assert values["rounds"][3]["r1"] == report["round4_r1"].value
    assert values["metrics"]["round3_medr"]["unit"] == "rank" and values["metrics"]["round3_r1"]["unit"] == "percent"
    assert values["metrics"]["round3_r1"]["queries"] == 30 and values["metrics"]["round3_r1"]["gallery"] == 30
    setting = values["setting"]
    assert (setting["sets"], setting["turns"], setting["captions"], setting["seed"]) == (30, 4, 114, 2)
    assert values["about"]["data"] == "2 images <were> left out"
    assert values["about"]["sets are scored by"] == "mean similarity"


def test_the_terminal_fits_80_columns_and_says_the_rules(report: RoundsReport) -> None:
    from xretrieve.evaluation.round_terminal import rounds_text

    text = rounds_text(report, 80)
    assert max(map(len, text.splitlines())) <= 80 and "…" not in text
    large = make_sets(images=2000, turns=10)  # ranks and numbers of sets of four digits
    assert "…" not in rounds_text(xr.evaluate(Rounds(large, noise=9), large, "rounds", bootstrap=20), 80)
    said = " ".join(str(report).split())
    for part in (
        "30 query sets of up to 4 sentences (114 in all), each against 30 images",
        "ties: expected rank",
        "sentences: the first 4 of each set, in stored order",
        "left out: no set",
        "bootstrap over images, 60 resamples, seed 2",
        f"rsum of round 4 {report['rsum']}",
    ):
        assert part in said


def test_the_page_shows_all_rounds_their_plots_and_sentences_as_text(report: RoundsReport) -> None:
    other = replace(report, name="a second model")
    page = report.page(rows=[other])
    assert page.count("<svg") == 3 and 'aria-label="recall by round"' in page and 'aria-label="models by round"' in page
    assert "a second model" in page and "&lt;were&gt;" in page and "<were>" not in page
    for turn in range(1, 5):
        assert f"<td>{turn}</td>" in page
    sample = report.samples[0]
    assert sample.turns[0].replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;") in page
    assert "http" not in page.replace("http-equiv", "")
    assert len(sample.ranks) == len(sample.turns) and len(sample.hits) == 5


def test_rows_of_another_setting_are_marked_and_not_drawn(report: RoundsReport) -> None:
    data = make_sets(images=12)
    other = xr.evaluate(Rounds(data), data, "rounds", bootstrap=0, name="elsewhere")
    page = report.page(rows=[other])
    assert "other setting: protocol rounds" in page and 'aria-label="models by round"' not in page


def test_members_of_an_ensemble_stand_below_it(report: RoundsReport) -> None:
    report.members = [replace(member_row(report), name="the t2i half")]
    assert "the t2i half" in str(report)
    assert len(rounds_table([report, report]).columns) == 6


def test_ten_rounds_fit_into_80_columns(capsys: pytest.CaptureFixture[str]) -> None:
    from rich.console import Console

    name, rounds = "multi_query/scenes-hmrn-t2i", {f"round{turn}_r1": 80.0 + turn for turn in range(1, 11)}
    row = MemberRow(name, {**rounds, "rsum": 285.8}, low=283.2, high=288.9)
    Console(width=80).print(round_terminal._rows([row], turns=10, k=1))
    said = capsys.readouterr().out
    first = [line.split()[0] for line in said.splitlines() if line.strip()]
    assert name in "".join(first)  # folded, and whole
    assert all(f"{value:.1f}" in said for value in rounds.values()) and "285.8" in said and "283..289" in said


def test_two_runs_are_compared_round_by_round_on_the_same_draws(report: RoundsReport) -> None:
    data = make_sets(images=30, short=3)
    better = xr.evaluate(Rounds(data, noise=1), data, "rounds", bootstrap=0, combine="mean_similarity")
    found = compare(report, better, resamples=200)
    assert set(found.differences) == set(report.metrics.values)
    gain = found["round4_meanr"]
    assert gain.value == better["round4_meanr"].value - report["round4_meanr"].value < 0 and gain.high < 0
    assert compare(report, report, resamples=50)["round1_r1"].high == 0
    assert json.loads(json.dumps(found.to_dict()))["setting"]["sets"] == 30


def test_runs_on_other_sets_are_not_compared(report: RoundsReport) -> None:
    data = make_sets(images=30)
    longer = xr.evaluate(Rounds(data), data, "rounds", bootstrap=0)
    with pytest.raises(XRetrieveError, match="different numbers of sentences"):
        compare(report, longer)
    fewer = make_sets(images=30, bare=1)
    with pytest.raises(XRetrieveError, match="number of query sets 30 against 29"):
        compare(report, xr.evaluate(Rounds(fewer), fewer, "rounds", bootstrap=0))
    with pytest.raises(XRetrieveError, match="protocol"):
        pairs = xr.evaluate(Rounds(data), data, "full", bootstrap=0)
        compare(report, pairs)


def test_a_round_that_is_not_there_is_said(report: RoundsReport) -> None:
    with pytest.raises(XRetrieveError, match="this report has the rounds 1 to 4"):
        report.at(5)
    with pytest.raises(XRetrieveError, match="did you mean 'round4_meanr'"):
        report["round4_mean"]
