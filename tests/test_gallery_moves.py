"""Folders as they change: renamed, swapped, copied, edited, unplugged. What derives from a path is derived again."""

from __future__ import annotations

import os
import shutil

import pytest

from tests.gallery_fakes import COLOURS, FakeMatcher, paint
from xretrieve.errors import XRetrieveError
from xretrieve.gallery import Gallery


@pytest.fixture
def photos(tmp_path):
    for name, colour in list(COLOURS.items())[:3]:
        paint(tmp_path / "photos" / "2019" / f"{name}.png", colour)
    return tmp_path / "photos"


@pytest.fixture
def gallery(photos, tmp_path):
    return Gallery.build(FakeMatcher(), photos, tmp_path / "g.xr")


def right(gallery):
    """Every id is the path of its file below the folder, in memory and on disk; ids by colour."""
    again = Gallery.open(gallery.path, FakeMatcher())
    assert sorted(again.ids) == sorted(gallery.ids) and gallery.ids == again.ids
    for id_, metadata in zip(again.ids, again.metadata, strict=True):
        path = again.picture(id_)
        assert path.is_file() and str(path).endswith("/" + id_) and metadata["folder"] == (os.path.dirname(id_) or ".")
        assert all(os.path.isfile(other) for other in metadata.get("paths", []))
    return {colour: again.search(colour, 1).ids[0] for colour in ("red", "green", "blue")}


def test_a_renamed_folder_is_named_anew_and_the_old_name_is_free(gallery, photos):
    (photos / "2019").rename(photos / "holiday")
    gallery.matcher.encoded.clear()
    changes = gallery.add(photos)
    assert sorted(changes.moved) == ["holiday/blue.png", "holiday/green.png", "holiday/red.png"] and not changes.added
    assert right(gallery)["red"] == "holiday/red.png" and not gallery.matcher.encoded
    assert len(gallery.search("red", 9, where={"folder": "holiday"})) == 3
    paint(photos / "2019" / "red.png", COLOURS["yellow"])
    assert gallery.add(photos).added == ["2019/red.png"]
    assert right(gallery)["red"] == "holiday/red.png" and gallery.search("yellow", 1).ids == ["2019/red.png"]


def test_a_picture_is_named_anew_beside_one_that_cannot_be_read(gallery, photos):
    (photos / "2019" / "red.png").rename(photos / "2019" / "rose.png")
    (photos / "2019" / "cut.png").write_bytes(b"no picture")
    changes = gallery.add(photos)
    assert changes.moved == ["2019/rose.png"] and not changes.added and len(changes.failed) == 1
    assert right(gallery)["red"] == "2019/rose.png"


def test_two_files_that_swap_their_names_swap_their_ids(gallery, photos):
    one, two, aside = photos / "2019" / "red.png", photos / "2019" / "blue.png", photos / "x"
    one.rename(aside), two.rename(one), aside.rename(two)  # noqa: B018
    os.utime(one, ns=(1, 1)), os.utime(two, ns=(2, 2))  # noqa: B018
    gallery.matcher.encoded.clear()
    gallery.add(photos)
    assert right(gallery) == {"red": "2019/blue.png", "green": "2019/green.png", "blue": "2019/red.png"}
    assert not gallery.matcher.encoded


def test_a_file_moved_over_another_takes_its_id_and_that_one_is_gone(gallery, photos):
    (photos / "2019" / "red.png").replace(photos / "2019" / "blue.png")
    os.utime(photos / "2019" / "blue.png", ns=(1, 1))
    changes = gallery.add(photos)
    assert changes.replaced == ["2019/blue.png"] and sorted(gallery.ids) == ["2019/blue.png", "2019/green.png"]
    assert right(gallery)["red"] == "2019/blue.png"


