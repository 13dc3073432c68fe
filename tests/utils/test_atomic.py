import os
import threading

import pytest

from xretrieve.errors import DiskError, XRetrieveError
from xretrieve.utils import atomic
from xretrieve.utils.files import atomic_folder, atomic_path, locked, recover_folder, write_text

DEAD = "999999999-{host}-0a1b2c"  # no process has this number


def left(folder, name, kind):
    """What a killed process leaves beside ``name``."""
    host = atomic.me().split("-")[1]
    path = folder / f".{name}.{DEAD.format(host=host)}.{kind}"
    path.mkdir()
    (path / "file").write_text(kind)
    return path


def listed(folder):
    return sorted(os.listdir(folder))


def test_a_link_stays_a_link_and_its_target_is_written(tmp_path):
    (tmp_path / "target").write_text("old")
    (tmp_path / "link").symlink_to("target")
    write_text(tmp_path / "link", "new")
    assert (tmp_path / "link").is_symlink() and (tmp_path / "target").read_text() == "new"
    (tmp_path / "real").mkdir()
    (tmp_path / "to").symlink_to("real")
    with atomic_folder(tmp_path / "to") as part:
        (part / "x").write_text("1")
    assert (tmp_path / "to").is_symlink() and listed(tmp_path / "real") == ["x"]
    assert listed(tmp_path) == ["link", "real", "target", "to"]


def test_a_pipe_is_written_to_and_stays_one(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    got = []
    reader = threading.Thread(target=lambda: got.append((tmp_path / "pipe").read_text()))
    reader.start()
    write_text(tmp_path / "pipe", "through")
    reader.join(10)
    assert got == ["through"] and (tmp_path / "pipe").is_fifo() and listed(tmp_path) == ["pipe"]


def test_a_full_device_is_one_sentence_and_stays_a_device():
    with pytest.raises(DiskError, match="cannot write /dev/full: No space left on device; make room"):
        write_text("/dev/full", "x")
    assert os.path.exists("/dev/full") and not os.path.isfile("/dev/full")


def test_a_file_keeps_its_mode_and_a_folder_is_not_written_over(tmp_path):
    write_text(tmp_path / "a", "1")
    (tmp_path / "a").chmod(0o640)
    write_text(tmp_path / "a", "2")
    assert (tmp_path / "a").stat().st_mode & 0o777 == 0o640
    with pytest.raises(DiskError, match="it is a folder"):
        write_text(tmp_path, "x")


def test_an_old_folder_alone_never_comes_back_in_place_of_a_deleted_one(tmp_path):
    left(tmp_path, "g.xr", "old")  # killed after the new one had taken its place; then the new one was deleted
    recover_folder(tmp_path / "g.xr")
    assert listed(tmp_path) == []


def test_an_old_folder_comes_back_where_the_new_one_had_not_taken_its_place(tmp_path):
    for kind in ("old", "part"):
        left(tmp_path, "g.xr", kind)
    left(tmp_path, "g.xr.2", "part")  # another target
    recover_folder(tmp_path / "g.xr")
    assert listed(tmp_path)[1:] == ["g.xr"] and (tmp_path / "g.xr" / "file").read_text() == "old"
    atomic.tidy_folder(tmp_path)
    assert listed(tmp_path) == ["g.xr"]


def test_what_a_living_process_is_writing_is_left_alone(tmp_path):
    host = atomic.me().split("-")[1]
    mine = tmp_path / f".a.json.{os.getppid()}-{host}-0a1b2c.part.json"
    mine.write_text("")
    dead = tmp_path / f".a.json.{DEAD.format(host=host)}.part.json"
    dead.write_text("")
    elsewhere = tmp_path / ".a.json.999999999-ffffff-0a1b2c.part.json"  # of another machine, just now
    elsewhere.write_text("")
    write_text(tmp_path / "a.json", "{}")
    assert listed(tmp_path) == sorted([mine.name, elsewhere.name, "a.json"])
    os.utime(elsewhere, (0, 0))
    write_text(tmp_path / "a.json", "{}")
    assert listed(tmp_path) == sorted([mine.name, "a.json"])


@pytest.mark.parametrize("said", ["262144 requested and 0 written", "I/O error: No space left on device (os error 28)"])
def test_what_libraries_say_of_a_full_disk_is_one_sentence_and_leaves_nothing(tmp_path, said):
    kind = OSError if "requested" in said else RuntimeError
    for make in (atomic_path, atomic_folder):
        with pytest.raises(DiskError, match=r"cannot write .*x: No space left on device"), make(tmp_path / "x"):
            raise kind(said)
    assert listed(tmp_path) == []


def test_a_file_that_cannot_be_read_meanwhile_keeps_its_own_error(tmp_path):
    with pytest.raises(FileNotFoundError, match="elsewhere"), atomic_folder(tmp_path / "x"):
        open(tmp_path / "elsewhere" / "y")
    with pytest.raises(ValueError), atomic_path(tmp_path / "x"):
        raise ValueError


def test_a_lock_keeps_others_out_and_leaves_nothing(tmp_path):
    inside = []

    def other():
        with locked(tmp_path / "x"):
            inside.append(2)

    with locked(tmp_path / "x"):
        thread = threading.Thread(target=other)
        thread.start()
        with pytest.raises(XRetrieveError, match="another program is writing .*x; wait"), locked(tmp_path / "x", False):
            pass
        inside.append(1)
    thread.join(10)
    assert inside == [1, 2] and listed(tmp_path) == []


def test_long_names_have_short_temporary_names(tmp_path):
    long = "ä" * 120 + ".json"
    write_text(tmp_path / long, "x")
    with locked(tmp_path / long):
        pass
    assert listed(tmp_path) == [long]
