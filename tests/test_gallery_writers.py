"""Several programs and one gallery: what is added stays, readers follow, what was damaged is said."""

import json
import multiprocessing
import shutil

import numpy as np
import pytest

from tests.gallery_fakes import COLOURS, FakeMatcher, paint
from xretrieve.errors import XRetrieveError
from xretrieve.gallery import Gallery
from xretrieve.utils.checksums import DamagedError
from xretrieve.utils.files import locked

INDEXES = ["flat", "hnsw"]


@pytest.fixture
def photos(tmp_path):
    for name, colour in COLOURS.items():
        paint(tmp_path / "photos" / f"{name}.png", colour)
    return tmp_path / "photos"


@pytest.fixture(params=INDEXES)
def gallery(request, photos, tmp_path):
    if request.param != "flat":
        pytest.importorskip("faiss")
    return Gallery.build(FakeMatcher(), photos, tmp_path / "g.xr", index=request.param)


def add(path, file, together):
    gallery = Gallery.open(path, FakeMatcher())
    together.wait(60)
    gallery.add([file])


def test_of_adds_at_once_none_is_lost(photos, tmp_path):
    more = [paint(tmp_path / "more" / f"{i}.png", (40 * i, 250 - 40 * i, 10)) for i in range(4)]
    path = Gallery.build(FakeMatcher(), photos, tmp_path / "g.xr").path
    fork = multiprocessing.get_context("fork")
    for _ in range(3):
        together = fork.Barrier(len(more))
        running = [fork.Process(target=add, args=(path, file, together)) for file in more]
        for one in running:
            one.start()
        for one in running:
            one.join(60)
        found = Gallery.open(path)
        assert {f"{i}.png" for i in range(4)} <= set(found.ids) and [one.exitcode for one in running] == [0] * 4
        found.remove([f"{i}.png" for i in range(4)])


def test_of_two_builds_to_one_place_one_is_refused(photos, tmp_path):
    class Slow(FakeMatcher):
        def encode_images(self, *args, **options):
            if not (tmp_path / "g.xr").exists():  # another program is quicker
                Gallery.build(FakeMatcher(), photos, tmp_path / "g.xr")
            return super().encode_images(*args, **options)

    with pytest.raises(XRetrieveError, match="g.xr exists; add to it"):
        Gallery.build(Slow(), [photos / "red.png"], tmp_path / "g.xr")
    assert len(Gallery.open(tmp_path / "g.xr")) == len(COLOURS)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["g.xr", "photos"]


def test_a_reader_sees_what_another_program_does(gallery, photos, tmp_path):
    reader, held = Gallery.open(gallery.path, FakeMatcher()), Gallery.open(gallery.path, FakeMatcher())
    assert reader.search("red", 1).ids == ["red.png"]
    paint(photos / "ruby.png", (250, 4, 4))
    gallery.add(photos)
    assert not reader.current and reader.search("red", 2).ids == ["red.png", "ruby.png"] and reader.current
    gallery.remove("red.png")
    gallery.save()
    assert reader.search("red", 1).ids == ["ruby.png"] and reader.search("green", 1).ids == ["green.png"]
    Gallery.build(FakeMatcher(), [photos / "blue.png"], gallery.path, index=gallery.info["index"]["name"],
                  overwrite=True)  # fmt: skip
    assert reader.search("red", 5).ids == ["blue.png"] and held.search("red", 5).ids == ["blue.png"]


def test_a_reader_that_never_searched_finds_the_index_that_is_there_now(gallery, photos):
    reader = Gallery.open(gallery.path, FakeMatcher())  # an approximate index is loaded by the first search
    paint(photos / "ruby.png", (250, 4, 4))
    gallery.add(photos)
    assert reader.search("red", 2).ids == ["red.png", "ruby.png"]


def test_a_change_between_the_check_and_the_search_is_no_error(gallery, photos, monkeypatch):
    reader = Gallery.open(gallery.path, FakeMatcher())
    paint(photos / "ruby.png", (250, 4, 4))
    checked = reader.refresh
    calls = []

    def refresh():
        done = checked()
        if not calls:
            calls.append(gallery.add(photos))
        return done

    monkeypatch.setattr(reader, "refresh", refresh)
    assert "red.png" in reader.search("red", 2).ids


