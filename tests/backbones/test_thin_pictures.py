"""Pictures that are far longer than wide: their middle is taken before it is enlarged, to the same result."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

import xretrieve as xr
from xretrieve.errors import XRetrieveError

pytest.importorskip("timm")


@pytest.fixture(scope="module")
def backbone():
    return xr.create_backbone("timm:test_resnet", modality="image", size=32, pretrained=False)


def noise(width, height):
    coarse = np.random.default_rng(0).integers(0, 256, (1 + height // 9, 1 + width // 9, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)


@pytest.mark.parametrize(("width", "height"), [(40, 30), (480, 30), (30, 479)])
def test_ordinary_pictures_are_not_touched(backbone, width, height):
    picture = noise(width, height)
    assert backbone.middle(picture) is picture


@pytest.mark.parametrize(("width", "height"), [(901, 20), (900, 20), (20, 901), (21, 900)])
def test_the_middle_of_a_thin_picture_is_what_the_crop_keeps(backbone, width, height):
    picture = noise(width, height)
    middle = backbone.middle(picture)
    assert max(middle.size) in (16 * min(width, height), 16 * min(width, height) + 1)
    off = (backbone._read(picture).float() - backbone.transform(picture).float()).abs()
    assert off.mean() < 3, "at most half a pixel of the result aside"


def test_a_line_of_pixels_is_never_enlarged_as_a_whole(backbone, monkeypatch):
    seen, resize = [], Image.Image.resize

    def watched(self, size, *args, **more):
        seen.append(size)
        return resize(self, size, *args, **more)

    monkeypatch.setattr(Image.Image, "resize", watched)
    backbone.prepare([Image.new("RGB", (50_000, 1)), Image.new("RGB", (1, 50_000))])
    assert seen and max(max(size) for size in seen) < 1000


def test_a_picture_that_the_transform_refuses_is_named(backbone, monkeypatch, tmp_path):
    noise(9, 9).save(tmp_path / "odd.png")
    monkeypatch.setattr(type(backbone), "transform", lambda self, picture: torch.zeros(2) @ torch.zeros(3))
    with pytest.raises(XRetrieveError, match="odd.png: timm:test_resnet cannot take this picture"):
        backbone.prepare([tmp_path / "odd.png"])
