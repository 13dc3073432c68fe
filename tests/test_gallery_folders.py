"""Folders as people keep them: every format, every script, files that change or vanish, builds that are killed."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as PILImage

from tests.gallery_fakes import COLOURS, FakeMatcher, noise_photos, paint
from xretrieve.data.folder import picture_suffixes, scan_folder
from xretrieve.errors import XRetrieveError
from xretrieve.gallery import Gallery
from xretrieve.utils import atomic

RED, BLUE = COLOURS["red"], COLOURS["blue"]


def build(folder, tmp_path, **options):
    return Gallery.build(FakeMatcher(), folder, tmp_path / "g.xr", **options)


def test_every_kind_of_picture_is_indexed_as_it_looks(tmp_path):
    """Each shows blue; one red picture beside them must be further from "blue" than all of them."""
    folder = tmp_path / "photos"
    paint(folder / "plain.jpg", BLUE)
    paint(folder / "upper.JPEG", BLUE, (17, 12))
    paint(folder / "web.webp", BLUE)
    paint(folder / "deep" / "er" / "bitmap.bmp", BLUE)
    PILImage.new("CMYK", (9, 9), (255, 255, 0, 0)).save(folder / "print.jpg")
    PILImage.new("RGB", (9, 9), BLUE).quantize(4).save(folder / "palette.png")
    PILImage.new("RGBA", (9, 9), (*BLUE, 255)).save(folder / "clear.png")
    PILImage.new("RGB", (9, 9), BLUE).save(folder / "scan.tif", compression="tiff_lzw")
    frames = [PILImage.new("RGB", (9, 9), colour) for colour in (BLUE, RED, RED)]
    frames[0].save(folder / "moving.gif", save_all=True, append_images=frames[1:])
    frames[0].save(folder / "moving.webp", save_all=True, append_images=frames[1:], lossless=True)
    if ".avif" in picture_suffixes():
        PILImage.new("RGB", (32, 32), BLUE).save(folder / "new.avif")
    paint(folder / "other.png", RED)
    gallery = build(folder, tmp_path)
    assert gallery.failed == [] and sorted(gallery.ids) == sorted(
        path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()
    )
    ranking = gallery.search("blue", k=99)
    assert ranking.ids[-1] == "other.png" and ranking.scores[-2] > 0.95


def test_sixteen_bit_greys_are_neither_black_nor_white(tmp_path):
    folder = tmp_path / "photos"
    folder.mkdir()
    ramp = np.linspace(0, 65535, 400).reshape(20, 20).astype(np.uint16)
    PILImage.fromarray(ramp).save(folder / "deep.png")
    paint(folder / "red.png", RED)
    assert build(folder, tmp_path).search("white", 1).ids == ["deep.png"]


def test_heic_is_read_where_it_can_be(tmp_path):
    heif = pytest.importorskip("pillow_heif")
    folder = tmp_path / "photos"
    folder.mkdir()
    heif.from_pillow(PILImage.new("RGB", (64, 64), BLUE)).save(folder / "phone.HEIC")
    paint(folder / "red.png", RED)
    assert build(folder, tmp_path).search("blue", 1).ids == ["phone.HEIC"]


NAMES = ["деревня/зима.jpg", "雪の中の犬.png", "مرحبا.webp", "été à la plage 🏖.jpg", "नमस्ते.png",
         "100% #1?.jpg", "a 'quoted' \"name\".png", "two\nlines.png", "-dash.jpg", "e\u0301.png",
         "\u00e9.png"]  # fmt: skip


def test_names_in_any_script_are_kept_found_and_opened_again(tmp_path):
    folder = tmp_path / "мои фото"
    for i, name in enumerate(NAMES):
        paint(folder / name, (20 * i, 255 - 20 * i, 7 * i))
    gallery = build(folder, tmp_path)
    assert sorted(gallery.ids) == sorted(NAMES)
    again = Gallery.open(gallery.path, FakeMatcher())
    assert sorted(again.search("red", k=99).ids) == sorted(NAMES)
    assert all(again.picture(name).is_file() for name in NAMES)
    again.remove(NAMES[0])
    assert NAMES[0] not in Gallery.open(gallery.path, FakeMatcher()).ids


def test_names_with_line_separators_leave_the_index_readable(tmp_path):
    paint(tmp_path / "photos" / "a.png", RED)
    gallery = build(tmp_path / "photos", tmp_path)
    names = [f"pasted {mark} note/x {mark}.png" for mark in "\u2028\u2029\u0085\x0b\x0c\x1c\x1d\x1e\r"]
    for i, name in enumerate(names):
        paint(tmp_path / "photos" / name, (20 * i, 255 - 20 * i, 9))
    gallery.add(tmp_path / "photos")
    for opened in (gallery, Gallery.open(gallery.path, FakeMatcher())):
        assert set(opened.ids) == {"a.png", *names} and set(opened.search("red", k=99).ids) == {"a.png", *names}
        assert len(opened.search("red", k=99, where={"folder": "pasted \u2028 note"})) == 1


def test_what_cannot_be_read_back_is_not_committed(tmp_path, monkeypatch):
    paint(tmp_path / "photos" / "a.png", RED)
    gallery = build(tmp_path / "photos", tmp_path)
    paint(tmp_path / "photos" / "b.png", BLUE)
    for wrong in (lambda lines: '{"id": "c.png"}\n' * len(lines), lambda lines: '{"id": "b.p\n'):
        monkeypatch.setattr("xretrieve.gallery.store.to_json_lines", wrong)
        with pytest.raises(XRetrieveError):
            Gallery.open(gallery.path, FakeMatcher()).add(tmp_path / "photos")
        assert Gallery.open(gallery.path, FakeMatcher()).ids == ["a.png"]
    monkeypatch.undo()
    assert len(gallery.add(tmp_path / "photos").added) == 1


@pytest.mark.skipif(sys.platform == "darwin", reason="its file system takes only valid text")
def test_a_name_that_is_no_text_is_reported_and_the_rest_is_indexed(tmp_path):
    folder = tmp_path / "photos"
    good = paint(folder / "good.png", RED)
    os.rename(paint(folder / "x.png", BLUE), os.fsencode(folder) + b"/bad\xff.png")
    gallery = build(folder, tmp_path)
    assert gallery.ids == ["good.png"] and good.is_file()
    assert [entry["reason"] for entry in gallery.failed] == ["the file name is not valid text; rename it"]
    assert len(Gallery.open(gallery.path, FakeMatcher()).failed) == 1, "the report can be written and read"


def test_hidden_files_other_files_and_links_to_folders_are_left_alone(tmp_path):
    folder = tmp_path / "photos"
    paint(folder / "a.png", RED)
    paint(folder / ".thumbnails" / "a.png", BLUE)
    paint(folder / ".b.png", BLUE)
    (folder / "notes.txt").write_text("no picture")
    (folder / "loop").symlink_to(folder, target_is_directory=True)
    (folder / "link.png").symlink_to(folder / "a.png")
    (folder / "dangling.png").symlink_to(folder / "gone.png")
    assert [path.name for path in scan_folder(folder).pictures] == ["a.png", "dangling.png", "link.png"]
    gallery = build(folder, tmp_path)
    assert gallery.ids == ["a.png"] and len(gallery.metadata[0]["paths"]) == 2
    assert [Path(entry["path"]).name for entry in gallery.failed] == ["dangling.png"]


def test_pictures_that_vanish_or_break_while_the_rest_is_encoded_are_reported(tmp_path):
    folder = tmp_path / "photos"
    for i in range(6):
        paint(folder / f"{i}.png", (40 * i, 9, 9))

    class Careless(FakeMatcher):
        def encode_images(self, items, *args, **options):
            (folder / "3.png").unlink(missing_ok=True)
            (folder / "4.png").write_bytes(b"overwritten")
            return super().encode_images(items, *args, **options)

    gallery = Gallery.build(Careless(), folder, tmp_path / "g.xr", batch_size=1)
    assert gallery.ids == ["0.png", "1.png", "2.png", "5.png"]
    reasons = {Path(entry["path"]).name: entry["reason"] for entry in gallery.failed}
    assert "no picture at" in reasons["3.png"] and "not a picture" in reasons["4.png"]
    assert len(gallery.search("red", k=9)) == 4


def test_the_bar_counts_pictures_and_says_how_long_it_will_take(tmp_path, monkeypatch, capsys):
    folder = tmp_path / "photos"
    for i in range(5):
        paint(folder / f"{i}.png", (40 * i, 9, 9))
    monkeypatch.setenv("COLUMNS", "100")
    build(folder, tmp_path, progress=True)
    said = capsys.readouterr().err
    assert "encoding" in said and "5/5" in said and "left" in said and "0:00:00" in said
    build(folder, tmp_path, overwrite=True)
    assert capsys.readouterr().err == ""


KILLED = """
import os, signal, sys
from tests.gallery_fakes import tiny_matcher
from xretrieve.data.cache import FeatureCache
from xretrieve.gallery import Gallery
photos, out, cache, when = sys.argv[1:]
matcher, calls, forward = tiny_matcher("sgr"), [], None
forward = matcher.image.forward
def counted(batch):
    calls.append(len(batch))
    if len(calls) == int(when):
        os.kill(os.getpid(), signal.SIGKILL)
    return forward(batch)
