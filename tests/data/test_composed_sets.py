"""Fashion-IQ, Shoes and CIRR in their public layouts, and their official counts where the annotations are here."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.data.composed_files import dump, write_cirr, write_fashion_iq, write_shoes
from xretrieve.data import cirr, datasets, fashion_iq, shoes
from xretrieve.data.check import check
from xretrieve.data.modifications import query_texts
from xretrieve.errors import XRetrieveError


def test_fashion_iq_queries_are_ranked_within_their_category(tmp_path: Path) -> None:
    write_fashion_iq(tmp_path)
    data = datasets.load("fashion_iq", tmp_path, "val")
    assert data.categories == ["dress", "shirt", "toptee"] and len(data) == 18 and len(data.triplets) == 9
    gallery = data.gallery("original", "shirt")
    assert [data.image_ids[r] for r in gallery.rows] == [f"shirt-v{i}" for i in range(6)] and gallery.listed == 6
    union = data.gallery("val-union", "shirt")
    assert [data.image_ids[r] for r in union.rows] == ["shirt-v0", "shirt-v1", "shirt-v2", "shirt-v3", "shirt-v5"]
    first = data.triplets[0]
    assert (data.image_ids[first.reference], data.image_ids[first.target], first.category) == (
        "dress-v0", "dress-v1", "dress")  # fmt: skip
    assert any("officially 2,017" in note for note in data.notes)
    assert len(datasets.load("fashion_iq", tmp_path, "val", category="dress").triplets) == 3


def test_training_leaves_out_what_another_category_evaluates_on(tmp_path: Path) -> None:
    write_fashion_iq(tmp_path)
    data = datasets.load("fashion_iq", tmp_path, "train")
    assert "toptee-v1" not in data.image_ids and len(data.triplets) == 8
    assert any("left out 1 training images" in note and "1 pairs" in note for note in data.notes)
    kept = datasets.load("fashion_iq", tmp_path, "train", exclude_leaks=False)
    assert "toptee-v1" in kept.image_ids and len(kept.triplets) == 9
    assert len(datasets.load("fashion_iq", tmp_path, "train", category="shirt").triplets) == 3


def test_missing_photos_lose_queries_but_stay_on_the_gallery_list(tmp_path: Path) -> None:
    write_fashion_iq(tmp_path, leave_out=("dress-v1", "shirt-v4"))
    data = datasets.load("fashion_iq", tmp_path, "val")
    assert [(lost.id, lost.missing, lost.category) for lost in data.lost] == [("dress-val-0", ("dress-v1",), "dress")]
    assert (len(data.gallery("original", "shirt").rows), data.gallery("original", "shirt").listed) == (5, 6)
    found = check("fashion_iq", tmp_path, "val").splits[0]
    assert (found.queries, found.queries_here, found.missing) == (9, 8, 2) and found.usable
    assert "1 of 9 queries lost a photo" in found.effect and "at most 88.9 %" in found.effect
    assert found.first_missing == ["dress-v1", "shirt-v4"]


def test_no_photo_at_all_cannot_be_loaded_but_is_counted(tmp_path: Path) -> None:
    write_fashion_iq(tmp_path, photos=False)
    with pytest.raises(XRetrieveError, match="none of the 18 images has a photo; looked in .*images"):
        datasets.load("fashion_iq", tmp_path, "val")
    assert "annotations of 18 images are here" in check("fashion_iq", tmp_path, "val").splits[0].effect


def test_hidden_targets_of_fashion_iq_test(tmp_path: Path) -> None:
    write_fashion_iq(tmp_path)
    data = datasets.load("fashion_iq", tmp_path, "test")
    assert data.hidden and all(t.target is None for t in data.triplets)


def test_annotation_slips_name_file_and_key(tmp_path: Path) -> None:
    folder = write_fashion_iq(tmp_path)
    dump(folder / "captions/cap.dress.val.json", [{"candidate": "x", "captions": ["a", "b"]}])
    with pytest.raises(XRetrieveError, match="cap.dress.val.json, entry 0: no key 'target'"):
        datasets.load("fashion_iq", tmp_path, "val")
    dump(folder / "captions/cap.dress.val.json", [{"candidate": "x", "target": "y", "captions": ["a", "b"]}])
    with pytest.raises(XRetrieveError, match="'dress-val-0' has the reference 'x', which is not in the image list"):
        datasets.load("fashion_iq", tmp_path, "val")
    (folder / "captions/cap.dress.val.json").unlink()
    with pytest.raises(XRetrieveError, match="missing .*cap.dress.val.json"):
        datasets.load("fashion_iq", tmp_path, "val")
    with pytest.raises(XRetrieveError, match="did you mean 'toptee'"):
        datasets.load("fashion_iq", tmp_path, "val", category="topte")


def test_shoes_drops_self_pairs_from_training_only(tmp_path: Path) -> None:
    folder = write_shoes(tmp_path)
    train = datasets.load("shoes", tmp_path, "train")
    assert len(train.triplets) == 1 and train.captions == ["black pumps"] and len(train) == 5
    data = datasets.load("shoes", tmp_path, "test")
    assert [t.texts[0] for t in data.triplets] == ["is red", "is the same", "has a heel"]
    assert any("unreachable" in note for note in data.notes) and list(data.galleries) == ["all"]
    assert datasets.load("shoes", tmp_path, "val").triplets == data.triplets
    (folder / "val").mkdir()
    (folder / "val/eval_im_names.txt").write_text("img_b_4.jpg\n")
    longer = datasets.load("shoes", tmp_path, "test").gallery("val-list")
    assert longer.rows.tolist() == [0, 1, 2, 3, 4]


def test_cirr_keeps_subsets_and_hides_test_targets(tmp_path: Path) -> None:
    write_cirr(tmp_path)
    data = datasets.load("cirr", tmp_path, "val")
    assert [t.members for t in data.triplets] == [tuple(range(6))] * 2 and data.triplets[1].target == 5
    assert data.triplets[0].extra["soft"] == {"dev-1-0-img0": 1.0} and data.gallery("val").listed == 8
    test = datasets.load("cirr", tmp_path, "test")
    assert test.hidden and test.split == "test" and [t.id for t in test.triplets] == ["10", "12"]


def test_fashion_iq_counts(data_root: Path) -> None:
    listed: list[str] = []
    sizes = {"dress": 2628, "shirt": 3089, "toptee": 2902}
    for split in fashion_iq.SPLITS:
        everything = fashion_iq.annotations(data_root, split, exclude_leaks=False)
        for category in fashion_iq.CATEGORIES:
            own = [q for q in everything.queries if q.category == category]
            gallery = everything.galleries[f"original/{category}"]
            assert (len(own), len(gallery)) == fashion_iq.OFFICIAL[category, split]
            listed += gallery
            if split == "val":
                assert len(everything.galleries[f"val-union/{category}"]) == sizes[category]
            if split != "test":
                targets = [q.target for q in own]
                assert len(set(targets)) == len(targets) and all(q.reference != q.target for q in own)
    assert (len(listed), len(set(listed))) == (77683, 74381)
    assert len(everything.queries) == 6118


def test_fashion_iq_leaks_and_caption_modes(data_root: Path) -> None:
    everything = fashion_iq.annotations(data_root, "train", exclude_leaks=False)
    clean = fashion_iq.annotations(data_root, "train")
    assert len(everything.images) - len(clean.images) == 1614 and len(everything.queries) - len(clean.queries) == 1024
    assert len(everything.queries) == 18000
    val, test = (fashion_iq.annotations(data_root, split) for split in ("val", "test"))
    held = {r.id for r in val.images}
    assert sum(q.reference in held or q.target in held for q in everything.queries) == 523
    shared = {
        (a, part.split): len(set(everything.galleries[f"original/{a}"]) & set(part.galleries[f"original/{b}"]))
        for a, b in (("shirt", "toptee"), ("toptee", "shirt"))
        for part in (val, test)
    }
    assert shared == {("shirt", "val"): 392, ("shirt", "test"): 393, ("toptee", "val"): 419, ("toptee", "test"): 410}
    pairs = [{(q.reference, q.target) for q in everything.queries if q.category == c} for c in ("shirt", "toptee")]
    assert len(pairs[0] & pairs[1]) == 23
    modes = ("and", "both-orders", "each")
    number = {mode: sum(len(query_texts(q.texts, mode)) for q in val.queries) for mode in modes}
    assert number == {"and": 6016, "both-orders": 12032, "each": 12029}
    empty = {(part.split, c): sum(not t.strip() for q in part.queries if q.category == c for t in q.texts)
             for part in (everything, val, test) for c in fashion_iq.CATEGORIES}  # fmt: skip
    assert {key: n for key, n in empty.items() if n} == {
        ("train", "toptee"): 12, ("val", "toptee"): 2, ("val", "shirt"): 1, ("test", "shirt"): 1}  # fmt: skip
    repeats = [q for q in [*everything.queries, *val.queries] if q.texts[0] == q.texts[1]]
    assert len(repeats) == 129


def test_shoes_counts(data_root: Path) -> None:
    train, held = (shoes.annotations(data_root, split) for split in ("train", "test"))
    assert (len(train.images), len(held.images)) == (10000, 4658)
    assert not {r.id for r in train.images} & {r.id for r in held.images}
    assert (len(train.queries), len(held.queries)) == (8990 - 26, 1761)
    assert any("26 pairs whose target is their reference" in note for note in train.notes)
    assert sum(q.reference == q.target for q in held.queries) == 1
    assert len({q.target for q in held.queries}) == 1334
    assert (len(train.captions), len(held.captions)) == (3000, 600)
    assert not any("officially" in note or "each list" in note for note in [*train.notes, *held.notes])


def test_cirr_counts(data_root: Path) -> None:
    captions = data_root / "cirr" / "captions"
    if not (captions / "cap.rc2.val.json").is_file():
        pytest.skip(f"no CIRR annotations at {captions}")
    for split, name in (("train", "train"), ("val", "val"), ("test", "test1")):
        if not (captions / f"cap.rc2.{name}.json").is_file():  # the captions of train are a file of their own
            continue
        found = cirr.annotations(data_root, split)
        assert (len(found.queries), len(found.images)) == cirr.OFFICIAL[name]
    val = cirr.annotations(data_root, "val")
    assert len({i for q in val.queries for i in (q.reference, q.target)}) == 2265
    assert all({q.reference, q.target} <= set(q.members) and len(q.members) == 6 for q in val.queries)
    assert np.sum([len(q.extra["soft"]) > 1 for q in val.queries]) == 645
    assert sum(q.target not in q.extra["soft"] for q in val.queries) == 37