def test_a_reader_answers_on_where_the_new_state_cannot_be_read(gallery):
    reader = Gallery.open(gallery.path, FakeMatcher())
    (gallery.path / "gallery.json").write_text("{")
    assert reader.search("red", 1).ids == ["red.png"] and "not valid JSON" in reader.problem and not reader.current
    shutil.rmtree(gallery.path)
    assert reader.search("green", 1).ids == ["green.png"] and "is not a gallery" in reader.problem


def test_a_reader_takes_another_matcher_only_where_it_can_be_loaded(gallery, photos):
    reader = Gallery.open(gallery.path, FakeMatcher())
    Gallery.build(FakeMatcher(fingerprint="beef"), photos, gallery.path, overwrite=True)
    assert reader.search("red", 1).ids == ["red.png"] and "pass matcher=" in reader.problem


def test_an_addition_waits_for_another_program(gallery, photos, monkeypatch):
    monkeypatch.setattr("xretrieve.utils.locks.PATIENCE", 0.05)
    fork = multiprocessing.get_context("fork")
    with locked(gallery.path):
        other = fork.Process(target=Gallery.open(gallery.path, FakeMatcher()).remove, args=("red.png",))
        other.start()
        other.join(0.3)
        assert other.exitcode is None and "red.png" in Gallery.open(gallery.path)
    other.join(60)
    assert other.exitcode == 0 and "red.png" not in Gallery.open(gallery.path)


def test_a_flipped_bit_in_any_file_is_said_when_the_gallery_is_opened(gallery):
    for path in sorted(p for p in gallery.path.rglob("*") if p.is_file()):
        whole = path.read_bytes()
        for at in np.linspace(0, len(whole) - 1, 7).astype(int):
            path.write_bytes(whole[:at] + bytes([whole[at] ^ 16]) + whole[at + 1 :])
            reader = None
            with pytest.raises(XRetrieveError):
                reader = Gallery.open(gallery.path, FakeMatcher())
                reader.search("red", 1)
                assert "checksum" not in json.loads((gallery.path / "gallery.json").read_text())  # its own name
                raise XRetrieveError("without it nothing is checked, and nothing else was changed")
        path.write_bytes(whole[: len(whole) // 2])
        with pytest.raises(XRetrieveError):
            Gallery.open(gallery.path, FakeMatcher()).search("red", 1)
        path.write_bytes(whole)
    assert Gallery.open(gallery.path, FakeMatcher()).search("red", 1).ids == ["red.png"]


def test_what_was_damaged_gets_no_new_checksum_when_parts_are_merged(photos, tmp_path):
    gallery = Gallery.build(FakeMatcher(), photos, tmp_path / "g.xr")
    path = next(gallery.path.glob("parts/*/vectors.npy"))
    data = bytearray(path.read_bytes())
    data[-2] ^= 1
    path.write_bytes(data)
    with pytest.raises(DamagedError, match="vectors.npy is damaged"):
        gallery.save()


def test_parts_that_a_killed_program_left_go_with_the_next_reader(gallery):
    for left in ("parts/0001-abcdef", "index-abcdef"):
        (gallery.path / left).mkdir()
    with locked(gallery.path):  # another program may be about to name them
        Gallery.open(gallery.path)
        assert (gallery.path / "index-abcdef").is_dir()
    Gallery.open(gallery.path)
    assert not (gallery.path / "parts/0001-abcdef").exists() and not (gallery.path / "index-abcdef").exists()


def test_galleries_without_checksums_are_read_and_written(photos, tmp_path):
    gallery = Gallery.build(FakeMatcher(), photos, tmp_path / "g.xr")
    for path in gallery.path.rglob("checksums.json"):
        path.unlink()
    info = {**gallery.info, "parts": [{k: v for k, v in part.items() if k != "sum"} for part in gallery.info["parts"]]}
    (gallery.path / "gallery.json").write_text(json.dumps(info))
    old = Gallery.open(gallery.path, FakeMatcher())
    old.remove("red.png")
    old.save()
    assert len(Gallery.open(gallery.path)) == len(COLOURS) - 1 and list(gallery.path.rglob("checksums.json"))
