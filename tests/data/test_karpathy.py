"""The Karpathy layout: real counts, and each trap of its public copies."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from xretrieve.data import datasets
from xretrieve.errors import XRetrieveError


def entry(number: int, split: str = "test", captions: int = 5, **more: Any) -> dict[str, Any]:
    texts = [f"caption {k} of image {number}" for k in range(captions)]
    sentences = [{"raw": t, "tokens": t.split(), "sentid": 10 * number + k} for k, t in enumerate(texts)]
    return {"filename": f"{number}.jpg", "imgid": number, "split": split, "sentences": sentences, **more}


def write(root: Path, entries: list[dict[str, Any]], name: str = "flickr8k", pictures: bool = True) -> Path:
    """A data root with one json and empty-looking (one byte) picture files."""
    short = "coco" if name == "mscoco" else name
    folder = root / short
    (folder / "images").mkdir(parents=True)
    (folder / f"dataset_{short}.json").write_text(json.dumps({"dataset": short, "images": entries}), encoding="utf-8")
    for one in entries if pictures else ():
        (folder / "images" / one["filename"]).write_bytes(b"x")
    return root


def test_flickr8k_has_its_official_counts_and_repeated_captions(data_root: Path) -> None:
    counts = {}
    texts: list[str] = []
    for split in ("train", "val", "test"):
        data = datasets.load("flickr8k", data_root, split)
        counts[split] = (len(data), len(data.captions), data.coverage)
        assert np.bincount(data.owner).tolist() == [5] * len(data)
        texts += data.captions
    assert counts == {"train": (6000, 30000, 1.0), "val": (1000, 5000, 1.0), "test": (1000, 5000, 1.0)}
    assert (len(texts), len(set(texts))) == (40000, 39748)


def test_flickr30k_captions_come_from_the_zip(data_root: Path) -> None:
    counts = {}
    for split in ("train", "val", "test"):
        read = datasets.annotations("flickr30k", data_root, split)
        assert read is not None and ".zip!" in read.source
        counts[split] = (len(read.images), len(read.captions))
    assert counts == {"train": (29000, 145000), "val": (1014, 5070), "test": (1000, 5000)}


def test_flickr30k_on_flickr8k_photos_reports_its_coverage(data_root: Path) -> None:
    data = datasets.load("flickr30k", data_root, "test", photos="flickr8k")
    assert 200 < len(data) <= 243 and data.coverage == len(data) / 1000
    assert all(Path(str(image)).is_file() for image in data.images)


def test_captions_without_photos_say_where_was_looked_and_what_else_works(data_root: Path) -> None:
    with pytest.raises(XRetrieveError, match=r"none of its 1,000 images.*flickr30k/images.*photos='flickr8k'"):
        datasets.load("flickr30k", data_root, "test", layout="karpathy")


def test_restval_joins_train_and_test2016_is_test(tmp_path: Path) -> None:
    entries = [entry(0, "restval"), entry(1, "test2016"), entry(2, "train"), entry(3, "val")]
    write(tmp_path, entries)
    assert datasets.load("flickr8k", tmp_path, "train").image_ids == ["0.jpg", "2.jpg"]
    assert datasets.load("flickr8k", tmp_path, "test").image_ids == ["1.jpg"]
    assert datasets.load("flickr8k", tmp_path, "test2016").split == "test"
    assert datasets.load("flickr8k", tmp_path, "dev").image_ids == ["3.jpg"]


def test_images_with_six_or_seven_captions_keep_them_or_are_trimmed(tmp_path: Path) -> None:
    write(tmp_path, [entry(0, captions=7), entry(1, captions=5), entry(2, captions=6)])
    whole = datasets.load("flickr8k", tmp_path)
    assert np.bincount(whole.owner).tolist() == [7, 5, 6]
    five = datasets.load("flickr8k", tmp_path, captions_per_image=5)
    assert np.bincount(five.owner).tolist() == [5, 5, 5] and five.captions_of(0) == whole.captions_of(0)[:5]
    with pytest.raises(XRetrieveError, match="'1.jpg' has 5 captions, fewer than captions_per_image=6"):
        datasets.load("flickr8k", tmp_path, captions_per_image=6)


def test_the_first_images_of_a_split_alone_are_kept_and_said(tmp_path: Path) -> None:
    write(tmp_path, [entry(0), entry(1), entry(2), entry(3, "train"), entry(4, "train")])
    data = datasets.load("flickr8k", tmp_path, test=2, train=1)
    assert data.image_ids == ["0.jpg", "1.jpg"] and data.expected_images == 2 and len(data.captions) == 10
    assert data.notes[-1] == "only the first 2 of 3 images, as asked"
    assert len(datasets.load("flickr8k", tmp_path, test=9)) == 3
    with pytest.raises(XRetrieveError, match="flickr8k: test=0; give the number of images to keep"):
        datasets.load("flickr8k", tmp_path, test=0)


def test_absent_photos_leave_their_captions_out_too(tmp_path: Path) -> None:
    write(tmp_path, [entry(0), entry(1), entry(2)])
    (tmp_path / "flickr8k" / "images" / "1.jpg").unlink()
    data = datasets.load("flickr8k", tmp_path)
    assert data.image_ids == ["0.jpg", "2.jpg"] and data.captions_of(1)[0] == "caption 0 of image 2"
    assert data.expected_images == 3 and len(data.captions) == 10


def test_coco_photos_are_found_in_their_subfolders_and_under_their_2017_names(tmp_path: Path) -> None:
    names = ["COCO_train2014_000000000009.jpg", "COCO_val2014_000000000042.jpg"]
    entries = [
        {**entry(i), "filename": n, "filepath": n.split("_")[1], "cocoid": int(n[-6:-4])} for i, n in enumerate(names)
    ]
    write(tmp_path, entries, "mscoco", pictures=False)
    for folder, name in (("train2014", names[0]), ("val2017", "000000000042.jpg")):
        (tmp_path / "coco" / folder).mkdir()
        (tmp_path / "coco" / folder / name).write_bytes(b"x")
    data = datasets.load("mscoco", tmp_path, "test")
    assert [Path(str(i)).parent.name for i in data.images] == ["train2014", "val2017"]
    assert data.metadata[1]["cocoid"] == 42


def test_json_inside_a_zip_at_the_root_is_read_and_mac_shadow_files_are_not(tmp_path: Path) -> None:
    (tmp_path / "flickr8k" / "images").mkdir(parents=True)
    (tmp_path / "flickr8k" / "images" / "0.jpg").write_bytes(b"x")
    with zipfile.ZipFile(tmp_path / "my_caption_datasets_v2.zip", "w") as archive:
        archive.writestr("__MACOSX/dataset_flickr8k.json", b"\x00\x05\x16\x07")
        archive.writestr("caption_datasets/dataset_flickr8k.json", json.dumps({"images": [entry(0)]}))
    assert len(datasets.load("flickr8k", tmp_path)) == 1


def test_captions_keep_non_ascii_letters_and_never_become_bytes_reprs(tmp_path: Path) -> None:
    one = entry(0)
    one["sentences"][0]["raw"] = "Ein Mädchen läuft — schnell 走 ."
    write(tmp_path, [one])
    assert datasets.load("flickr8k", tmp_path).captions[0] == "Ein Mädchen läuft — schnell 走 ."


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda e: e.pop("split"), "image 1 .'1.jpg'. has no key 'split'"),
        (lambda e: e.pop("sentences"), "image 1 .'1.jpg'. has no key 'sentences'"),
        (lambda e: e.update(sentences=[]), "'1.jpg' has no sentences"),
        (lambda e: e["sentences"][2].update(raw="  "), "'1.jpg': sentence 2 has no text"),
        (lambda e: e.update(split="tset"), "image 1 .*did you mean 'test'"),
        (lambda e: e.update(filename="0.jpg"), "image id '0.jpg' occurs twice"),
        (lambda e: e["sentences"][0].update(sentid=0), "caption id '0' occurs twice"),
    ],
)
def test_a_bad_entry_is_named(tmp_path: Path, change: Any, message: str) -> None:
    entries = [entry(0), entry(1)]
    change(entries[1])
    write(tmp_path, entries)
    with pytest.raises(XRetrieveError, match=f"dataset_flickr8k.json: .*{message}"):
        datasets.load("flickr8k", tmp_path)


def test_truncated_json_names_the_file_and_place(tmp_path: Path) -> None:
    write(tmp_path, [entry(0)])
    path = tmp_path / "flickr8k" / "dataset_flickr8k.json"
    path.write_text(path.read_text()[:100])
    with pytest.raises(XRetrieveError, match="dataset_flickr8k.json: not valid JSON, line 1"):
        datasets.load("flickr8k", tmp_path)


def test_truncated_zip_is_an_error_that_names_it(tmp_path: Path) -> None:
    (tmp_path / "caption_datasets.zip").write_bytes(b"PK\x03\x04 half a download")
    with pytest.raises(XRetrieveError, match="caption_datasets.zip: not a readable zip"):
        datasets.load("flickr8k", tmp_path)


def test_nothing_there_says_what_was_looked_for(tmp_path: Path) -> None:
    with pytest.raises(XRetrieveError, match=r"dataset_flickr8k.json .*caption_datasets.*test_caps.txt.*data check"):
        datasets.load("flickr8k", tmp_path)
    with pytest.raises(XRetrieveError, match="no data root .*XRETRIEVE_DATA"):
        datasets.load("flickr8k", tmp_path / "nowhere")


def test_wrong_names_get_the_nearest_one(tmp_path: Path) -> None:
    write(tmp_path, [entry(0)])
    with pytest.raises(XRetrieveError, match="did you mean 'mscoco'"):
        datasets.load("coco", tmp_path)
    with pytest.raises(XRetrieveError, match="did you mean 'test'"):
        datasets.load("flickr8k", tmp_path, "tset")
    with pytest.raises(XRetrieveError, match="did you mean 'karpathy'"):
        datasets.load("flickr8k", tmp_path, layout="karpaty")
    with pytest.raises(XRetrieveError, match="did you mean 'photos'"):
        datasets.load("flickr8k", tmp_path, fotos="x")
    with pytest.raises(XRetrieveError, match="photos='nowhere': no such folder"):
        datasets.load("flickr8k", tmp_path, photos="nowhere")


def test_photos_may_lie_in_any_folder(tmp_path: Path) -> None:
    write(tmp_path, [entry(0)], pictures=False)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "0.jpg").write_bytes(b"x")
    assert datasets.load("flickr8k", tmp_path, photos=str(elsewhere)).images == [elsewhere / "0.jpg"]


def test_a_changed_file_is_read_again(tmp_path: Path) -> None:
    write(tmp_path, [entry(0)])
    assert len(datasets.load("flickr8k", tmp_path)) == 1
    (tmp_path / "flickr8k" / "images" / "1.jpg").write_bytes(b"x")
    path = tmp_path / "flickr8k" / "dataset_flickr8k.json"
    path.write_text(json.dumps({"images": [entry(0), entry(1)]}))
    assert len(datasets.load("flickr8k", tmp_path)) == 2
