"""The verbs `evaluate` and `compare`: what they print, write and refuse."""

from __future__ import annotations

import json

import numpy as np
import pytest

from xretrieve.cli.main import main
from xretrieve.data.base import RetrievalDataset
from xretrieve.tokens import Prepared


class FakeMatcher:
    name = "fake"

    def __init__(self, noise):
        self.noise = noise

    def encode_images(self, items, ids=None, batch_size=64, cache=None, progress=False):
        self.cache = cache
        return self.vectors(np.arange(len(items)), 0.0)

    def encode_texts(self, texts, batch_size=256, cache=None):
        return self.vectors(np.arange(len(texts)) // 2, self.noise)

    def vectors(self, owner, noise):
        import torch

        rng = np.random.default_rng(0)
        base = rng.standard_normal((len(set(owner)), 8))[owner]
        pooled = torch.tensor(base + noise * rng.standard_normal(base.shape), dtype=torch.float32)
        prepared = Prepared.from_pooled(pooled)
        return Prepared(prepared.local, prepared.mask, prepared.pooled)

    def score(self, queries, gallery):
        return queries.pooled @ gallery.pooled.T

    def fingerprint(self):
        return "f"


@pytest.fixture
def world(monkeypatch, tmp_path):
    """Two run folders over a toy dataset; the matcher's noise is in its folder's name."""
    asked = []

    def load_dataset(name, root=None, split="test", layout=None, **options):
        asked.append({"name": name, "root": root, "split": split, "layout": layout, **options})
        n = 20
        return RetrievalDataset(
            name,
            split,
            [f"{i}.jpg" for i in range(n)],
            [f"{i}.jpg" for i in range(n)],
            [f"words {c}" for c in range(2 * n)],
            [f"c{c}" for c in range(2 * n)],
            np.arange(2 * n) // 2,
            n,
            "toy",
        )

    import xretrieve.data.datasets
    import xretrieve.loading

    monkeypatch.setattr(xretrieve.data.datasets, "load", load_dataset)
    monkeypatch.setattr(xretrieve.data.datasets, "info", lambda name: None)
    monkeypatch.setattr(xretrieve.loading, "load", lambda run, *a, **k: FakeMatcher(float(str(run)[-1])))
    for noise in (1, 2):
        (tmp_path / f"run{noise}").mkdir()
        (tmp_path / f"run{noise}" / "recipe.yaml").write_text(
            f"name: toy/run{noise}\nprotocol: full\n"
            "dataset:\n  name: toyset\n  layout: karpathy\n  options: {size: 3}\n"
        )
    monkeypatch.chdir(tmp_path)
    return tmp_path, asked


def run(capsys, *args):
    status = main([str(a) for a in args])
    return status, *capsys.readouterr()


def test_evaluate_takes_the_dataset_of_the_recipe_and_writes_into_the_run(world, capsys):
    folder, asked = world
    status, out, _ = run(capsys, "evaluate", folder / "run1", "--no-cache", "--trec", folder / "trec")
    assert status == 0
    assert asked == [{"name": "toyset", "root": None, "split": "test", "layout": "karpathy", "size": 3}]
    assert "toy/run1" in out and "protocol full on toyset/test" in out and "report.html" in out
    assert {"report.json", "report.html", "ranks.npz"} <= {p.name for p in (folder / "run1").iterdir()}
    assert len(list((folder / "trec").iterdir())) == 4


def test_another_split_or_dataset_replaces_nothing_in_the_run(world, capsys):
    folder, asked = world
    for args, home in ((["--split", "val"], "toyset-val"), (["--dataset", "other"], "other-test")):
        assert run(capsys, "evaluate", folder / "run1", "--no-cache", *args)[0] == 0
        assert (folder / "run1" / home / "report.json").is_file()
    assert not (folder / "run1" / "report.json").exists()
    assert asked[1] == {"name": "other", "root": None, "split": "test", "layout": None}


def test_json_is_all_that_stdout_holds(world, capsys):
    folder, _ = world
    status, out, _ = run(capsys, "evaluate", folder / "run1", "--no-cache", "--json", "--out", folder / "elsewhere")
    values = json.loads(out)
    assert (
        status == 0
        and values["setting"]["images"] == 20
        and values["metrics"]["rsum"]["low"] <= values["metrics"]["rsum"]["value"]
    )
    assert (folder / "elsewhere" / "report.html").is_file() and not (folder / "run1" / "report.json").exists()


def test_bad_requests_end_with_status_2_and_one_line(world, capsys):
    folder, _ = world
    for args, message in (
        ((folder / "run1", "--protocol", "flickr1k"), "did you mean 'flickr-1k'"),
        ((folder / "run1", "--protocol", "flickr-1k", "--no-cache"), "use the protocol 'full'"),
        (("open_clip:X",), "--dataset NAME"),
    ):
        status, out, err = run(capsys, "evaluate", *args)
        assert status == 2 and message in err and out == "" and len(err.splitlines()) == 1


def test_compare_pairs_two_runs(world, capsys):
    folder, _ = world
    for noise in (1, 2):
        run(capsys, "evaluate", folder / f"run{noise}", "--no-cache")
    status, out, _ = run(capsys, "compare", folder / "run1", folder / "run2", "--json")
    rsum = json.loads(out)["differences"]["rsum"]
    assert status == 0 and rsum["difference"] == pytest.approx(rsum["b"] - rsum["a"]) and rsum["difference"] < 0
    status, out, _ = run(capsys, "compare", folder / "run1", folder / "run1")
    assert status == 0 and "+0.00 .. +0.00" in out


def test_compare_refuses_what_was_measured_differently(world, capsys):
    folder, _ = world
    run(capsys, "evaluate", folder / "run1", "--no-cache")
    run(capsys, "evaluate", folder / "run1", "--no-cache", "--split", "val")
    status, _, err = run(capsys, "compare", folder / "run1", folder / "run1" / "toyset-val")
    assert status == 2 and "split 'test' against 'val'" in err
    status, _, err = run(capsys, "compare", folder / "run1", folder / "run2")
    assert status == 2 and "xretrieve evaluate" in err


@pytest.mark.parametrize(
    "words, said",
    [
        (["evaluate", "photos", "--dataset", "flickr8k"], "photos holds no matcher"),
        (["evaluate", "run1", "--dataset", "flickr9k"], "did you mean 'flickr8k'"),
        (["evaluate", "broken"], "line 2 not valid YAML"),
        (["evaluate", "photos"], "photos has no recipe.yaml that names a dataset; write --dataset NAME"),
        (["evaluate", "runs/none"], "no run folder 'runs/none'"),
        (["compare", "runs/none", "run1"], "no run folder 'runs/none'; give the folder of a run that was evaluated"),
        (["compare", "broken", "broken"], "ranks.npz is broken (File is not a zip file)"),
    ],
)
def test_what_is_wrong_is_said_before_what_depends_on_it(words, said, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XRETRIEVE_DATA", str(tmp_path / "nowhere"))
    for folder in ("photos", "run1", "broken"):
        (tmp_path / folder).mkdir()
    (tmp_path / "broken/recipe.yaml").write_text("name: [x\n")
    (tmp_path / "broken/report.json").write_text('{"format": 1}')
    (tmp_path / "broken/ranks.npz").write_bytes(b"PK\x03\x04 cut")
    assert main(words) == 2
    err = capsys.readouterr().err
    assert said in err and err.count("\n") == 1
