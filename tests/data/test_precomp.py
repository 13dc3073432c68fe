"""The precomp layout: real caption files with small made-up features, and each trap of its public copies."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from xretrieve.backbones import create_backbone
from xretrieve.data import datasets
from xretrieve.data.base import FeatureRow
from xretrieve.data.check import check
from xretrieve.data.flickr30k import CLASSIC
from xretrieve.data.precomp import bad_feature_rows, read_lines
from xretrieve.data.prepare import convert_folder
from xretrieve.errors import XRetrieveError


def write(
    root: Path,
    images: int = 4,
    rows: int | None = None,
    lines: list[str] | None = None,
    stem: str = "test",
    ids: list[str] | None = None,
    dtype: str = "float32",
    folder: str = "f30k_precomp",
) -> Path:
    """A data root whose row r holds features of value r + 1."""
    target = root / folder
    target.mkdir(parents=True, exist_ok=True)
    lines = lines if lines is not None else [f"caption {k} of image {i} ." for i in range(images) for k in range(5)]
    (target / f"{stem}_caps.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    rows = images if rows is None else rows
    features = np.broadcast_to(np.arange(1, rows + 1)[:, None, None], (rows, 3, 2)).astype(dtype)
    np.save(target / f"{stem}_ims.npy", features)
    if ids is not None:
        (target / f"{stem}_ids.txt").write_text("\n".join(ids) + "\n")
    return target


def copied(data_root: Path, root: Path, folder: str, stem: str, images: int) -> None:
    """The real captions and ids beside made-up features."""
    write(root, images, stem=stem, folder=folder)
    for kind in ("caps", "ids"):
        (root / folder / f"{stem}_{kind}.txt").write_bytes((data_root / folder / f"{stem}_{kind}.txt").read_bytes())


@pytest.mark.parametrize(
    ("name", "folder", "stem", "split", "images"),
    [
        ("flickr30k", "f30k_precomp", "dev", "val", 1014),
        ("flickr30k", "f30k_precomp", "test", "test", 1000),
        ("mscoco", "coco_precomp", "testall", "test", 5000),
        ("mscoco", "coco_precomp", "dev", "val", 1000),
    ],
)
def test_real_files_have_their_counts_whole(
    data_root: Path, tmp_path: Path, name: str, folder: str, stem: str, split: str, images: int
) -> None:
    copied(data_root, tmp_path, folder, stem, images)
    data = datasets.load(name, tmp_path, split)
    assert (len(data), len(data.captions), data.layout, data.split) == (images, images * 5, "precomp", split)
    real = (data_root / folder / f"{stem}_caps.txt").read_text(encoding="utf-8").splitlines()
    assert data.captions[-1] == real[-1].strip() and not any(c.startswith("b'") for c in data.captions)
    assert np.array_equal(data.owner, np.arange(images * 5) // 5)
    assert data.image_ids[1] == (data_root / folder / f"{stem}_ids.txt").read_text().split()[5]


def test_dev_limit_cuts_validation_only_and_is_off_by_default(data_root: Path, tmp_path: Path) -> None:
    copied(data_root, tmp_path, "f30k_precomp", "dev", 1014)
    assert len(datasets.load("flickr30k", tmp_path, "val").captions) == 5070
    cut = datasets.load("flickr30k", tmp_path, "val", dev_limit=5000)
    assert (len(cut), len(cut.captions)) == (1000, 5000)
    write(tmp_path, 4)
    assert len(datasets.load("flickr30k", tmp_path, "test", dev_limit=10)) == 4
    with pytest.raises(XRetrieveError, match="dev_limit=3 leaves no image"):
        datasets.load("flickr30k", tmp_path, "val", dev_limit=3)


def test_images_stored_once_or_five_times_are_the_same_dataset(tmp_path: Path) -> None:
    write(tmp_path / "once", 4, rows=4)
    path = write(tmp_path / "five", 4, rows=20) / "test_ims.npy"
    np.save(path, np.repeat(np.load(path)[::5], 5, 0))
    once, five = (datasets.load("flickr30k", tmp_path / kind) for kind in ("once", "five"))
    assert [i.row for i in once.images if isinstance(i, FeatureRow)] == [0, 1, 2, 3]
    assert [i.row for i in five.images if isinstance(i, FeatureRow)] == [0, 5, 10, 15]
    assert once.captions == five.captions and once.owner.tolist() == five.owner.tolist()


@pytest.mark.parametrize("rows", [3, 5, 19, 21])
def test_wrong_row_counts_name_both_counts(tmp_path: Path, rows: int) -> None:
    write(tmp_path, 4, rows=rows)
    with pytest.raises(XRetrieveError, match=rf"test_caps.txt has 20 captions and test_ims.npy {rows} images"):
        datasets.load("flickr30k", tmp_path)


def test_a_caption_file_one_line_short_names_both_counts(tmp_path: Path) -> None:
    write(tmp_path, 4, lines=[f"caption {i}" for i in range(19)])
    with pytest.raises(XRetrieveError, match="has 19 captions and test_ims.npy 4 images.* 20 lines"):
        datasets.load("flickr30k", tmp_path)


def test_lines_that_are_no_multiple_of_five_are_an_error_without_features_too(tmp_path: Path) -> None:
    (write(tmp_path, 4, lines=["a"] * 19) / "test_ims.npy").unlink()
    with pytest.raises(XRetrieveError, match="19 lines, not a multiple of 5"):
        datasets.annotations("flickr30k", tmp_path)


def test_crlf_and_a_missing_last_newline_change_nothing(tmp_path: Path) -> None:
    lines = [f"caption {i} ." for i in range(20)]
    folder = write(tmp_path, 4, lines=lines)
    (folder / "test_caps.txt").write_bytes("\r\n".join(lines).encode())
    assert datasets.load("flickr30k", tmp_path).captions == lines


@pytest.mark.parametrize("place", [0, 7, 19])
def test_a_blank_line_is_an_error_that_names_the_line(tmp_path: Path, place: int) -> None:
    lines = [f"caption {i}" for i in range(20)]
    lines[place] = " "
    write(tmp_path, 4, lines=lines)
    with pytest.raises(XRetrieveError, match=rf"test_caps.txt: line {place + 1} is blank"):
        datasets.load("flickr30k", tmp_path)


def test_an_extra_blank_line_at_the_end_is_an_error(tmp_path: Path) -> None:
    path = write(tmp_path, 4) / "test_caps.txt"
    path.write_text(path.read_text() + "\n")
    with pytest.raises(XRetrieveError, match="line 21 is blank"):
        datasets.load("flickr30k", tmp_path)


def test_characters_that_only_look_like_line_ends_do_not_shift_images(tmp_path: Path) -> None:
    path = tmp_path / "caps.txt"
    path.write_text("one\u2028still one\nzwölf\x0cdogs\n", encoding="utf-8")
    assert read_lines(path) == ["one\u2028still one", "zwölf\x0cdogs"]


def test_other_encodings_name_the_line(tmp_path: Path) -> None:
    path = tmp_path / "caps.txt"
    path.write_bytes("fine\nM\u00e4dchen\n".encode("latin-1"))
    with pytest.raises(XRetrieveError, match="caps.txt: line 2 is not UTF-8"):
        read_lines(path)


def test_an_empty_caption_file_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "caps.txt").write_bytes(b"")
    with pytest.raises(XRetrieveError, match="the file is empty"):
        read_lines(tmp_path / "caps.txt")


def test_ids_once_or_five_times_each_and_row_numbers_without_a_file(tmp_path: Path) -> None:
    once, five = ["a", "b"], ["a"] * 5 + ["b"] * 5
    for kind, ids in (("once", once), ("five", five), ("none", None)):
        write(tmp_path / kind, 2, ids=ids)
    assert datasets.load("flickr30k", tmp_path / "once").image_ids == once
    assert datasets.load("flickr30k", tmp_path / "five").image_ids == once
    assert datasets.load("flickr30k", tmp_path / "none").image_ids == ["0", "1"]


def test_ids_of_a_wrong_count_or_order_are_errors(tmp_path: Path) -> None:
    write(tmp_path / "short", 2, ids=["a", "b", "c"])
    with pytest.raises(XRetrieveError, match="3 ids, but there are 2 images and 10 captions"):
        datasets.load("flickr30k", tmp_path / "short")
    write(tmp_path / "mixed", 2, ids=["a"] * 4 + ["b"] * 6)
    with pytest.raises(XRetrieveError, match="lines 1 to 5 belong to one image but name several: a, b"):
        datasets.load("flickr30k", tmp_path / "mixed")
    write(tmp_path / "twice", 2, ids=["a", "a"])
    with pytest.raises(XRetrieveError, match="image id 'a' occurs twice"):
        datasets.load("flickr30k", tmp_path / "twice")


def test_a_truncated_or_misshapen_feature_file_is_named(tmp_path: Path) -> None:
    path = write(tmp_path, 4) / "test_ims.npy"
    path.write_bytes(path.read_bytes()[:-8])
    with pytest.raises(XRetrieveError, match="test_ims.npy: not a readable .npy array"):
        datasets.load("flickr30k", tmp_path)
    path.write_bytes(b"")
    with pytest.raises(XRetrieveError, match="test_ims.npy: not a readable .npy array"):
        datasets.load("flickr30k", tmp_path)
    np.save(path, np.zeros((4, 7), np.float32))
    with pytest.raises(XRetrieveError, match=r"expected floating point features .*float32 \(4, 7\)"):
        datasets.load("flickr30k", tmp_path)
    np.save(path, np.array([{"a": 1}] * 4, dtype=object))
    with pytest.raises(XRetrieveError, match="not a readable .npy array"):
        datasets.load("flickr30k", tmp_path)


def test_loading_never_reads_a_feature_file_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, 4)
    modes = []
    load = np.load
    monkeypatch.setattr(np, "load", lambda *args, **how: modes.append(how.get("mmap_mode")) or load(*args, **how))
    datasets.load("flickr30k", tmp_path)
    assert modes and set(modes) == {"r"}


def test_coco_prefers_testall_and_takes_what_is_there(tmp_path: Path) -> None:
    write(tmp_path, 2, stem="test", folder="coco_precomp")
    assert len(datasets.load("mscoco", tmp_path, "test")) == 2
    write(tmp_path, 4, stem="testall", folder="coco_precomp")
    assert len(datasets.load("mscoco", tmp_path, "test")) == len(datasets.load("mscoco", tmp_path, "testall")) == 4
    write(tmp_path, 3, stem="dev", folder="coco_precomp")
    assert len(datasets.load("mscoco", tmp_path, "val")) == len(datasets.load("mscoco", tmp_path, "dev")) == 3


def test_captions_without_features_say_which_file_is_missing(tmp_path: Path) -> None:
    (write(tmp_path, 4) / "test_ims.npy").unlink()
    with pytest.raises(XRetrieveError, match=r"captions are in .*test_caps.txt.*looked in .*test_ims.npy"):
        datasets.load("flickr30k", tmp_path)
    assert len(datasets.captions("flickr30k", tmp_path, "test")) == 20


def test_a_caption_for_each_image_is_no_image_stored_five_times(tmp_path: Path) -> None:
    """The counts are those of images stored five times; the rows differ, so they are images."""
    for ids in (None, [f"p{i}" for i in range(20)]):
        write(tmp_path, rows=20, ids=ids, lines=[f"caption {i}" for i in range(20)])
        data = datasets.load("flickr30k", tmp_path)
        assert [i.row for i in data.images if isinstance(i, FeatureRow)] == list(range(20)) == data.owner.tolist()
        assert data.image_ids == (ids or [str(i) for i in range(20)])
        report = check("flickr30k", tmp_path, "test")
        assert report.splits[0].images == 20 and "stored once" in " ".join(report.splits[0].notes)
        assert convert_folder(CLASSIC, tmp_path) == [], "nothing is thrown away"
    (tmp_path / "f30k_precomp" / "test_ids.txt").unlink()
    write(tmp_path, rows=7, lines=[f"caption {i}" for i in range(7)])
    assert len(datasets.load("flickr30k", tmp_path)) == 7


def test_rows_that_are_copies_in_some_places_only_are_an_error(tmp_path: Path) -> None:
    path = write(tmp_path, 8, rows=40) / "test_ims.npy"
    features = np.repeat(np.load(path)[::5], 5, 0)
    features[17] += 1
    np.save(path, features)
    with pytest.raises(XRetrieveError, match=r"each 5 rows are equal, in others not \(rows 15 to 19\)"):
        datasets.load("flickr30k", tmp_path)


def test_regions_of_zeros_are_padding_and_the_check_says_so(tmp_path: Path) -> None:
    path = write(tmp_path, 4) / "test_ims.npy"
    features = np.load(path)
    features[1, 2], features[3, 1:] = 0, 0
    np.save(path, features)
    data = datasets.load("flickr30k", tmp_path)
    tokens = create_backbone("regions", dim=2).encode(data.images)
    assert tokens.mask.tolist() == [[True] * 3, [True, True, False], [True] * 3, [True, False, False]]
    assert tokens.pooled.tolist() == [[1, 1], [2, 2], [3, 3], [4, 4]], "means over what is there"
    notes = " ".join(check("flickr30k", tmp_path, "test").splits[0].notes)
    assert "regions of nothing but zeros, 3 in 2 of 4 images that were looked at, are padding" in notes


def test_rows_of_nan_or_zeros_are_found(tmp_path: Path) -> None:
    path = write(tmp_path, 4) / "test_ims.npy"
    features = np.load(path)
    features[1] = 0
    features[3, 2, 1] = np.nan
    np.save(path, features)
    assert list(bad_feature_rows(path, range(4))) == [(1, "is all zeros"), (3, "has NaN or infinite values")]


@pytest.mark.parametrize(("rows", "dtype"), [(20, "float32"), (4, "float64"), (20, "float16")])
def test_prepare_makes_float32_stored_once(tmp_path: Path, rows: int, dtype: str) -> None:
    folder = write(tmp_path / "old", 4, rows=rows, dtype=dtype, ids=list("abcd"))
    before = np.load(folder / "test_ims.npy")[:: rows // 4].astype(np.float32)
    written = convert_folder(CLASSIC, tmp_path / "old", tmp_path / "new")
    after = np.load(written[0])
    assert after.dtype == np.float32 and np.array_equal(after, before)
    assert datasets.load("flickr30k", tmp_path / "new").image_ids == list("abcd")
    assert convert_folder(CLASSIC, tmp_path / "old") and np.array_equal(np.load(folder / "test_ims.npy"), before)
    assert convert_folder(CLASSIC, tmp_path / "old") == []  # nothing left to do
    assert not list(folder.glob(".*"))
