"""Pictures of every kind come out upright RGB; broken ones name the file."""

import os

import numpy as np
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from xretrieve.data.folder import picture_suffixes
from xretrieve.data.pictures import picture_size, read_picture, shrinking
from xretrieve.errors import XRetrieveError


@pytest.fixture
def photo(tmp_path):
    path = tmp_path / "photo.jpg"
    noise = np.random.default_rng(0).integers(0, 255, (40, 60, 3), dtype=np.uint8)
    Image.fromarray(noise).save(path, quality=95)
    return path


def test_exif_rotation_is_applied(tmp_path, photo):
    exif = Image.Exif()
    exif[0x0112] = 6  # rotate by 90 degrees
    Image.open(photo).save(tmp_path / "turned.jpg", exif=exif)
    assert read_picture(tmp_path / "turned.jpg").size == (40, 60)
    assert read_picture(str(photo)).size == (60, 40)


@pytest.mark.parametrize("turn", [None, 1, 3, 5, 6, 8])
@pytest.mark.parametrize("name", ["x.jpg", "x.png", "x.webp", "x.gif", "x.tif"])
def test_the_size_from_the_head_of_a_file_is_that_of_the_picture(tmp_path, photo, turn, name):
    exif = Image.Exif()
    if turn is not None:
        exif[0x0112] = turn
    Image.open(photo).save(tmp_path / name, **({} if name == "x.gif" else {"exif": exif}))
    assert picture_size(tmp_path / name) == read_picture(tmp_path / name).size
    assert picture_size(Image.open(tmp_path / name)) == read_picture(tmp_path / name).size


def test_sixteen_bits_are_scaled_not_cut(tmp_path):
    Image.fromarray(np.full((4, 4), 32768, dtype=np.uint16)).save(tmp_path / "deep.png")
    assert abs(read_picture(tmp_path / "deep.png").getpixel((0, 0))[0] - 128) <= 1


@pytest.mark.parametrize("mode", ["L", "1", "CMYK", "RGBA", "LA", "P", "F", "I"])
def test_every_mode_becomes_rgb(mode):
    assert read_picture(Image.new(mode, (5, 5))).mode == "RGB"


def test_transparency_is_laid_on_white(tmp_path):
    Image.new("RGBA", (4, 4), (0, 0, 0, 0)).save(tmp_path / "clear.png")
    assert read_picture(tmp_path / "clear.png").getpixel((0, 0)) == (255, 255, 255)


def test_the_first_frame_of_an_animation_is_taken(tmp_path):
    frames = [Image.new("RGB", (4, 4), c) for c in ("red", "blue")]
    frames[0].save(tmp_path / "moving.gif", save_all=True, append_images=frames[1:])
    assert read_picture(tmp_path / "moving.gif").getpixel((0, 0)) == (255, 0, 0)


def test_broken_files_are_named(tmp_path, photo):
    (tmp_path / "cut.jpg").write_bytes(photo.read_bytes()[:900])
    (tmp_path / "empty.jpg").touch()
    (tmp_path / "text.jpg").write_text("no picture at all")
    reasons = {"cut.jpg": "broken", "empty.jpg": "0 bytes", "text.jpg": "format", "none.jpg": "no picture"}
    for name, reason in reasons.items():
        with pytest.raises(XRetrieveError, match=f"{name}.*{reason}|{reason}.*{name}"):
            read_picture(tmp_path / name)
    for name in ("empty.jpg", "text.jpg", "none.jpg"):
        with pytest.raises(XRetrieveError, match=name):
            picture_size(tmp_path / name)


def test_other_formats_are_refused_whatever_they_are_called(tmp_path, monkeypatch):
    monkeypatch.setattr("PIL.EpsImagePlugin.Ghostscript", lambda *args: pytest.fail("a program was started"))
    for kind in ("EPS", "PPM", "TGA", "ICO"):
        Image.new("RGB", (40, 30), "red").save(tmp_path / "holiday.jpg", kind)
        with pytest.raises(XRetrieveError, match="holiday.jpg: not a picture in a format"):
            read_picture(tmp_path / "holiday.jpg")
        with pytest.raises(XRetrieveError, match="holiday.jpg: not a picture in a format"):
            picture_size(tmp_path / "holiday.jpg")


def test_a_picture_of_another_allowed_format_than_its_name_says_is_read(tmp_path, photo):
    (tmp_path / "x.png").write_bytes(photo.read_bytes())
    assert read_picture(tmp_path / "x.png").tobytes() == read_picture(photo).tobytes()


@pytest.mark.parametrize("error", [RuntimeError("decoder"), MemoryError(), RecursionError("deep"), SystemError("C")])
def test_whatever_a_decoder_raises_is_a_reason_that_names_the_file(photo, monkeypatch, error):
    def fails(self):
        raise error

    monkeypatch.setattr("PIL.JpegImagePlugin.JpegImageFile.load", fails)
    with pytest.raises(XRetrieveError, match=f"{photo.name}: (broken picture|there is not enough memory)"):
        read_picture(photo)
    with pytest.raises(XRetrieveError, match="the picture that was sent: "):
        read_picture(photo.read_bytes())
    with pytest.raises(XRetrieveError, match="the picture that was given cannot be read"):
        read_picture(Image.open(photo))


