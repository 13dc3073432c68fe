"""The report on the claims: made cell by cell, resumed, moved, and honest about what is missing."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from tests.bench.conftest import SMALL
from xretrieve.bench import claims, claims_report, claims_run
from xretrieve.bench.claims import CLAIMS, Claim
from xretrieve.cli.main import main
from xretrieve.errors import XRetrieveError
from xretrieve.evaluation import Report

WORDS = [*SMALL, "text.options.dim=16", "stages.1.epochs=1"]
TINY = {
    ("rounds", "scenes"): (*SMALL, "text.options.word_dim=8", "text.options.dim=16", "head.options.dim=16"),
    ("streams", "scenes"): WORDS,
    ("stages", "scenes"): WORDS,
}


ROWS = {"rounds": ("drilldown", "hmrn-t2i"), "streams": ("sgr-t2i", "two-none"), "stages": ("tirg", "progressive")}


@pytest.fixture
def tiny(here: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two rows of each claim, on a dozen pictures."""
    few = tuple(replace(claim, quick=ROWS[claim.key]) for claim in CLAIMS)
    monkeypatch.setattr(claims, "QUICK", dict(TINY))
    monkeypatch.setattr(claims_run, "CLAIMS", few)
    for claim in few:
        monkeypatch.setitem(claims.BY_KEY, claim.key, claim)
    return here


# a dataset that has every row: only the catalogue's backbone has earlier layers to leave out
WHOLE = {"rounds": "scenes", "streams": "scenes", "stages": "products"}


@pytest.mark.parametrize("claim", CLAIMS, ids=lambda claim: claim.key)
def test_what_a_claim_names_is_there(claim: Claim, tmp_path: Path) -> None:
    assert claim.datasets()[0] == "scenes"
    small, whole = (set(claim.cells(data, tmp_path, quick=False).by_name) for data in ("scenes", WHOLE[claim.key]))
    assert set(claim.quick) <= small & set(claim.rows) and set(claim.rows) <= whole
    assert {pair.b for pair in claim.pairs} | {pair.a for pair in claim.pairs} - {claims.BEST} <= set(claim.rows)
    assert set(claim.baselines) | set(claim.printed) <= set(claim.rows)
    main_pairs = [pair for pair in claim.pairs if pair.main and pair.b in claim.quick]
    assert main_pairs, "a quick run has something to say"


@pytest.mark.parametrize("quick", [True, False])
def test_budgets_are_keys_of_every_row(quick: bool, tmp_path: Path) -> None:
    for key, data in claims.QUICK if quick else claims.FULL:
        claim = claims.BY_KEY[key]
        cells = claim.cells(data, tmp_path, quick)  # reads every row's recipe
        assert set(claim.names(quick)) <= set(cells.by_name)


def test_the_papers_numbers_are_those_of_the_published_tables() -> None:
    assert claims.PROGRESSIVE.startswith("+9.5 % (55.29 against 50.50) on Shoes, +24.9 %")


def test_one_command_measures_all_claims_and_a_second_one_trains_nothing(
    tiny: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert main(["bench", "claims", "--quick", "--data", "scenes", "--seeds", "3", "--jobs", "2"]) == 0
    said = capfd.readouterr()
    assert "quick: not the measured result" in said.out and "stages, scenes: sum (" in said.err
    out = tiny / "runs/claims-quick"
    text, page = (out / "report.md").read_text(), (out / "report.html").read_text()
    for word in ("HMRN", "+23.4 %", "published by others", "seed", "protocol scenes-10", "rounds-scenes.png"):
        assert word in text, word
    assert page.count("<svg") == 6 and "not the measured result" in page and "https://" not in page
    assert {path.name for path in (out / "plots").iterdir()} >= {"rounds-scenes.png", "stages-scenes-gains.png"}
    told = json.loads((out / "report.json").read_text())
    rounds = told["claims"][0]["found"][0]
    measured = Report.load(out / "multi_query/scenes/cells/hmrn-t2i-s3")["round10_r1"].value
    row = next(row for row in rounds["rows"] if row["name"] == "hmrn-t2i")
    assert row["values"]["round10_r1"] == measured and row["seeds"] == [3]
    cost = json.loads((out / "multi_query/scenes/cells/hmrn-t2i-s3/cost.json").read_text())
    assert (row["cpu_seconds"], row["parameters"]) == (cost["cpu"], cost["parameters"]) and cost["parameters"] > 0
    pair = rounds["pairs"][0]
    other = Report.load(out / "multi_query/scenes/cells/drilldown-s3")["round10_r1"].value
    assert pair["gains"]["round10_r1"]["value"] == pytest.approx(measured - other)
    assert told["quick"] and told["versions"]["torch"] and rounds["measured_with"]

    stamps = {path: path.stat().st_mtime_ns for path in out.rglob("cells/*/report.json")}
    elsewhere = tiny / "moved"
    shutil.copytree(out, elsewhere, ignore=lambda folder, names: [n for n in names if n.startswith("report.m")])
    ask = ["bench", "claims", "--quick", "--data", "scenes", "--seeds", "3", "--out", str(elsewhere), "--json"]
    assert main(ask) == 0
    said = capfd.readouterr()
    assert "seed 3" not in said.err, "copied cells are not trained again"
    assert json.loads(said.out)["claims"][0]["found"][0]["rows"] == rounds["rows"]
    assert {path: path.stat().st_mtime_ns for path in stamps} == stamps


def test_cells_of_another_recipe_are_said_and_the_rest_is_reported(
    tiny: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    ask = ["bench", "claims", "--quick", "--data", "scenes", "--only", "rounds", "--out", "o"]
    assert main(ask) == 0
    measured = capsys.readouterr().out
    with monkeypatch.context() as context:
        context.setattr(claims_run, "missing", lambda data: "its files are gone")
        assert main([*ask, "--report-only"]) == 0
        assert capsys.readouterr().out == measured, "finished cells are reported without their data"
    monkeypatch.setitem(claims.QUICK, ("rounds", "scenes"), (*TINY["rounds", "scenes"], "stages.0.lr=0.5"))
    assert main(ask) == 1
    assert "was trained with another value of stages.0.lr" in capsys.readouterr().out
    assert "**stopped: rounds, scenes:" in Path("o/report.md").read_text()


def test_a_report_of_what_is_there_trains_nothing_and_names_the_rest(tiny: Path) -> None:
    report = claims_run.run_claims(Path("o"), quick=True, train=False)
    (found,) = report.found["rounds"]
    assert found.absent == ["drilldown", "hmrn-t2i"] and not found.rows
    assert "nothing of it lies under the data root" in report.skipped["stages"]["products"]
    text = claims_report.markdown(report, {(key, "scenes"): [] for key in report.found})
    assert "Nothing is measured yet." in text and "products: nothing of it" in text
    assert not list(Path("o").rglob("cells"))


def test_real_sets_without_a_small_budget_are_left_to_the_full_run(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(claims_run, "missing", lambda data: "")
    report = claims_run.run_claims(Path("o"), quick=True, train=False, only=["streams"])
    assert "without --quick measures it" in report.skipped["streams"]["mscoco"]


def test_wrong_names_are_said(here: Path) -> None:
    for given, message in (({"only": ["stage"]}, "did you mean 'stages'"), ({"data": ["scens"]}, "mean 'scenes'")):
        with pytest.raises(XRetrieveError, match=message):
            claims_run.run_claims(Path("o"), train=False, **given)  # type: ignore[arg-type]
