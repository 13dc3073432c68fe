import json
import shutil

import numpy as np
import pytest
from PIL import Image as PILImage

import xretrieve as xr
from tests.gallery_fakes import COLOURS, FakeMatcher, paint
from xretrieve.data.base import FeatureRow, RetrievalDataset
from xretrieve.errors import XRetrieveError
from xretrieve.gallery import Gallery
from xretrieve.gallery.store import MAX_PARTS


@pytest.fixture
def photos(tmp_path):
    root = tmp_path / "photos"
    for name, colour in COLOURS.items():
        paint(root / f"{name}.png", colour)
    paint(root / "деревня" / "赤い.JPG", (200, 30, 30))
    paint(root / ".hidden" / "x.png", "black")
    paint(root / ".x.png", "black")
    (root / "notes.txt").write_text("no picture")
    return root


@pytest.fixture
def gallery(photos, tmp_path):
    return Gallery.build(FakeMatcher(), photos, tmp_path / "photos.xr")


def files_of(folder):
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def test_a_folder_is_indexed_under_its_relative_names_and_searched(gallery, photos):
    assert gallery.ids == sorted(["red.png", "green.png", "blue.png", "white.png", "yellow.png", "деревня/赤い.JPG"])
    ranking = gallery.search(xr.Text("a red thing"), k=2)
    assert ranking.ids == ["red.png", "деревня/赤い.JPG"]
    assert [h.rank for h in ranking] == [1, 2] and ranking[0].score == pytest.approx(1.0) and ranking.note == ""
    assert ranking[0].path == photos / "red.png" and "деревня/赤い.JPG" in gallery
    assert gallery.search("red", k=1).ids == ["red.png"]


def test_all_four_kinds_of_query(gallery, photos):
    assert gallery.search(xr.MultiText(["red", "green"]), 1).ids == ["yellow.png"]
    assert gallery.search(xr.Image(photos / "blue.png"), 1).ids == ["blue.png"]
    assert gallery.search(xr.Image(PILImage.new("RGB", (4, 4), "blue")), 1).ids == ["blue.png"]
    ranking = gallery.search(xr.ImageText(photos / "red.png", "green"), 3)
    assert ranking.ids[0] == "yellow.png" and "red.png" not in ranking.ids and "red.png" in ranking.note
    assert "red.png" in gallery.search(xr.ImageText(photos / "red.png", "green"), 9, drop_reference=False).ids
    assert "blue.png" not in gallery.search(xr.Image(photos / "blue.png"), 9, drop_reference=True).ids


def test_opened_again_it_gives_the_same_answer(gallery):
    again = Gallery.open(gallery.path, FakeMatcher())
    assert again.search("yellow", 6).to_json() == gallery.search("yellow", 6).to_json()
    assert again.metadata == gallery.metadata and again.info["count"] == 6


def test_k_beyond_the_gallery_gives_everything_and_says_so(gallery):
    ranking = gallery.search("red", k=100)
    assert len(ranking) == 6 and "all 6 shown: fewer than the 100 asked for" in ranking.note


def test_where_by_equality_and_by_any_of(gallery):
    assert gallery.search("red", where={"folder": "деревня"}).ids == ["деревня/赤い.JPG"]
    assert len(gallery.search("red", 6, where={"folder": [".", "деревня"]})) == 6
    nothing = gallery.search("red", where={"folder": "Moscow"})
    assert len(nothing) == 0 and "nothing in the gallery matches" in nothing.note


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda g: g.search("red", where={"foldr": "x"}), "unknown metadata key 'foldr'; did you mean 'folder'"),
        (lambda g: g.search("red", where="folder=x"), "expected a dict"),
        (lambda g: g.search("  "), "text query is empty"),
        (lambda g: g.search(42), "not a query: 42"),
        (lambda g: g.search("red", k=0), "k is 0"),
        (lambda g: g.search("red", k=2.5), "k is 2.5"),
        (lambda g: g.remove(["red.png", "gren.png"]), "no id 'gren.png'; did you mean 'green.png'"),
        (lambda g: g.add([g.path / "nowhere.png"]), "no picture at .*nowhere.png"),
        (lambda g: g.add([]), "empty"),
        (lambda g: g.add(g.path / "none"), "no folder"),
        (lambda g: g.add(g.path), "holds no pictures"),
    ],
)
def test_bad_calls_name_what_is_wrong_and_change_nothing(gallery, call, message):
    before = files_of(gallery.path)
    with pytest.raises(XRetrieveError, match=message):
        call(gallery)
    assert files_of(gallery.path) == before and len(gallery) == 6