def test_a_pipe_a_folder_and_a_file_without_permission_are_reasons(tmp_path, photo, monkeypatch):
    os.mkfifo(tmp_path / "pipe.jpg")
    with pytest.raises(XRetrieveError, match="no picture at .*pipe.jpg: it is not a file"):
        read_picture(tmp_path / "pipe.jpg")
    with pytest.raises(XRetrieveError, match="it is not a file"):
        read_picture(tmp_path)

    def refused(path, *args, **more):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("xretrieve.data.pictures.os.stat", refused)
    with pytest.raises(XRetrieveError, match="photo.jpg: cannot be read .Permission denied."):
        read_picture(photo)


def test_png_metadata_of_any_size_is_passed_over_and_the_turn_is_kept(tmp_path):
    picture, texts = Image.fromarray(np.arange(30 * 40 * 3, dtype=np.uint8).reshape(30, 40, 3)), PngInfo()
    for count in range(30):
        texts.add_text(f"workflow{count}", "x" * 2**20, zip=True)
        texts.add_itxt(f"prompt{count}", "y" * (2**20 - 50))
    exif = Image.Exif()
    exif[0x0112] = 6
    picture.save(tmp_path / "x.png", pnginfo=texts, icc_profile=b"\0" * 2**21, exif=exif)
    picture.save(tmp_path / "plain.png", exif=exif)
    read = read_picture(tmp_path / "x.png")
    assert read.tobytes() == read_picture(tmp_path / "plain.png").tobytes() and read.size == (30, 40)
    assert picture_size(tmp_path / "x.png") == (30, 40)


def test_pictures_over_the_limit_come_smaller_with_the_same_look(tmp_path, monkeypatch):
    coarse = np.random.default_rng(0).integers(0, 256, (5, 7, 4), dtype=np.uint8)
    whole = Image.fromarray(coarse).resize((301, 203), Image.Resampling.BICUBIC)
    monkeypatch.setattr("xretrieve.data.decoding.LARGE", 20_000)  # pixels; 301 x 203 has three times as many
    exif = Image.Exif()
    exif[0x0112] = 6
    names = ["x.jpg", "x.png", "x.gif", "x.bmp", "x.tif", "x.webp"] + [
        f"x{suffix}" for suffix in (".avif", ".heic") if suffix in picture_suffixes()
    ]
    for name in names:
        whole.convert("RGB").save(tmp_path / name, **({} if name in ("x.gif", "x.bmp") else {"exif": exif}))
        small = read_picture(tmp_path / name)
        lying = name in ("x.gif", "x.bmp", "x.heic")  # HEIC has its own word for it, and EXIF's does not count
        assert small.size == ((151, 102) if lying else (102, 151)) and shrinking(tmp_path / name) == 2, name
        assert picture_size(tmp_path / name) == ((301, 203) if lying else (203, 301)), "what is stored"
        wanted = whole.convert("RGB").resize((151, 102), Image.Resampling.BOX)
        wanted = wanted if lying else wanted.transpose(Image.Transpose.ROTATE_270)
        off = np.abs(np.asarray(small, np.int16) - np.asarray(wanted, np.int16)).mean()
        assert off < (12 if name == "x.gif" else 4), (name, off)


def test_what_would_take_too_much_memory_is_refused_by_its_head(tmp_path, photo, monkeypatch):
    Image.new("1", (30_000, 20_000)).save(tmp_path / "flat.png")  # 75 kB
    monkeypatch.setattr("PIL.PngImagePlugin.PngImageFile.load", lambda self: pytest.fail("it was decoded"))
    with pytest.raises(XRetrieveError, match=r"flat.png: 30000 x 20000 pixels as PNG take \d+ MB to decode, more than"):
        read_picture(tmp_path / "flat.png")
    Image.open(photo).resize((3000, 3000)).save(tmp_path / "passes.jpg", progressive=True)
    assert shrinking(tmp_path / "passes.jpg") == 1
    monkeypatch.setenv("XRETRIEVE_PICTURE_MB", "40")
    with pytest.raises(XRetrieveError, match="passes.jpg: .* as JPEG take 28 MB .* XRETRIEVE_PICTURE_MB"):
        read_picture(tmp_path / "passes.jpg")
    monkeypatch.setenv("XRETRIEVE_PICTURE_MB", "much")
    with pytest.raises(XRetrieveError, match="XRETRIEVE_PICTURE_MB is 'much'"):
        read_picture(photo)


def test_a_small_copy_of_a_large_jpeg_is_decoded_at_a_fraction_and_turned(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 8
    Image.new("RGB", (1600, 1200), "teal").save(tmp_path / "x.jpg", exif=exif)
    assert read_picture(tmp_path / "x.jpg", side=200).size == (300, 400)
    assert read_picture(tmp_path / "x.jpg", side=801).size == read_picture(tmp_path / "x.jpg").size == (1200, 1600)


def test_a_picture_from_memory_is_copied(photo):
    given = Image.open(photo).convert("RGB")
    read_picture(given).thumbnail((5, 5))
    assert given.size == (60, 40)


def test_bands_change_no_pixel(tmp_path, monkeypatch):
    rng = np.random.default_rng(1)
    clear = Image.fromarray(rng.integers(0, 256, (90, 70, 4), dtype=np.uint8))
    deep = Image.fromarray(rng.integers(0, 65536, (90, 70), dtype=np.uint16))
    real = Image.fromarray(rng.random((90, 70), dtype=np.float32))
    pictures = [clear, deep, real, clear.convert("RGB").quantize(9), clear.convert("LA"), clear.convert("CMYK")]
    whole = [read_picture(picture).tobytes() for picture in pictures]
    monkeypatch.setattr("xretrieve.data.pictures.BAND", 500)
    assert [read_picture(picture).tobytes() for picture in pictures] == whole
