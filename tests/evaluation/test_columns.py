"""A metric says itself what it is: unit and direction are those of the metric, in every report and wherever they go."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import xretrieve as xr
from tests.evaluation.composed_fakes import Sums, make_composed
from tests.evaluation.round_fakes import Rounds, make_sets
from xretrieve.evaluation import Report, compare, evaluate_scores
from xretrieve.evaluation.metrics import Column, share, values_of, with_parts
from xretrieve.evaluation.rows import member_row
from xretrieve.sharing.card import Result

FIXTURES = Path(__file__).resolve().parents[1] / "fixtures"


KINDS = ("pairs", "rounds", "fashion_iq", "cirr", "products", "any")


@pytest.fixture(scope="module")
def reports() -> dict[str, Report]:
    """A report of each evaluation, and of each table of composed queries."""
    rng, sets = np.random.default_rng(0), make_sets(images=12)
    found: dict[str, Any] = {
        "pairs": evaluate_scores(rng.standard_normal((20, 100)), np.arange(100) // 5, bootstrap=5),
        "rounds": xr.evaluate(Rounds(sets, noise=3), sets, "rounds", bootstrap=5, combine="mean_similarity"),
    }
    for name in KINDS[2:]:
        data = make_composed(name)
        protocol = "composed" if name == "any" else None
        found[name] = xr.evaluate(Sums(), data, protocol, bootstrap=5)
    return found


@pytest.mark.parametrize("kind", KINDS)
def test_only_median_and_mean_rank_are_ranks_and_are_shared_so(kind: str, reports: dict[str, Report]) -> None:
    report = reports[kind]
    units = {name: one["unit"] for name, one in json.loads(report.to_json())["metrics"].items()}
    ranks = {name for name, unit in units.items() if unit == "rank"}
    assert ranks == {name for name in units if name.rpartition("_")[2] in ("medr", "meanr")}
    assert set(units.values()) - {"rank"} == {"percent"}
    assert {name: one["unit"] for name, one in Result.of(report).metrics.items()} == units
    assert {c.name for c in report.metrics.columns if c.better == "lower"} == ranks


def test_recalls_and_precision_without_a_group_are_percent(reports: dict[str, Report]) -> None:
    assert reports["any"]["r10"].unit == reports["products"]["map10"].unit == "percent"
    assert reports["any"].metrics.to_dict()["metrics"]["mean"]["unit"] == "percent"


def test_a_report_of_before_loads_and_its_units_are_right_when_it_is_saved_again(tmp_path: Path) -> None:
    run = FIXTURES / "trained" / "progressive"
    before = json.loads((run / "report.json").read_text(encoding="utf-8"))["metrics"]
    assert before["map10"]["unit"] == "rank"  # the fault
    report = Report.load(run)
    assert report["map10"].unit == "percent"
    after = json.loads((report.save(tmp_path) / "report.json").read_text(encoding="utf-8"))["metrics"]
    assert after == {name: {**one, "unit": "percent"} for name, one in before.items()}


@pytest.mark.parametrize("kind", KINDS)
def test_the_row_of_a_model_has_all_that_it_measured_in_percent(kind: str, reports: dict[str, Report]) -> None:
    report = reports[kind]
    names = set(member_row(report).values)
    assert set(report.main_metrics()) <= names
    assert names == {c.name for c in report.metrics.columns if c.unit == "percent"} - {
        name for name in report.metrics if "ceiling" in name
    }


@pytest.mark.parametrize("kind", KINDS)
def test_lower_is_better_of_ranks_alone(kind: str, reports: dict[str, Report]) -> None:
    from rich.console import Console

    report = reports[kind]
    found = compare(report, report, resamples=20)
    assert set(report.main_metrics()) <= set(found.differences) and not any("ceiling" in n for n in found.differences)
    console = Console(width=200)
    with console.capture() as capture:
        console.print(found)
    assert ("Lower is better" in capture.get()) == (kind in ("pairs", "rounds"))


def test_a_column_is_reduced_over_its_own_queries_and_made_of_its_parts() -> None:
    hits, first = np.array([True, False, True, True]), np.array([True, True, False, False])
    columns = [
        Column("sum", "percent", "higher", sum, parts=("all", "first")),
        Column("all", "percent", "higher", share, hits),
        Column("first", "percent", "higher", share, hits, first),
    ]
    assert values_of(columns) == {"sum": 125.0, "all": 75.0, "first": 50.0}
    assert values_of(columns, np.array([False, True, True, True]))["first"] == 0.0
    assert np.isnan(values_of(columns[2:], ~first)["first"])
    drawn = with_parts(columns, {"all": np.array([1.0, 2.0]), "first": np.array([10.0, 20.0])})
    assert list(drawn) == ["sum", "all", "first"] and drawn["sum"].tolist() == [11.0, 22.0]
