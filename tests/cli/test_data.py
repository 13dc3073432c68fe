"""``xretrieve data``: what a new user sees, exit statuses, and JSON that is only JSON."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from xretrieve.cli.main import main


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Flickr8k with two images per split."""
    folder = tmp_path / "root" / "flickr8k" / "images"
    folder.mkdir(parents=True)
    entries: list[dict[str, Any]] = []
    for i, split in enumerate(["train", "train", "val", "val", "test", "test"]):
        word = "secret" if split == "test" else "common"
        sentences = [{"raw": f"A {word} dog number {i} runs {k} .", "sentid": 5 * i + k} for k in range(5)]
        entries.append({"filename": f"{i}.jpg", "split": split, "sentences": sentences})
        Image.new("RGB", (40, 30), (40 * i, 0, 0)).save(folder / f"{i}.jpg")
    (folder.parent / "dataset_flickr8k.json").write_text(json.dumps({"images": entries}))
    return tmp_path / "root"


def run_json(capsys: pytest.CaptureFixture[str], *args: str, status: int = 0) -> Any:
    assert main(["data", *args, "--json"]) == status
    return json.loads(capsys.readouterr().out)


def test_list_names_every_dataset_and_what_is_there(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = {row["name"]: row for row in run_json(capsys, "list", "--root", str(root))["datasets"]}
    assert {"flickr8k", "flickr30k", "mscoco", "scenes"} <= rows.keys()
    assert rows["flickr8k"]["found"] == ["karpathy captions, photos in flickr8k/images"]
    assert not rows["flickr30k"]["found"]
    assert main(["data", "list", "--root", str(root)]) == 0 and "flickr8k" in capsys.readouterr().out


def test_the_bare_verb_explains_itself(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data"]) == 0
    captured = capsys.readouterr()
    assert "prepare" in captured.out and not captured.err


def test_a_place_that_cannot_be_written_says_to_choose_another(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (root / "vocab").write_text("a file where a folder should be")
    assert main(["data", "prepare", "flickr8k", "--vocab", "--root", str(root)]) == 2
    assert "choose another place" in capsys.readouterr().err


def test_a_write_protected_root_is_left_alone_even_by_root(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root.chmod(0o555)
    try:
        assert main(["data", "prepare", "flickr8k", "--vocab", "--root", str(root)]) == 2
        assert "is read-only; choose another place with --out" in capsys.readouterr().err
        assert not (root / "vocab").exists()
    finally:
        root.chmod(0o755)


def test_prepare_fills_the_feature_cache_once(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    vocabulary = run_json(capsys, "prepare", "flickr8k", "--vocab", "--root", str(root))["vocabulary"]["path"]
    args = ["prepare", "flickr8k", "--split", "test", "--split", "val", "--backbone", "words", "--root", str(root)]
    for option in (f"vocab={vocabulary}", "dim=8", "word_dim=4"):
        args += ["--backbone-option", option]
    done = {"cache": {"test": {"encoded": 10, "failed": []}, "val": {"encoded": 10, "failed": []}}}
    assert run_json(capsys, *args) == done == run_json(capsys, *args)


def test_checking_scenes_generates_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    report = run_json(capsys, "check", "scenes", "--root", str(tmp_path), status=1)
    assert "data prepare scenes" in report["splits"][0]["effect"] and not list(tmp_path.iterdir())


def test_root_comes_from_the_environment(
    root: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XRETRIEVE_DATA", str(root))
    assert run_json(capsys, "check", "flickr8k")["ok"]


def test_check_exits_0_when_usable_and_1_when_a_split_is_not(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_json(capsys, "check", "flickr8k", "--root", str(root))["ok"]
    (root / "flickr8k" / "images" / "4.jpg").unlink()
    partial = run_json(capsys, "check", "flickr8k", "--root", str(root))
    assert partial["splits"][2]["first_missing"] == ["4.jpg"]
    (root / "flickr8k" / "images" / "5.jpg").unlink()
    assert not run_json(capsys, "check", "flickr8k", "--root", str(root), status=1)["ok"]
    assert main(["data", "check", "flickr8k", "--split", "val", "--root", str(root)]) == 0
    capsys.readouterr()
    assert main(["data", "check", "flickr8k", "--root", str(root)]) == 1
    said = capsys.readouterr().out
    assert "cannot be evaluated" in said and "get it: https://" in said and "research" in said


def test_check_without_a_name_takes_what_is_there(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_json(capsys, "check", "--root", str(root))["name"] == "flickr8k"
    (tmp_path / "empty").mkdir()
    assert main(["data", "check", "--root", str(tmp_path / "empty")]) == 2
    assert "no dataset under" in capsys.readouterr().err


def test_check_read_names_a_truncated_picture(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = root / "flickr8k" / "images" / "5.jpg"
    path.write_bytes(path.read_bytes()[:300])
    assert run_json(capsys, "check", "flickr8k", "--root", str(root))["splits"][2]["broken"] == 0
    opened = run_json(capsys, "check", "flickr8k", "--read", "--root", str(root))
    assert "5.jpg" in opened["splits"][2]["first_broken"][0]


def test_bad_input_is_one_line_and_status_2(root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for args, message in (
        (["check", "flickr8", "--root", str(root)], "did you mean 'flickr8k'"),
        (["check", "mscoco", "--split", "val207", "--root", str(root)], "did you mean 'val2017'"),
        (["check", "flickr8k", "--layout", "karpaty", "--root", str(root)], "did you mean 'karpathy'"),
        (["show", "flickr8k", "--split", "tset", "--root", str(root)], "did you mean 'test'"),
        (["show", "flickr8k", "nothing.jpg", "--root", str(root)], "no image 'nothing.jpg'; ids look like '4.jpg'"),
        (["show", "flickr8k", "-o", "photo=x", "--root", str(root)], "did you mean 'photos'"),
        (["show", "flickr8k", "--root", str(tmp_path / "nowhere")], "no data root"),
        (["prepare", "flickr8k", "--root", str(root)], "say what to prepare"),
        (["prepare", "flickr8k", "--features", "--root", str(root)], "--replace"),
        (["prepare", "scenes", "--extract", "--root", str(root)], "scenes has no json"),
    ):
        assert main(["data", *args]) == 2, args
        captured = capsys.readouterr()
        assert message in captured.err and captured.err.count("\n") == 1 and not captured.out, args


def test_show_gives_captions_and_a_self_contained_page(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page = tmp_path / "page.html"
    shown = run_json(capsys, "show", "flickr8k", "-n", "1", "--html", str(page), "--root", str(root))
    assert shown["examples"][0]["id"] == "4.jpg" and len(shown["examples"][0]["captions"]) == 5
    assert "data:image/jpeg;base64," in page.read_text() and str(root) not in page.read_text()
    assert main(["data", "show", "flickr8k", "5.jpg", "--root", str(root)]) == 0
    assert "A secret dog number 5 runs 0 ." in capsys.readouterr().out


def test_show_draws_the_same_images_for_the_same_seed(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    args = ("show", "flickr8k", "--split", "train", "-n", "1", "--seed", "3", "--root", str(root))
    assert run_json(capsys, *args) == run_json(capsys, *args)


def test_vocabulary_has_the_published_layout_and_no_word_of_the_test_captions(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    done = run_json(capsys, "prepare", "flickr8k", "--vocab", "--min-count", "4", "--root", str(root))["vocabulary"]
    written = json.loads(Path(done["path"]).read_text())
    assert set(written) == {"word2idx", "idx2word", "idx"} and len(written["word2idx"]) == done["words"]
    assert "common" in written["word2idx"] and "secret" not in written["word2idx"]
    assert [written["idx2word"][str(i)] for i in range(4)] == ["<pad>", "<start>", "<end>", "<unk>"]


def test_extract_writes_the_json_beside_the_pictures(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import zipfile

    path = root / "flickr8k" / "dataset_flickr8k.json"
    content = path.read_bytes()
    with zipfile.ZipFile(root / "caption_datasets.zip", "w") as archive:
        archive.writestr("dataset_flickr8k.json", content)
    path.unlink()
    assert run_json(capsys, "prepare", "flickr8k", "--extract", "--root", str(root))["json"] == str(path)
    assert path.read_bytes() == content


def test_features_are_converted_in_place_only_when_asked(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = root / "f30k_precomp"
    folder.mkdir()
    np.save(folder / "test_ims.npy", np.ones((10, 3, 2)))
    (folder / "test_caps.txt").write_text("a caption\n" * 10)
    run_json(capsys, "prepare", "flickr30k", "--features", "--replace", "--root", str(root))
    after = np.load(folder / "test_ims.npy")
    assert after.shape == (2, 3, 2) and after.dtype == np.float32
