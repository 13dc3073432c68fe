"""`xretrieve bench demo`, small: everything it promises is there, and no foreign folder is touched."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

import pytest

from xretrieve.bench.drawing import encode_test
from xretrieve.cli.main import main
from xretrieve.data.cache import FeatureCache
from xretrieve.training.build import build_matcher, load_split
from xretrieve.training.recipes import load_recipe

SMALL = ["dataset.options={train: 24, val: 8, test: 12}", "stages.0.epochs=1", "stages.0.batch_size=16"]


def test_demo_ends_in_tables_a_report_and_an_index_that_can_be_searched(tmp_path: Path, capfd) -> None:
    out = tmp_path / "demo"
    assert main(["bench", "demo", *SMALL, "--out", str(out)]) == 0
    printed, said = capfd.readouterr()
    assert "scenes-dual-frozen" in printed and "untrained" in printed and "rsum" in printed
    assert "training image_text/scenes-tshsr-frozen: 1 epochs on scenes" in said
    assert said.index("the first table is here after ") < said.index("training image_text/scenes-tshsr-frozen")
    for name in ("image_text/scenes-dual-frozen, train 1/1: loss ", "image_text/scenes-tshsr-frozen, train 1/1: loss ",
                 "multi_query/scenes-hmrn-t2i-frozen, train 1/1: loss "):  # fmt: skip
        assert name in said, "no terminal: a line for each epoch, and from which training"
    assert "protocol scenes-10 on scenes/test: 12 query sets" in printed
    assert "protocol full on scenes/test: 12 images, 60 captions" in printed and "95 % intervals" in printed
    assert "protocol scenes/split/removed/each on" in printed
    page = (out / "report.html").read_text()
    assert "untrained" in page and "data:image/jpeg" in page and "http://" not in page.replace("http://www.w3.org", "")
    assert (out / "scenes-dual-frozen" / "curves.png").is_file()
    sets, changes = (out / "query_sets" / "report.html").read_text(), (out / "changes" / "report.html").read_text()
    assert "scenes-hmrn-t2i-frozen" in sets and "scenes-mean-similarity-frozen" in sets and "models by round" in sets
    assert "scenes-progressive-frozen" in changes and "scenes-sum-frozen" in changes
    for text in (printed, page):  # each paper's model against its plain baseline
        assert "against its plain baseline" in text and "round10_r1" in text and "mean_relaxed_r1" in text
    assert "<td>round10_r1</td>" in sets and "<td>rsum</td>" not in sets, "a page has the differences of its own task"
    command = next(line for line in printed.splitlines() if "xretrieve search" in line)
    assert str(out / "scenes.xr") in command
    *program, verb, index, opened = printed.strip().splitlines()[-1].split()
    assert (verb, index, opened) == ("serve", str(out / "scenes.xr"), "--open"), "it ends with the command of the page"
    assert Path(*program).name == "xretrieve"
    assert main(["search", str(out / "scenes.xr"), "a red star", "-k", "3", "--json"]) == 0
    assert len(json.loads(capfd.readouterr().out)["hits"]) == 3
    assert main(["bench", "demo", *SMALL, "--out", str(out), "--jobs", "1", "--json"]) == 0  # replaces the earlier demo
    told = json.loads(capfd.readouterr().out)
    assert short(report["name"] for report in told["reports"]) == [
        "scenes-dual-frozen", "scenes-tshsr-frozen", "scenes-dual-frozen, head untrained"
    ]  # fmt: skip
    assert [ranking["query"]["kind"] for ranking in told["rankings"]] == ["text", "multi-text", "image+text"]
    assert short(report["name"] for report in told["changes"]) == ["scenes-progressive-frozen", "scenes-sum-frozen"]
    assert [len(report["rounds"]) for report in told["rounds"]] == [10, 10, 10]
    assert told["rankings"][1]["query"]["texts"]
    assert [(*short((lead["model"], lead["baseline"])), lead["metric"]) for lead in told["leads"]] == [
        ("scenes-tshsr-frozen", "scenes-dual-frozen", "rsum"),
        ("scenes-hmrn-t2i-frozen", "scenes-drilldown-frozen", "round10_r1"),
        ("scenes-hmrn-t2i-frozen", "scenes-mean-similarity-frozen", "round10_r1"),
        ("scenes-progressive-frozen", "scenes-sum-frozen", "mean_relaxed_r1"),
    ]
    for lead in told["leads"]:
        assert lead["difference"] == pytest.approx(lead["value"] - lead["baseline_value"])
        assert lead["clear"] == (lead["low"] > 0)
        if lead["metric"] != "mean_relaxed_r1":  # a mean over the kinds of edit, and of 12 pictures some draws lack one
            assert lead["low"] <= lead["high"]


def short(names: Iterable[str]) -> list[str]:
    return [name.split("/")[-1] for name in names]


def test_the_demo_draws_before_torch_is_loaded() -> None:
    code = "import sys, xretrieve.bench.demo; print([m for m in ('torch', 'timm', 'PIL') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


def test_the_test_split_is_encoded_before_the_first_model_is_measured(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("XRETRIEVE_CACHE", str(tmp_path))
    recipe = load_recipe("image_text/scenes-dual-frozen", SMALL)
    encode_test(recipe)
    test, matcher = load_split(recipe.dataset, "test"), build_matcher(recipe, [])
    monkeypatch.setattr("xretrieve.data.cache._fill", None)  # nothing is left to encode
    assert len(matcher.encode_images(test.images, cache=FeatureCache())) == 12
    assert len(matcher.encode_texts(test.captions, cache=FeatureCache())) == 60


def test_demo_leaves_a_folder_that_is_not_a_demo_alone(tmp_path: Path, capsys) -> None:
    (tmp_path / "mine.txt").write_text("keep")
    assert main(["bench", "demo", "--out", str(tmp_path)]) == 2
    assert "holds something that is not a demo" in capsys.readouterr().err
    assert (tmp_path / "mine.txt").read_text() == "keep"


def test_an_unknown_recipe_key_leaves_nothing_behind(tmp_path: Path, capsys) -> None:
    assert main(["bench", "demo", "stages.0.epoch=1", "--out", str(tmp_path / "demo")]) == 2
    assert "did you mean 'epochs'" in capsys.readouterr().err
    assert not (tmp_path / "demo").exists()


@pytest.mark.slow
def test_each_model_of_the_demo_is_clearly_above_its_plain_baseline(tmp_path: Path, capsys) -> None:
    assert main(["bench", "demo", "--out", str(tmp_path / "demo"), "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert len(said["leads"]) == 4 and all(lead["clear"] for lead in said["leads"]), said["leads"]
    trained, untrained = said["reports"][0], said["reports"][-1]
    assert trained["metrics"]["rsum"]["value"] > 10 * untrained["metrics"]["rsum"]["value"]
    by_name = {report["name"].split("/")[-1]: [row["r1"] for row in report["rounds"]] for report in said["rounds"]}
    sets, plain = by_name["scenes-hmrn-t2i-frozen"], by_name["scenes-mean-similarity-frozen"]
    assert sets[-1] > 5 * sets[0] and sets[-1] > plain[-1] + 10  # sentences add up, and reading them as a set helps
    learned, summed = (report["metrics"]["mean_relaxed_r1"]["value"] for report in said["changes"])
    assert learned > summed + 3  # weights of image and text, learned from triplets, beat the plain sum
