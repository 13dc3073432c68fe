"""Visual Genome in its public shapes: the order of the turns, the lists, the region files, and every trap of them."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import xretrieve as xr
from tests.data.vg_files import (
    PHRASES,
    TEST,
    TRAIN,
    Command,
    features_of,
    graph,
    vocabulary,
    write_features,
    write_photos,
    write_vg,
)
from xretrieve.backbones import create_backbone
from xretrieve.backbones.vocabulary import Vocabulary
from xretrieve.data import datasets
from xretrieve.data.check import check
from xretrieve.data.prepare import convert, extract
from xretrieve.errors import XRetrieveError

SHAPES = ["rg_jsons", "region_graphs.json", "region_descriptions.json"]
# lower case; of "tall tree" the later copy goes, "a man " stays beside "a man"; then by region id, last in file first
TURNS = ["two windows", "blue sky", "a man", "tall tree", "a man ", "red bus on road"]


def read(root: Path, split: str = "test", **options: Any) -> Any:
    return datasets.annotations("visual_genome", root, split, turns=options.pop("turns", 6), **options)


@pytest.mark.parametrize("nested", [True, False])
@pytest.mark.parametrize("shape", SHAPES)
def test_turns_are_distinct_phrases_by_region_id_in_every_public_shape(
    tmp_path: Path, shape: str, nested: bool
) -> None:
    write_photos(write_vg(tmp_path, shape=shape, nested=nested), TEST)
    data = xr.datasets.load("visual_genome", tmp_path, "test", turns=6)
    assert data.image_ids == ["25", "9", "58"]  # the order of the list
    assert all(data.captions_of(row) == TURNS for row in range(3))
    assert data.caption_ids[:2] == ["25#25001", "25#25002"]
    assert [region.text for region in data.regions[1]] == TURNS
    assert data.regions[1][0].box == (9001.0, 1.0, 30.0, 20.0)
    assert data.layout == "photos" and [Path(str(p)).name for p in data.images] == ["25.jpg", "9.jpg", "58.jpg"]
    assert data.notes == ["3 listed images with 18 distinct phrases, 6.0 each, none with fewer than 6"]


def test_drill_downs_own_data_folder_can_be_the_root(tmp_path: Path) -> None:
    folder = write_vg(tmp_path)
    assert len(read(folder).images) == 3
    flat = write_vg(tmp_path / "flat", nested=False)
    assert read(flat).captions == read(folder).captions


def test_a_listed_image_with_too_few_phrases_is_an_error_unless_it_is_allowed(tmp_path: Path) -> None:
    folder = write_vg(tmp_path)
    (folder / "vg/rg_jsons/9.json").write_text(json.dumps({"image_id": 9, "regions": graph(9, PHRASES[:2])}))
    with pytest.raises(XRetrieveError, match=r"image 9 has 2 distinct phrases, fewer than turns=6 \(1 such"):
        read(tmp_path)
    found = read(tmp_path, allow_short=True)
    assert [len(r.captions) for r in found.images] == [6, 2, 6] and "1 have fewer than 6" in found.notes[0]


def test_the_lists_are_checked(tmp_path: Path) -> None:
    folder = write_vg(tmp_path)
    path = folder / "caches/vg_test.txt"
    for content, said in (
        ("25\n9\n58\n11\n", "image 11 is in vg_train.txt too"),
        ("25\n9\n25\n", "entry 3, image 25, is there twice"),
        ("25\n9.0\n", "entry 2 is '9.0', not an image id"),
        ("", "the list is empty"),
        ("25\n5123\n", "no phrases of image 5123"),
    ):
        path.write_text(content)
        with pytest.raises(XRetrieveError, match=said):
            read(tmp_path)
    path.write_text("25\n5\n")
    assert "1 test images are not in" in read(tmp_path).notes[1]  # the region detector has seen image 5
    path.unlink()
    with pytest.raises(XRetrieveError, match="no split list vg_test.txt"):
        read(tmp_path)
    with pytest.raises(XRetrieveError, match="did you mean 'test'"):
        read(tmp_path, "tset")


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        ({"image_id": 25}, "expected a list under 'regions'"),
        ({"image_id": 26, "regions": []}, "it says that it is image 26"),
        ({"regions": [{"region_id": 1, "phrase": "x"}]}, "region 0 needs region_id, x, y"),
        ({"regions": [{**graph(25)[0], "phrase": None}]}, "region 0 needs"),
        ([], "expected an object"),
    ],
)
def test_a_broken_region_graph_names_the_file(tmp_path: Path, entry: Any, said: str) -> None:
    path = write_vg(tmp_path) / "vg/rg_jsons/25.json"
    path.write_text(json.dumps(entry))
    with pytest.raises(XRetrieveError, match=said) as error:
        read(tmp_path)
    assert "25.json" in str(error.value)


def test_large_lists_are_read_an_image_at_a_time_and_a_cut_file_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from xretrieve.data.visual_genome import phrases

    monkeypatch.setattr(phrases, "_CHUNK", 11)  # items cross the borders of what is read at once
    path = write_vg(tmp_path, shape="region_descriptions.json") / "vg/region_descriptions.json"
    whole = path.read_text()
    assert list(phrases.json_items(path)) == json.loads(whole)
    path.write_text(json.dumps(json.loads(whole), indent=1))
    assert list(phrases.json_items(path)) == json.loads(whole)
    path.write_text(whole[: len(whole) // 2])
    with pytest.raises(XRetrieveError, match="region_descriptions.json: not valid JSON near character"):
        list(phrases.json_items(path))
    path.write_text('{"regions": []}')
    with pytest.raises(XRetrieveError, match="expected a JSON list"):
        list(phrases.json_items(path))


@pytest.mark.parametrize("shape", SHAPES)
def test_extract_writes_lines_that_read_the_same(tmp_path: Path, shape: str) -> None:
    folder = write_vg(tmp_path, shape=shape)
    before = {split: read(tmp_path, split) for split in ("train", "val", "test")}
    written = extract("visual_genome", tmp_path)
    assert written == [folder / "vg_phrases.jsonl"] and not list(folder.rglob("*.part*"))
    for split, found in before.items():
        now = read(tmp_path, split)
        assert now.source.endswith("vg_phrases.jsonl") and now.images == found.images
    written[0].write_text('{"image_id": 25, "regions": [[1, 2]]}\n')
    with pytest.raises(XRetrieveError, match=r"vg_phrases.jsonl: line 1 is broken; `xretrieve data prepare"):
        read(tmp_path)


def test_extract_turns_the_pickled_vocabulary_into_one_that_words_reads(tmp_path: Path) -> None:
    folder = write_vg(tmp_path)
    words = {"<pad>": 0, "<start>": 1, "<end>": 2, "<unk>": 3, "bus": 4}
    (folder / "caches/vg_vocab_14284.pkl").write_bytes(vocabulary(words, 2))
    _, path = extract("visual_genome", tmp_path, tmp_path / "made")
    assert path.name == "vg_vocab_14284.json" and Vocabulary.load(path).numbers == words
    (folder / "caches/vg_vocab_14284.pkl").write_bytes(b"cos\nsystem\n(S'true'\ntR.")
    with pytest.raises(XRetrieveError, match="asks for (os|posix).system, which is refused"):
        extract("visual_genome", tmp_path)


# region features -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("protocol", [0, 2, 5])
def test_converted_region_files_hold_the_same_numbers_and_are_preferred(tmp_path: Path, protocol: int) -> None:
    folder = write_vg(tmp_path)
    write_photos(folder, TEST)
    write_features(folder, TEST, protocol)
    done = convert("visual_genome", tmp_path, splits=["test"])
    assert done["test"]["images"] == 3 and done["test"]["missing"] == 0 and done["test"]["dtype"] == "float32"
    data = xr.datasets.load("visual_genome", tmp_path, "test", turns=6)
    assert data.layout == "regions" and data.coverage == 1
    tokens = create_backbone("regions", dim=6).encode(data.images)
    for row, image in enumerate(TEST):
        assert np.array_equal(tokens.local[row].numpy(), features_of(image)["region_feats"])
    boxes = np.load(folder / "regions/test/boxes.npy", allow_pickle=False)
    assert np.array_equal(boxes[2], features_of(58)["region_boxes"])
    assert xr.datasets.load("visual_genome", tmp_path, "test", "photos", turns=6).layout == "photos"


def test_fewer_regions_get_a_mask_and_half_precision_is_by_choice(tmp_path: Path) -> None:
    folder = write_vg(tmp_path)
    raw = write_features(folder, TEST[:1])
    np.save(raw / "9.npy", features_of(9, regions=7)["region_feats"])  # plain, more regions than the first
    np.savez(raw / "000000000058.npz", features=features_of(58, regions=2)["region_feats"])
    with pytest.raises(XRetrieveError, match=r"9.npy \(image 9\).*mixes two extractions"):  # no boxes there
        convert("visual_genome", tmp_path, splits=["test"])
    assert not (folder / "regions").exists() or not list((folder / "regions").iterdir())
    np.savez(raw / "9.npz", features=features_of(9, 7)["region_feats"], boxes=features_of(9, 7)["region_boxes"])
    (raw / "9.npy").unlink()
    two = features_of(58, regions=2)
    np.savez(raw / "000000000058.npz", features=two["region_feats"], boxes=two["region_boxes"])
    done = convert("visual_genome", tmp_path, tmp_path / "out", splits=["test"], half=True)["test"]
    assert (done["dtype"], done["regions"], done["regions_per_image"]) == ("float16", 7, 4.33)
    data = xr.datasets.load("visual_genome", tmp_path, "test", turns=6, features=str(tmp_path / "out"))
    tokens = create_backbone("regions", dim=6).encode(data.images)
    assert tokens.lengths.tolist() == [4, 7, 2]
    assert np.allclose(tokens.local[2, :2].numpy(), two["region_feats"], atol=2e-3)


def test_missing_region_files_lower_the_coverage_and_broken_ones_stop_the_conversion(tmp_path: Path) -> None:
    folder = write_vg(tmp_path)
    raw = write_features(folder, TEST[:2])
    done = convert("visual_genome", tmp_path, splits=["test"])["test"]
    assert (done["images"], done["missing"], done["first_missing"]) == (2, 1, ["58"])
    data = xr.datasets.load("visual_genome", tmp_path, "test", turns=6)
    assert data.image_ids == ["25", "9"] and data.coverage == pytest.approx(2 / 3)
    good = (raw / "000000000009.npy").read_bytes()
    nan = {**features_of(9), "region_feats": np.full((4, 6), np.nan, np.float32)}
    cases = [
        (good[: len(good) // 2], "damaged"),
        (pickle.dumps({"region_feats": Command(print, "x")}), "builtins.print, which is refused"),
        (pickle.dumps({"region_boxes": features_of(9)["region_boxes"]}), "expected region features"),
        (pickle.dumps(nan), "NaN or infinite"),
        (pickle.dumps({**features_of(9), "region_boxes": np.zeros((3, 4))}), r"4 regions, but boxes of shape \(3, 4\)"),
        (pickle.dumps(features_of(9, width=5)), "mixes two extractions"),
        (b"PK\x03\x04", "cannot be read"),
        (b"\x93NUMPY\x01\x00", "cannot be read"),
    ]
    before = {p.name: p.read_bytes() for p in (folder / "regions/test").iterdir()}
    for content, said in cases:
        (raw / "000000000009.npy").write_bytes(content)
        with pytest.raises(XRetrieveError, match=said) as error:
            convert("visual_genome", tmp_path, splits=["test"])
        assert "000000000009.npy" in str(error.value)
        assert {p.name: p.read_bytes() for p in (folder / "regions/test").iterdir()} == before
    with pytest.raises(XRetrieveError, match="no file of the 4 images of train"):
        convert("visual_genome", tmp_path, splits=["train"])


def test_region_files_that_are_not_converted_yet_are_pointed_at(tmp_path: Path) -> None:
    folder = write_vg(tmp_path)
    write_features(folder, TEST)
    with pytest.raises(XRetrieveError, match="The region files are there: `xretrieve data prepare visual_genome"):
        xr.datasets.load("visual_genome", tmp_path, "test", turns=6)
    with pytest.raises(XRetrieveError, match="no folder region_36_final"):
        convert("visual_genome", write_vg(tmp_path / "b").parent)


# the commands --------------------------------------------------------------------------------------------------------


def test_check_list_and_show_know_the_dataset(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from xretrieve.cli.main import main

    folder = write_vg(tmp_path)
    write_photos(folder, [*TEST, *TRAIN])
    write_features(folder, TEST)
    assert main(["data", "prepare", "visual_genome", "--root", str(tmp_path), "--features", "--split", "test"]) == 0
    assert "images 3, regions 4, width 6, dtype float32" in capsys.readouterr().out
    report = check("visual_genome", tmp_path, read=True, turns=6)
    by_split = {s.split: s for s in report.splits}
    assert by_split["test"].layout == "regions" and by_split["test"].effect == "complete"
    assert by_split["train"].layout == "photos" and by_split["train"].usable and not by_split["val"].usable
    assert any("official split has 9,896" in note for note in by_split["test"].notes)
    assert any("none with fewer than 6" in note for note in by_split["test"].notes)
    assert main(["data", "list", "--root", str(tmp_path)]) == 0
    assert "split lists (train, val, test)" in capsys.readouterr().out
    assert main(["data", "show", "visual_genome", "9", "--root", str(tmp_path), "-o", "turns=6"]) == 0
    shown = capsys.readouterr().out
    assert "[9001, 1, 30, 20] two windows" in shown and "- two windows" not in shown


def test_the_published_lists_are_whole_and_disjoint(data_root: Path) -> None:
    from xretrieve.data.visual_genome.places import base, split_ids

    if not (data_root / "visual_genome").is_dir():
        pytest.skip("no Visual Genome lists there")
    sizes = {split: len(split_ids(base(data_root), split)) for split in ("train", "val", "test")}
    assert sizes == {"train": 92105, "val": 5000, "test": 9896}
    with pytest.raises(XRetrieveError, match="no phrases; looked for"):
        read(data_root)
