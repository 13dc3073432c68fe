"""Recipes with members: each is trained once, a stopped training goes on, and the average is measured beside them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from xretrieve.cli.main import main
from xretrieve.ensemble import Ensemble
from xretrieve.errors import XRetrieveError
from xretrieve.evaluation import Report, compare, score_matrix
from xretrieve.training.build import load_split
from xretrieve.training.members import flat, member_source
from xretrieve.training.recipe import HeadConfig, LossConfig, Recipe
from xretrieve.training.recipes import load_recipe, save_recipe
from xretrieve.training.run import train
from xretrieve.training.run_folder import Run


class KilledError(Exception):
    pass


@pytest.fixture
def pair(make_recipe: Callable[..., Recipe], tmp_path: Path) -> Callable[..., Path]:
    """The file of an ensemble of SGR and SAF over the tiny data; keywords change its keys."""
    for name in ("sgr", "saf"):
        recipe = make_recipe(loss=LossConfig("hinge"), epochs=1)
        recipe.name, recipe.head = f"tests/{name}", HeadConfig(name, {"dim": 16, "sim_dim": 8})
        save_recipe(recipe, tmp_path / f"{name}.yaml")

    def write(**keys: Any) -> Path:
        data = {"name": "flickr30k", "root": str(recipe.dataset.root), "layout": "precomp"}
        members = [str(tmp_path / "sgr.yaml"), str(tmp_path / "saf.yaml")]
        values = {"name": "tests/both", "dataset": data, "protocol": "full", "members": members, **keys}
        path = tmp_path / "both.yaml"
        path.write_text(yaml.safe_dump(values), encoding="utf-8")
        return path

    return write


def test_members_are_trained_and_their_average_is_measured(pair: Callable[..., Path], tmp_path: Path) -> None:
    run = train(pair(seed=3), out=tmp_path / "run")
    assert [m.recipe.seed for m in run.members()] == [3, 3] and (tmp_path / "run/members/sgr/matcher").is_dir()
    assert run.report.name == "tests/both*" and [r.name for r in run.report.members] == ["tests/sgr", "tests/saf"]
    assert run.report.members[0].values["rsum"] == pytest.approx(run.members()[0].report["rsum"].value)
    matcher = run.matcher()
    assert isinstance(matcher, Ensemble) and matcher.names == ["sgr", "saf"]
    test = load_split(run.recipe.dataset, "test")
    parts = [score_matrix(m.matcher(), test)[0] for m in run.members()]
    mean = np.mean([1 / (1 + np.exp(-part.astype(float))) for part in parts], 0)
    fused = score_matrix(matcher, test)[0]
    np.testing.assert_allclose(fused, np.log(mean) - np.log(1 - mean), atol=1e-5)
    ranks = (fused > fused[test.owner, np.arange(len(test.owner))]).sum(0)
    assert run.report.t2i_ranks.tolist() == ranks.tolist()
    again = Run.open(run.folder)
    assert again.report.members == run.report.members and again.log == []
    assert compare(again.members()[0].report, again.report)["rsum"].b == again.report["rsum"].value
    page = (run.folder / "report.html").read_text(encoding="utf-8")
    assert "tests/both*" in page and "tests/saf" in page
    assert "its members alone" in str(again.report) and "tests/sgr" in str(again.report)


def test_a_stopped_training_goes_on_and_trains_no_finished_member_again(
    pair: Callable[..., Path], tmp_path: Path
) -> None:
    steps: list[int] = []

    def kill(done: int) -> None:
        steps.append(done)
        if len(steps) == 14:  # ten steps a member: in the middle of the second
            raise KilledError

    with pytest.raises(KilledError):
        train(pair(), out=tmp_path / "run", on_step=kill)
    first = (tmp_path / "run/members/sgr/report.json").stat().st_mtime_ns
    with pytest.raises(XRetrieveError, match="already holds a run: --resume"):
        train(pair(), out=tmp_path / "run")
    resumed: list[int] = []
    run = train(pair(), out=tmp_path / "run", resume=True, on_step=resumed.append)
    assert resumed and max(resumed) == 10 and len(resumed) <= 10
    assert (tmp_path / "run/members/sgr/report.json").stat().st_mtime_ns == first
    whole = train(pair(), out=tmp_path / "whole")
    assert run.report.t2i_ranks.tolist() == whole.report.t2i_ranks.tolist()
    with pytest.raises(XRetrieveError, match="another value of seed"):
        train(pair(seed=1), out=tmp_path / "run", resume=True)
    train(pair(seed=1), out=tmp_path / "run", overwrite=True)
    assert Run.open(tmp_path / "run/members/sgr").recipe.seed == 1


def test_a_finished_run_is_taken_as_it_is_and_measured_under_the_ensembles_rules(
    pair: Callable[..., Path], tmp_path: Path
) -> None:
    pair()
    done = train(tmp_path / "sgr.yaml", out=tmp_path / "done", overrides={"stages.0.epochs": 2})
    run = train(pair(members=[str(done.folder), str(tmp_path / "saf.yaml")]), out=tmp_path / "run")
    assert run.matcher().names == ["done", "saf"] and not (run.folder / "members/done/last").exists()
    assert run.report.members[0].values["rsum"] == done.report["rsum"].value
    with pytest.raises(XRetrieveError, match="it takes no overrides"):
        train(pair(members=[{"recipe": str(done.folder), "overrides": {"seed": 1}}, "x"]), out=tmp_path / "no")
    with pytest.raises(XRetrieveError, match="is an ensemble itself"):
        train(pair(members=[str(run.folder), str(tmp_path / "saf.yaml")]), out=tmp_path / "no")
    (done.folder / "report.json").unlink()
    with pytest.raises(XRetrieveError, match="holds no finished run"):
        train(pair(members=[str(done.folder), str(tmp_path / "saf.yaml")]), out=tmp_path / "no")
    assert not (tmp_path / "no").exists()


def test_overrides_reach_every_member_and_its_own_come_last(pair: Callable[..., Path], tmp_path: Path) -> None:
    path = str(tmp_path / "sgr.yaml")
    members = [path, {"recipe": path, "overrides": {"head.options.stream": "i2t", "seed": 7}}]
    recipe = load_recipe(pair(members=members, seed=2), ["overrides.stages.0.lr=0.5", "overrides.head.options.steps=1"])
    assert [m.name for m in recipe.members] == ["sgr", "sgr-2"]
    made = [member_source(recipe, m) for m in recipe.members]
    assert [m.stages[0].lr for m in made] == [0.5, 0.5] and [m.seed for m in made] == [2, 7]
    assert [m.head.options.get("stream") for m in made] == [None, "i2t"] and made[1].head.options["dim"] == 16
    save_recipe(recipe, tmp_path / "again.yaml")
    assert load_recipe(tmp_path / "again.yaml") == recipe
    assert flat({"a.b": 1, "a": {"c": {}}, "d": [2]}) == {"a.b": 1, "a.c": {}, "d": [2]}


@pytest.mark.parametrize(
    "keys, said",
    [
        ({"members": ["one"]}, "'members': must be at least two"),
        ({"head": {"name": "sgr"}}, "'head': must be left out"),
        ({"members": [{"recipe": "a", "overides": {}}, "b"]}, "did you mean 'overrides'"),
        ({"members": [{"recipe": "a", "name": "x/y"}, "b"]}, "a name without slashes"),
        ({"task": "composed"}, "left out of recipes for other tasks"),
        ({"fusion": "sum"}, "unknown value 'sum'"),
        ({"members": []}, "'image': must be given"),
    ],
)
def test_a_wrong_key_of_an_ensemble_is_named(pair: Callable[..., Path], keys: dict[str, Any], said: str) -> None:
    with pytest.raises(XRetrieveError, match=said):
        load_recipe(pair(**keys))


def test_a_single_model_takes_no_keys_of_ensembles(tmp_path: Path, pair: Callable[..., Path]) -> None:
    pair()
    with pytest.raises(XRetrieveError, match="'overrides': must be left out"):
        load_recipe(tmp_path / "sgr.yaml", {"overrides": {"seed": 1}})


def test_evaluate_and_train_from_the_command_line(
    pair: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = str(tmp_path / "run")
    assert main(["train", str(pair()), "--out", out]) == 0
    said = capsys.readouterr().out
    assert "its members alone" in said and "members/, report.html" in said
    before = Report.load(out)
    assert main(["evaluate", out, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["name"] == "tests/both*" and [row["name"] for row in found["members"]] == ["tests/sgr", "tests/saf"]
    assert Report.load(out)["rsum"].value == before["rsum"].value
    assert main(["index", str(tmp_path), "--model", out, "--out", str(tmp_path / "x.xr")]) == 2
    said = capsys.readouterr().err
    assert "not indexed" in said and "members/sgr" in said and "members/saf" in said  # what to index in its place
