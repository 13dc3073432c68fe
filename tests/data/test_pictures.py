"""Pictures of every kind come out upright RGB; broken ones name the file."""

import numpy as np
import pytest
from PIL import Image

from xretrieve.data.pictures import picture_size, read_picture
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
@pytest.mark.parametrize("name", ["x.jpg", "x.png", "x.webp", "x.gif"])
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
