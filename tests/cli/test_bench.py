"""`xretrieve bench demo`, small: everything it promises is there, and no foreign folder is touched."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from xretrieve.cli.main import main

SMALL = ["dataset.options={train: 24, val: 8, test: 12}", "stages.0.epochs=1", "stages.0.batch_size=8"]


def test_demo_ends_in_a_table_a_report_and_an_index_that_can_be_searched(tmp_path: Path, capfd) -> None:
    out = tmp_path / "demo"
    assert main(["bench", "demo", *SMALL, "--out", str(out)]) == 0
    printed, said = capfd.readouterr()
    assert "scenes-dual" in printed and "untrained" in printed and "rsum" in printed
    assert "scenes-sgr, with the encoders of image_text/scenes-dual" in said
    assert "protocol scenes-10 on scenes/test: 12 query sets" in printed and "scenes-dual, mean similarity" in printed
    assert "protocol full on scenes/test: 12 images, 60 captions" in printed and "95 % intervals" in printed
    page = (out / "report.html").read_text()
    assert "untrained" in page and "data:image/jpeg" in page and "http://" not in page.replace("http://www.w3.org", "")
    assert (out / "scenes-dual" / "curves.png").is_file()
    sets = (out / "query_sets" / "report.html").read_text()
    assert "scenes-hmrn-t2i" in sets and "scenes-dual, mean similarity" in sets and "models by round" in sets
    changes = (out / "changes" / "report.html").read_text()
    assert "scenes-progressive" in changes and "scenes-dual, sum of vectors" in changes
    assert "scenes-dual, sum of vectors" in printed and "protocol scenes/split/removed/each on" in printed
    assert "fewer epochs than their recipes say: image_text/scenes-sgr 2 of 4, " in printed, (
        "what had less than its recipe is said"
    )
    command = next(line for line in printed.splitlines() if "xretrieve search" in line)
    assert str(out / "scenes.xr") in command
    *program, verb, index, opened = printed.strip().splitlines()[-1].split()
    assert (verb, index, opened) == ("serve", str(out / "scenes.xr"), "--open"), "it ends with the command of the page"
    assert Path(*program).name == "xretrieve"
    assert main(["search", str(out / "scenes.xr"), "a red star", "-k", "3", "--json"]) == 0
    assert len(json.loads(capfd.readouterr().out)["hits"]) == 3
    assert main(["bench", "demo", *SMALL, "--out", str(out), "--jobs", "1", "--json"]) == 0  # replaces the earlier demo
    said = json.loads(capfd.readouterr().out)
    assert [report["name"].split("/")[-1] for report in said["reports"]] == [
        "scenes-dual", "scenes-sgr", "scenes-tshsr", "scenes-dual, untrained"
    ]  # fmt: skip
    assert [ranking["query"]["kind"] for ranking in said["rankings"]] == ["text", "multi-text", "image+text"]
    assert [report["name"].split("/")[-1] for report in said["changes"]] == [
        "scenes-progressive", "scenes-dual, sum of vectors"
    ]  # fmt: skip
    assert [len(report["rounds"]) for report in said["rounds"]] == [10, 10]
    assert said["rankings"][1]["query"]["texts"]


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
def test_demo_beats_chance_clearly(tmp_path: Path, capsys) -> None:
    assert main(["bench", "demo", "--out", str(tmp_path / "demo"), "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    trained, untrained = said["reports"][0], said["reports"][-1]
    value = {r["name"]: r["metrics"]["rsum"]["value"] for r in (trained, untrained)}
    assert value[trained["name"]] > 10 * value[untrained["name"]]
    sets, plain = ([row["r1"] for row in report["rounds"]] for report in said["rounds"])
    learned, summed = (report["metrics"]["mean_relaxed_r1"]["value"] for report in said["changes"])
    assert learned > summed + 3  # weights of image and text, learned from triplets, beat the plain sum
    assert sets[-1] > 5 * sets[0] and sets[-1] > plain[-1] + 10  # sentences add up, and reading them as a set helps