def test_a_copy_outlives_its_original_and_an_edited_copy_leaves_no_ghost(gallery, photos):
    red, copy = photos / "2019" / "red.png", photos / "b" / "copy.png"
    copy.parent.mkdir()
    shutil.copy(red, copy)
    gallery.add(photos)
    assert gallery.metadata[gallery.ids.index("2019/red.png")]["paths"] == [str(red), str(copy)]
    red.unlink()
    gallery.add(photos)
    assert right(gallery)["red"] == "b/copy.png" and all("paths" not in known for known in gallery.metadata)
    shutil.copy(copy, red)
    gallery.add(photos)
    paint(red, COLOURS["yellow"], (9, 9))  # the copy is edited, then the other one deleted
    gallery.add(photos)
    assert right(gallery)["red"] == "b/copy.png" and gallery.search("yellow", 1).ids == ["2019/red.png"]
    copy.unlink()
    changes = gallery.add(photos)
    assert changes.gone == ["b/copy.png"] == gallery.gone
    gallery.remove(changes.gone)
    assert "b/copy.png" not in gallery.ids and len(gallery) == 3


def test_an_edited_original_leaves_its_content_to_the_copy(gallery, photos):
    red, copy = photos / "2019" / "red.png", photos / "copy.png"
    shutil.copy(red, copy)
    gallery.add(photos)
    paint(red, COLOURS["yellow"], (9, 9))
    changes = gallery.add(photos)
    assert changes.added == ["2019/red.png"] and changes.moved == ["copy.png"]
    assert right(gallery)["red"] == "copy.png" and gallery.search("yellow", 1).ids == ["2019/red.png"]


@pytest.mark.parametrize("how", ["empty", "missing"])
def test_a_folder_that_is_not_mounted_keeps_its_pictures(gallery, photos, tmp_path, how):
    usb = tmp_path / "usb"
    paint(usb / "y.png", COLOURS["yellow"])
    gallery.add(usb)
    usb.rename(tmp_path / "away")
    if how == "empty":
        usb.mkdir()
    (photos / "2019" / "red.png").unlink()
    changes = gallery.add(photos)
    assert changes.gone == gallery.gone == ["2019/red.png"] and gallery.away == ["y.png"]
    with pytest.raises(XRetrieveError, match="is empty, but 1 pictures of it|no folder"):
        gallery.add(usb)
    assert "y.png" in gallery.ids


def test_what_is_gone_in_another_folder_is_not_gone_of_this_one(gallery, photos, tmp_path):
    usb = tmp_path / "usb"
    paint(usb / "y.png", COLOURS["yellow"])
    paint(usb / "w.png", COLOURS["white"])
    gallery.add(usb)
    (usb / "y.png").unlink()
    assert gallery.add(photos).gone == [] and gallery.gone == ["y.png"] and gallery.add(usb).gone == ["y.png"]


def test_patterns_are_kept_and_what_they_leave_out_now_is_told(photos, tmp_path):
    paint(photos / "private" / "x.png", (9, 9, 9))
    gallery = Gallery.build(FakeMatcher(), photos, tmp_path / "g.xr", exclude=["private"])
    assert len(gallery) == 3 and [(e["reason"], e["count"]) for e in gallery.left_out] == [("excluded", 1)]
    assert Gallery.open(gallery.path, FakeMatcher()).add(photos).added == []
    assert gallery.add(photos, exclude=[]).added == ["private/x.png"] and gallery.left_out == []
    changes = gallery.add(photos, include=["*red*"])
    assert sorted(changes.excluded) == ["2019/blue.png", "2019/green.png", "private/x.png"] and len(gallery) == 4
    assert gallery.info["patterns"] == {"include": ["*red*"], "exclude": []}


def test_a_damaged_gallery_of_an_older_version_is_named_right_again(gallery, photos):
    """Older versions kept id and folder of a picture that was moved."""
    old = gallery._store.items[gallery._store.rows["2019/red.png"]]
    (photos / "holiday").mkdir()
    (photos / "2019" / "red.png").rename(photos / "holiday" / "red.png")
    old.path = str(photos / "holiday" / "red.png")
    gallery.add(photos)
    assert right(gallery)["red"] == "holiday/red.png"