matcher.image.forward = counted
gallery = Gallery.build(matcher, photos, out, batch_size=4, cache=FeatureCache(cache))
print(sum(calls), len(gallery))
"""


def test_a_build_that_is_killed_for_good_resumes_and_leaves_nothing_half_written(tmp_path):
    pytest.importorskip("timm")
    photos, root = noise_photos(tmp_path / "photos", 28), Path(__file__).resolve().parents[1]

    def run(when):
        args = [str(photos), str(tmp_path / "g.xr"), str(tmp_path / "cache"), str(when)]
        env = os.environ | {"PYTHONPATH": str(root)}
        return subprocess.run([sys.executable, "-c", KILLED, *args], cwd=root, capture_output=True, text=True, env=env)

    assert run(6).returncode == -9
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cache", "photos"], "nothing half-written"
    done = run(0)
    assert done.returncode == 0, done.stderr
    encoded, indexed = map(int, done.stdout.split())
    assert (encoded, indexed) == (12, 28), "the first sixteen are not encoded again"


def test_a_rebuild_that_is_killed_between_its_two_renames_leaves_the_old_gallery(tmp_path, monkeypatch):
    folder = tmp_path / "photos"
    paint(folder / "a.png", RED)
    gallery = build(folder, tmp_path)
    replace = Path.replace

    def killed(self, target):
        if target == gallery.path:
            raise KeyboardInterrupt  # the old folder is aside, the new one not yet in its place
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", killed)
    dead = "999999999-" + atomic.me().split("-")[1]
    monkeypatch.setattr("xretrieve.utils.atomic.me", lambda: dead)  # it is gone when the next program comes
    monkeypatch.setattr("xretrieve.utils.atomic.shutil.rmtree", lambda *args, **options: None)  # a kill tidies nothing
    with pytest.raises(KeyboardInterrupt):
        build(folder, tmp_path, overwrite=True)
    monkeypatch.undo()
    assert not gallery.path.exists()
    assert Gallery.open(gallery.path, FakeMatcher()).ids == ["a.png"]
    with pytest.raises(XRetrieveError, match="exists; add to it"):
        build(folder, tmp_path)
