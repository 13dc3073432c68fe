"""``check``: what is missing is named and counted, and said to make a score incomparable."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from xretrieve.data.check import SplitCheck, check


def write(root: Path, images: int = 10, text: str = "caption {k} of image {i}") -> Path:
    """A Flickr8k root with a test split of real small pictures; returns the picture folder."""
    folder = root / "flickr8k" / "images"
    folder.mkdir(parents=True)
    entries = []
    for i in range(images):
        sentences = [{"raw": text.format(i=i, k=k), "sentid": 5 * i + k} for k in range(5)]
        entries.append({"filename": f"{i}.jpg", "split": "test", "sentences": sentences})
        noise = np.random.default_rng(i).integers(0, 255, (32, 32, 3), dtype=np.uint8)
        Image.fromarray(noise).save(folder / f"{i}.jpg")
    (root / "flickr8k" / "dataset_flickr8k.json").write_text(json.dumps({"images": entries}))
    return folder


def write_precomp(root: Path, features: np.ndarray) -> None:
    folder = root / "f30k_precomp"
    folder.mkdir(parents=True)
    np.save(folder / "test_ims.npy", features)
    (folder / "test_caps.txt").write_text("".join(f"caption {c}\n" for c in range(5 * len(features))))


def only(root: Path, name: str = "flickr8k", read: bool = False) -> SplitCheck:
    return check(name, root, "test", read=read).splits[0]


def test_a_complete_split_is_complete(tmp_path: Path) -> None:
    write(tmp_path)
    found = only(tmp_path, read=True)
    assert found.usable and found.effect == "complete" and (found.missing, found.broken) == (0, 0)
    assert (found.images, found.captions, found.words_mean, found.words_max) == (10, 50, 5.0, 5)
    assert any("lists 10 images" in n or "list 10 images; the official split has 1,000" in n for n in found.notes)


def test_missing_pictures_are_counted_named_and_make_scores_incomparable(tmp_path: Path) -> None:
    folder = write(tmp_path)
    for i in (2, 3, 5, 6, 7, 8, 9):
        (folder / f"{i}.jpg").unlink()
    found = only(tmp_path)
    assert found.usable and found.missing == 7 and found.first_missing == ["2.jpg", "3.jpg", "5.jpg", "6.jpg", "7.jpg"]
    assert "the gallery is 3 of 10 images, so recalls are higher" in found.effect and "not comparable" in found.effect


def test_zero_byte_files_are_named_without_read_and_truncated_ones_with_it(tmp_path: Path) -> None:
    folder = write(tmp_path)
    (folder / "1.jpg").write_bytes(b"")
    (folder / "4.jpg").write_bytes((folder / "4.jpg").read_bytes()[:400])
    (folder / "6.jpg").write_text("<html>404</html>")
    quick, slow = only(tmp_path), only(tmp_path, read=True)
    assert quick.broken == 1 and "1.jpg" in quick.first_broken[0] and "0 bytes" in quick.first_broken[0]
    assert slow.broken == 3
    assert [Path(name.split(" (")[0]).name for name in slow.first_broken] == ["1.jpg", "4.jpg", "6.jpg"]
    assert slow.usable and "would stop at 3 broken" in slow.effect


def test_a_split_without_any_picture_cannot_be_evaluated_but_its_captions_are_described(tmp_path: Path) -> None:
    for path in write(tmp_path).iterdir():
        path.unlink()
    found = only(tmp_path)
    assert not found.usable and "cannot be evaluated" in found.effect and found.captions == 50
    assert not check("flickr8k", tmp_path).ok


def test_only_broken_pictures_cannot_be_evaluated_either(tmp_path: Path) -> None:
    for path in write(tmp_path, 2).iterdir():
        path.write_bytes(b"")
    assert not only(tmp_path).usable


def test_nothing_at_all_is_reported_not_raised(tmp_path: Path) -> None:
    report = check("flickr30k", tmp_path)
    assert not report.ok and [s.split for s in report.splits] == ["train", "val", "test"]
    assert all(not s.found and "no captions found" in s.effect for s in report.splits)
    assert "illinois" in report.url and "research" in report.terms and "images" in report.put


def test_broken_annotations_are_reported_with_their_place(tmp_path: Path) -> None:
    write(tmp_path)
    (tmp_path / "flickr8k" / "dataset_flickr8k.json").write_text('{"images": [')
    found = only(tmp_path)
    assert found.found and not found.usable and "line 1 column" in found.effect


def test_a_broken_extra_split_is_not_passed_over_in_silence(tmp_path: Path) -> None:
    (tmp_path / "coco").mkdir()
    (tmp_path / "coco" / "captions_val2017.json").write_text("{")
    report = check("mscoco", tmp_path)
    assert "val2017" in [s.split for s in report.splits] and "train2017" not in [s.split for s in report.splits]


def test_captions_shared_by_images_are_counted_as_a_ceiling(tmp_path: Path) -> None:
    write(tmp_path, 3, text="the same words {k}")
    found = only(tmp_path)
    assert found.distinct_captions == 5
    assert any(note.startswith("15 captions are word for word") for note in found.notes)


def test_repeats_within_one_image_are_no_ceiling(tmp_path: Path) -> None:
    write(tmp_path, 3, text="image {i}")
    assert not any("word for word" in note for note in only(tmp_path).notes)


@pytest.mark.parametrize(("value", "reason"), [(0.0, "all zeros"), (np.nan, "NaN"), (np.inf, "infinite")])
def test_bad_feature_rows_are_named_with_read(tmp_path: Path, value: float, reason: str) -> None:
    features = np.ones((4, 3, 2), np.float32)
    features[2] = value
    write_precomp(tmp_path, features)
    assert only(tmp_path, "flickr30k").broken == 0
    found = only(tmp_path, "flickr30k", read=True)
    assert found.broken == 1 and found.first_broken[0].startswith("2 (row 2 ") and reason in found.first_broken[0]


def test_features_are_described_and_wrong_counts_reported(tmp_path: Path) -> None:
    write_precomp(tmp_path / "good", np.ones((4, 3, 2), np.float64))
    assert "features: 4 rows of 3 x 2 float64, stored once" in only(tmp_path / "good", "flickr30k").notes
    write_precomp(tmp_path / "bad", np.ones((4, 3, 2), np.float32))
    np.save(tmp_path / "bad" / "f30k_precomp" / "test_ims.npy", np.ones((6, 3, 2), np.float32))
    found = only(tmp_path / "bad", "flickr30k")
    assert not found.usable and "20 captions and test_ims.npy 6 images" in found.effect


def test_real_flickr8k_is_complete_and_flickr30k_is_not(data_root: Path) -> None:
    report = check("flickr8k", data_root)
    assert report.ok and [s.images for s in report.splits] == [6000, 1000, 1000]
    assert not check("flickr30k", data_root, "test").ok
    shared = check("flickr30k", data_root, "test", photos="flickr8k")
    assert shared.ok and shared.splits[0].missing == 1000 - shared.splits[0].images
