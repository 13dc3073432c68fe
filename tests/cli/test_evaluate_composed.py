"""The verb `evaluate` on composed queries: one protocol, all of them, missing photos, the files of CIRR's server."""

from __future__ import annotations

import json

import pytest

from tests.evaluation.composed_fakes import Sums, make_composed
from xretrieve.cli.main import main


@pytest.fixture
def world(monkeypatch, tmp_path):
    """A run folder whose recipe is of task composed, and a loader that knows the toy sets."""
    asked = []

    def load_dataset(name, root=None, split="test", layout=None, **options):
        asked.append(split)
        return make_composed(name, lost=options.get("lost", 0))

    import xretrieve.data.datasets
    import xretrieve.loading

    monkeypatch.setattr(xretrieve.data.datasets, "load", load_dataset)
    monkeypatch.setattr(xretrieve.loading, "load", lambda run, *a, **k: Sums())
    run = tmp_path / "run"
    run.mkdir()
    monkeypatch.chdir(tmp_path)

    def recipe(dataset: str, protocol: str, lost: int = 0) -> str:
        (run / "recipe.yaml").write_text(
            f"name: toy/sums\ntask: composed\nseed: 3\nprotocol: {protocol}\nstages: [{{keep: rsum}}]\n"
            f"dataset: {{name: {dataset}, options: {{lost: {lost}}}}}\n"
        )
        return str(run)

    return recipe, asked, tmp_path


def call(*argv: str) -> int:
    return main(["evaluate", *argv, "--no-cache", "--bootstrap", "20"])


def test_a_run_is_measured_where_its_targets_are_public(world, capsys) -> None:
    recipe, asked, folder = world
    assert not call(recipe("fashion_iq", "fashion-iq"))
    said = capsys.readouterr().out
    assert asked == ["val"] and (folder / "run/report.json").is_file()
    for part in ("protocol fashion-iq/original/kept/and", "kept: it competes", "caption mode and: 30 queries",
                 "dress 20 images", "training seed 3", "CLIP4Cir v3", "published by others"):  # fmt: skip
        assert part in said, part


def test_all_protocols_side_by_side(world, capsys) -> None:
    recipe, _, folder = world
    assert not call(recipe("fashion_iq", "fashion-iq"), "--protocol", "all", "--json")
    reports = json.loads(capsys.readouterr().out)
    names = [r["protocol"]["name"] for r in reports]
    assert len(names) == 3 == len(set(names)) and all(r["published"] for r in reports)
    assert all(r["setting"]["coverage"] == 1.0 and r["metrics"]["mean"]["low"] is not None for r in reports)
    assert (folder / "run/fashion-iq-val-union-removed-and/report.html").is_file()
    assert not (folder / "run/report.json").exists()
    assert not call(str(folder / "run"), "--protocol", "all")
    said = capsys.readouterr().out
    assert all(part in said for part in ("reference", "removed", "caption mode", "gallery", "queries", "VAL (GloVe)"))


def test_missing_photos_need_a_word(world, capsys) -> None:
    recipe, _, _ = world
    run = recipe("shoes", "shoes", lost=2)
    assert call(run) == 2
    assert "--allow-missing" in capsys.readouterr().err
    assert not call(run, "--allow-missing")
    said = capsys.readouterr().out
    assert "with a missing photo as misses" in said and "published figures are left out" in said
    assert not call(run, "--allow-missing", "--protocol", "all")
    said = capsys.readouterr().out
    assert "lost, misses in `all`" in said and "\nall" not in said and said.count("all ") >= 4


def test_the_servers_files(world, capsys) -> None:
    recipe, asked, folder = world
    assert not call(recipe("cirr", "cirr"), "--server", str(folder / "out"))
    assert asked == ["test"] and json.loads((folder / "out/recall.json").read_text())["version"] == "rc2"
    assert (folder / "out/recall_subset.json").is_file()


def test_a_protocol_of_another_dataset_is_refused(world, capsys) -> None:
    recipe, _, _ = world
    assert call(recipe("products", "products"), "--protocol", "shoes") == 2
    assert "is for shoes, not for products" in capsys.readouterr().err