def test_unreadable_pictures_are_reported_and_the_rest_is_indexed(photos, tmp_path):
    whole = paint(tmp_path / "noise.jpg", "red", (200, 200)).read_bytes()
    (photos / "cut.jpg").write_bytes(whole[: len(whole) // 2])
    (photos / "zero.jpg").write_bytes(b"")
    (photos / "text.png").write_text("hello")
    gallery = Gallery.build(FakeMatcher(), photos, tmp_path / "g.xr", batch_size=2)
    assert len(gallery) == 6
    reasons = {entry["path"].rsplit("/", 1)[1]: entry["reason"] for entry in Gallery.open(gallery.path).failed}
    assert set(reasons) == {"cut.jpg", "zero.jpg", "text.png"}
    assert (
        reasons["zero.jpg"] == "zero bytes"
        and "broken" in reasons["cut.jpg"]
        and "not a picture" in reasons["text.png"]
    )
    paint(photos / "cut.jpg", (0, 90, 90))  # repaired: picked up by the next add, and no longer listed
    assert gallery.add(photos).added == ["cut.jpg"] and {e["path"].rsplit("/", 1)[1] for e in gallery.failed} == {
        "zero.jpg",
        "text.png",
    }


def test_a_picture_that_only_the_encoder_refuses_is_set_aside(photos, tmp_path):
    class Picky(FakeMatcher):
        def encode_images(self, items, **options):
            if any(str(item).endswith("green.png") for item in items):
                raise XRetrieveError("too green")
            return super().encode_images(items, **options)

    gallery = Gallery.build(Picky(), photos, tmp_path / "g.xr")
    assert len(gallery) == 5 and gallery.failed == [{"path": str(photos / "green.png"), "reason": "too green"}]


def test_nothing_readable_is_an_error_and_leaves_nothing(tmp_path):
    (tmp_path / "p").mkdir()
    (tmp_path / "p" / "a.jpg").write_bytes(b"")
    with pytest.raises(XRetrieveError, match="none of the 1 pictures.*a.jpg: zero bytes"):
        Gallery.build(FakeMatcher(), tmp_path / "p", tmp_path / "g.xr")
    assert [p.name for p in tmp_path.iterdir()] == ["p"]


def test_equal_files_are_indexed_once_with_all_their_paths(photos, tmp_path):
    shutil.copy(photos / "red.png", photos / "a copy.png")
    gallery = Gallery.build(FakeMatcher(), photos, tmp_path / "g.xr")
    assert len(gallery) == 6 and "a copy.png" in gallery and "red.png" not in gallery
    assert gallery.metadata[0]["paths"] == [str(photos / "a copy.png"), str(photos / "red.png")]
    shutil.copy(photos / "red.png", photos / "z.png")
    changes = gallery.add(photos)
    assert (changes.added, changes.duplicates, changes.unchanged) == ([], 1, 7)
    assert Gallery.open(gallery.path).metadata[0]["paths"][-1] == str(photos / "z.png")
    assert gallery.add(photos).duplicates == 0


def test_adding_encodes_only_what_is_new_or_changed(gallery, photos):
    matcher = gallery.matcher
    matcher.encoded.clear()
    part = gallery.path / "parts" / gallery.info["parts"][0]["name"] / "vectors.npy"
    before = part.stat().st_mtime_ns
    paint(photos / "more" / "cyan.png", (0, 255, 255))
    paint(photos / "blue.png", (0, 0, 130), (20, 20))
    changes = gallery.add(photos)
    assert sorted(p.name for p in matcher.encoded) == ["blue.png", "cyan.png"]
    assert (changes.added, changes.replaced, changes.unchanged) == (["more/cyan.png"], ["blue.png"], 5)
    assert len(gallery) == 7 and part.stat().st_mtime_ns == before
    again = Gallery.open(gallery.path, FakeMatcher())
    assert again.search("blue green", 1).ids == ["more/cyan.png"] and again.search("blue", 1).ids == ["blue.png"]
    paint(photos / "more" / "late.png", (9, 9, 9))
    assert gallery.add([photos / "more" / "late.png"]).added == ["more/late.png"], (
        "ids stay relative to the indexed folder"
    )


def test_a_changed_file_that_became_unreadable_keeps_its_old_row(gallery, photos):
    (photos / "red.png").write_bytes(b"broken")
    changes = gallery.add(photos)
    assert changes.replaced == [] and len(changes.failed) == 1 and gallery.search("red", 1).ids == ["red.png"]


def test_a_moved_folder_is_recognised_by_content(gallery, photos, tmp_path):
    gallery.matcher.encoded.clear()
    moved = photos.rename(tmp_path / "moved")
    changes = gallery.add(moved)
    assert changes.added == [] and not gallery.matcher.encoded
    assert gallery.search("red", 1)[0].path == moved / "red.png"
    assert Gallery.open(gallery.path, FakeMatcher()).search("red", 1)[0].path == moved / "red.png"


def test_removed_pictures_are_never_found_again(gallery):
    gallery.remove(["red.png"])
    gallery.remove("blue.png")
    for one in (gallery, Gallery.open(gallery.path, FakeMatcher())):
        assert (
            len(one) == 4
            and one.search("red", 9).ids[0] == "деревня/赤い.JPG"
            and "blue.png" not in one.search("blue", 9).ids
        )
    gallery.save()
    assert len(list((gallery.path / "parts").iterdir())) == 1 and gallery.info["removed"] == []
    assert Gallery.open(gallery.path, FakeMatcher()).search("green", 1).ids == ["green.png"]
    gallery.remove(gallery.ids)
    with pytest.raises(XRetrieveError, match="is empty"):
        gallery.search("red")


def test_many_small_additions_are_merged(gallery, photos):
    for i in range(MAX_PARTS + 3):
        gallery.add([paint(photos / f"{i}.png", (i, 100, 2 * i))])
    assert len(gallery.info["parts"]) < 8 and len(gallery) == 6 + MAX_PARTS + 3
    assert len(list((gallery.path / "parts").iterdir())) == len(gallery.info["parts"])
    assert gallery.search("red", 1).ids == ["red.png"]


def test_a_killed_build_leaves_nothing_and_a_killed_rebuild_the_old_gallery(gallery, photos, tmp_path):
    before, matcher = files_of(gallery.path), FakeMatcher()
    matcher.stop_after = 3
    for out in (tmp_path / "new.xr", gallery.path):
        with pytest.raises(KeyboardInterrupt):
            Gallery.build(matcher, photos, out, overwrite=True, batch_size=1)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["photos", "photos.xr"] and files_of(gallery.path) == before


@pytest.mark.parametrize("step", ["_write_part", "_commit"])
def test_a_killed_addition_has_not_happened(gallery, photos, step, monkeypatch):
    from xretrieve.gallery.store import Store

    def killed(*args, **options):
        raise KeyboardInterrupt

    paint(photos / "cyan.png", (0, 255, 255))
    with monkeypatch.context() as patch:
        patch.setattr(Store, step, killed)
        with pytest.raises(KeyboardInterrupt):
            gallery.add(photos)
    again = Gallery.open(gallery.path, FakeMatcher())
    assert len(again) == len(gallery) == 6
    assert again.add(photos).added == ["cyan.png"] and again.search("blue green", 1).ids == ["cyan.png"]
    again.save()
    assert len(list((again.path / "parts").iterdir())) == 1, "what the killed run left is gone"


def test_two_writers_do_not_overwrite_each_other(gallery):
    other = Gallery.open(gallery.path, FakeMatcher())
    gallery.remove("red.png")
    other.remove("blue.png")
    gallery.remove("white.png")
    assert {"red.png", "blue.png", "white.png"}.isdisjoint(Gallery.open(gallery.path).ids)
    with pytest.raises(XRetrieveError, match="no id 'white.png'"):
        other.remove("white.png")


def test_another_matcher_is_refused_and_both_are_named(gallery):
    with pytest.raises(XRetrieveError, match="matcher f00d .*not by beef"):
        Gallery.open(gallery.path, FakeMatcher(fingerprint="beef"))


def test_a_matcher_that_cannot_be_found_asks_for_one(gallery, photos, tmp_path):
    with pytest.raises(XRetrieveError, match="never saved; pass matcher="):
        Gallery.open(gallery.path).search("red")
    gone = Gallery.build(FakeMatcher(source=str(tmp_path / "runs" / "x")), photos, tmp_path / "g.xr")
    with pytest.raises(XRetrieveError, match="runs/x, which cannot be loaded.*pass matcher="):
        Gallery.open(gone.path).search("red")


def test_a_place_that_cannot_be_written_is_said_before_anything_is_encoded(photos, tmp_path):
    (tmp_path / "file").write_text("not a folder")
    matcher = FakeMatcher()
    matcher.encode_images = lambda *args, **options: pytest.fail("encoded before the place was checked")
    with pytest.raises(XRetrieveError, match="file is not a folder that you may write to"):
        Gallery.build(matcher, photos, tmp_path / "file" / "mine.xr")


def test_building_over_something_else_is_refused(gallery, photos, tmp_path):
    with pytest.raises(XRetrieveError, match="exists; add to it.*overwrite"):
        Gallery.build(FakeMatcher(), photos, gallery.path)
    with pytest.raises(XRetrieveError, match="is not a gallery; choose another"):
        Gallery.build(FakeMatcher(), photos, photos, overwrite=True)
    assert (photos / "red.png").exists()
    matcher = FakeMatcher()
    with pytest.raises(XRetrieveError, match="did you mean 'flat'"):
        Gallery.build(matcher, photos, tmp_path / "g.xr", index="falt")
    with pytest.raises(XRetrieveError, match="unknown option"):
        Gallery.build(matcher, photos, tmp_path / "g.xr", index="flat", m=3)
    assert not matcher.encoded, "said before any picture is encoded"


def test_what_is_not_a_gallery_or_is_damaged_says_so(gallery, tmp_path):
    with pytest.raises(XRetrieveError, match="is not a gallery"):
        Gallery.open(tmp_path)
    part = gallery.path / "parts" / gallery.info["parts"][0]["name"]
    np.save(part / "vectors.npy", np.zeros((3, 3), np.float32))
    with pytest.raises(XRetrieveError, match="damaged"):
        Gallery.open(gallery.path)
    (gallery.path / "gallery.json").write_text(json.dumps({"format": 99}))
    with pytest.raises(XRetrieveError, match="format 1"):
        Gallery.open(gallery.path)


def dataset_of(root, count, split="test"):
    rng = np.random.default_rng(count)
    ids = [f"{split}-{i}" for i in range(count)]
    paths = [paint(root / f"{i}.png", tuple(int(x) for x in rng.integers(0, 256, 3))) for i in ids]
    return RetrievalDataset(
        "toy", split, ids, paths, ["red", "blue"], ["c0", "c1"], np.array([0, 1]), count, "karpathy"
    )


def test_a_dataset_keeps_its_ids_copies_and_split(tmp_path):
    test, train = dataset_of(tmp_path / "d", 5), dataset_of(tmp_path / "d", 4, "train")
    shutil.copy(test.images[0], test.images[1])
    gallery = Gallery.build(FakeMatcher(), test, tmp_path / "g.xr")
    gallery.add(train)
    assert gallery.ids == test.image_ids + train.image_ids
    assert set(gallery.search("red", 9, where={"split": "train"}).ids) == set(train.image_ids)
    assert len(gallery.search("red", 9, where={"split": ["train", "test"], "dataset": "toy"})) == 9
    assert gallery.add(train).unchanged == 4


def test_precomputed_features_have_no_picture(tmp_path):
    class Rows(FakeMatcher):
        def encode_images(self, items, **options):
            from tests.gallery_fakes import _prepared

            return _prepared([np.eye(3)[item.row] for item in items])

    data = RetrievalDataset(
        "toy",
        "test",
        ["0", "1"],
        [FeatureRow(tmp_path / "x.npy", i) for i in range(2)],
        [],
        [],
        np.array([]),
        2,
        "precomp",
    )
    gallery = Gallery.build(Rows(), data, tmp_path / "g.xr")
    assert gallery.search("green", 1).ids == ["1"] and gallery.search("green", 1)[0].path is None


@pytest.mark.parametrize("index", ["faiss-flat", "hnsw", "ivfpq"])
def test_approximate_indexes_follow_adding_removing_and_reopening(index, tmp_path):
    pytest.importorskip("faiss")
    options = {"pq": 1, "nlist": 4, "nprobe": 4} if index == "ivfpq" else {}
    data = dataset_of(tmp_path / "d", 300)
    gallery = Gallery.build(FakeMatcher(), data, tmp_path / "g.xr", index=index, **options)
    recall = gallery.info["index"]["recall"]
    assert (
        recall["kind"] == "captions"
        and recall["queries"] == 2
        and recall["value"] >= (0.1 if index == "ivfpq" else 0.95)
    )
    paint(tmp_path / "p" / "pure.png", (0, 0, 255))
    gallery.add(tmp_path / "p")
    gallery.remove(data.image_ids[:50])
    again = Gallery.open(gallery.path, FakeMatcher())
    for one in (gallery, again):
        found = one.search("blue", 300).ids
        assert "pure.png" in found and not set(found) & set(data.image_ids[:50]) and len(found) == 251
    again.remove(data.image_ids[50:150])  # over a third is gone: merged and built anew
    assert again.info["removed"] == [] and len(again) == 151
    if index == "ivfpq":
        assert again.search("blue", 1).ids == ["pure.png"], "too few to train: exact search does it"
    else:
        assert len(list(again.path.glob("index-*"))) == 1
    again = Gallery.open(gallery.path, FakeMatcher())
    assert len(again.search("red", 151, where={"split": "test"})) == 150


def test_ivfpq_on_a_few_pictures_is_an_error(photos, tmp_path):
    pytest.importorskip("faiss")
    with pytest.raises(XRetrieveError, match="needs 256 pictures.*there are 6"):
        Gallery.build(FakeMatcher(), photos, tmp_path / "g.xr", index="ivfpq")
