"""Suites and the leaderboard: the data are looked at first, every model has a row, every row says how it was made."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.bench.conftest import SMALL
from xretrieve.bench import suites
from xretrieve.bench.leaderboard import append, read
from xretrieve.cli.main import main
from xretrieve.errors import XRetrieveError
from xretrieve.training.recipes import load_recipe


def test_a_suite_is_a_dataset_with_its_recipes_of_all_tasks() -> None:
    known = suites.suites()
    assert set(known) == {"cirr", "fashion_iq", "flickr30k", "flickr8k", "mscoco", "products", "scenes", "shoes",
                          "visual_genome"}  # fmt: skip
    assert {"image_text/scenes-dual", "multi_query/scenes-hmrn", "composed/scenes-tirg"} <= set(known["scenes"])
    for data, recipes in known.items():
        assert {load_recipe(name).dataset.name for name in recipes} == {data}


def test_models_are_recipes_in_short_pretrained_names_or_words_for_many() -> None:
    data, recipes, ready = suites.select("scenes", ["sgr", "drilldown-policy", "open_clip:A/b", "zero-shot"])
    assert data == "scenes" and ready == ["open_clip:A/b", *suites.BASELINES]
    assert recipes == ["image_text/scenes-sgr", "multi_query/scenes-drilldown-policy", "multi_query/scenes-drilldown"]
    assert suites.select("scenes-sgr") == ("scenes", ["image_text/scenes-sgr"], [])
    assert suites.select("shoes")[1] == suites.suites()["shoes"]
    for target, models, message in (("scens", (), "did you mean 'scenes'"), ("scenes", ["sgf"], "unknown model")):
        with pytest.raises(XRetrieveError, match=message):
            suites.select(target, models)


def test_absent_data_are_said_once_and_nothing_is_trained(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "shoes"]) == 1
    out = capsys.readouterr().out
    assert out.count("nothing of it lies under the data root") == 1 and "composed.shoes-tirg" in out
    assert not (here / "runs").exists()
    assert main(["bench", "--list", "--json"]) == 0
    told = {suite["name"]: suite for suite in json.loads(capsys.readouterr().out)}
    assert "data check shoes" in told["shoes"]["missing"] and told["scenes"]["missing"] == ""
    assert "multi_query: scenes-10" in told["scenes"]["protocols"]


def test_every_model_has_a_row_and_a_line_that_makes_it_again(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ask = ["bench", "scenes", *SMALL, "--models", "image_text/scenes-dual", "multi_query/scenes-drilldown-policy"]
    assert main([*ask, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    (suite,) = told["suites"]
    rows = {row["name"]: row for row in suite["table"]["rows"]}
    names = ("image_text.scenes-dual", "multi_query.scenes-drilldown", "multi_query.scenes-drilldown-policy")
    assert tuple(rows) == names
    assert told["rows"] == [1, 2, 3] and suite["skipped"] == {}

    trained = "runs/bench/scenes/cells/image_text.scenes-dual-s0"
    assert main([*ask[:2], *SMALL, "--models", "dual", trained, "hf-hub:no/such"]) == 0
    out = capsys.readouterr().out
    assert "## full" in out and f"| `{trained}, full` | run |" in out and "skipped: hf-hub:no/such, full: " in out
    found = read(Path("runs/leaderboard.jsonl"))
    assert len(found) == 3, "the same model under the same protocol is one result"

    assert main(["leaderboard", "--protocol", "full", "--json"]) == 0
    (first,) = json.loads(capsys.readouterr().out)
    assert (first["model"], first["seed"], first["metric"]) == ("image_text/scenes-dual", 0, "rsum")
    assert first["value"] == rows["image_text.scenes-dual"]["values"]["rsum"]
    assert first["precision"] == {"scored": "float32 (inner products)", "trained": "float32"}

    assert main(["leaderboard", "show", "1"]) == 0
    text = capsys.readouterr().out
    assert "# xretrieve leaderboard show 1 > row.yaml" in text
    Path("row.yaml").write_text(text)
    assert main(["train", "row.yaml", "--out", "runs/again", "--json"]) == 0
    again = json.loads(capsys.readouterr().out)["report"]
    assert again["matcher"]["fingerprint"] == first["fingerprint"]
    assert again["metrics"]["rsum"]["value"] == first["value"]

    assert main(["leaderboard", "show", "3"]) == 0
    text = capsys.readouterr().out
    begins = yaml.safe_load(text)["start"]
    assert "# xretrieve leaderboard show 2 > start.yaml" in text and f"--out {begins}" in text


def test_the_board_in_the_terminal(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["leaderboard"]) == 0 and "xretrieve bench SUITE" in capsys.readouterr().out
    append([line(model="open_clip:A/b", value=40.0), line(model="other", value=50.0, fingerprint="y")], BOARD)
    assert main(["leaderboard"]) == 0
    out = capsys.readouterr().out
    assert out.index("other") < out.index("open_clip:A/b"), "the best first"
    assert main(["leaderboard", "--data", "flickr30k"]) == 0 and "nothing in" in capsys.readouterr().out
    assert main(["leaderboard", "show", "1"]) == 0
    assert capsys.readouterr().out == "xretrieve evaluate open_clip:A/b --dataset flickr8k\n"
    assert main(["leaderboard", "show", "9"]) == 2 and "no entry 9" in capsys.readouterr().err


BOARD = Path("runs/leaderboard.jsonl")


def line(**keys: Any) -> dict[str, Any]:
    empty = dict.fromkeys(("seed", "low", "high", "cpu_seconds", "parameters", "recipe"))
    entry = {"model": "m", "kind": "zero-shot", "dataset": "flickr8k", "split": "test", "protocol": "flickr-1k",
             "setting": "s", "metric": "rsum", "value": 1.0, "created": "2026-01-01T00:00:00Z", "fingerprint": "x",
             "folder": "f", "command": f"xretrieve evaluate {keys.get('model', 'm')} --dataset flickr8k"}  # fmt: skip
    return empty | entry | keys


def test_appending_keeps_what_is_there_and_a_broken_line_is_named(here: Path) -> None:
    assert append([line(), line(fingerprint="y")], BOARD) == [1, 2]
    assert append([line(fingerprint="y", value=9.0), line(protocol="full")], BOARD) == [2, 3]
    assert [one["value"] for one in read(BOARD)] == [1.0, 1.0, 1.0]
    BOARD.write_text(BOARD.read_text() + "{broken\n")
    with pytest.raises(XRetrieveError, match="line 4: not valid JSON"):
        append([line(fingerprint="z")], BOARD)
    assert BOARD.read_text().count("\n") == 4


def test_values_after_one_another_are_one_option() -> None:
    from xretrieve.cli.options import spread

    assert spread(["a", "--models", "x", "y", "k=1", "b", "--seeds", "0", "--models", "z"], ["--models"]) == \
        ["a", "--models", "x", "--models", "y", "k=1", "b", "--seeds", "0", "--models", "z"]  # fmt: skip
