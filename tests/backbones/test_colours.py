"""Colour histograms: counted by hand, joined to the pooled vector, none where they are not asked for."""

import numpy as np
import pytest
import torch
from PIL import Image

from xretrieve.backbones import create_backbone, load_backbone
from xretrieve.backbones.colours import colour_histograms
from xretrieve.errors import XRetrieveError

SMALL = dict(pretrained=False, size=32, crop=1.0)


def framed(frame, inside, side=8):
    """(side,side,3) of one colour with the middle half of height and width in another."""
    pixels = np.empty((side, side, 3), np.uint8)
    pixels[:] = frame
    pixels[side // 4 : side - side // 4, side // 4 : side - side // 4] = inside
    return pixels


def as_batch(*pictures):
    return torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2)


def test_a_red_middle_in_white_is_a_quarter_of_the_picture_and_all_of_its_middle():
    found = colour_histograms(as_batch(framed((255, 255, 255), (255, 0, 0)), framed((0, 0, 127), (0, 128, 255))), 2)
    assert found.shape == (2, 16) and found.dtype == torch.float32
    want = torch.zeros(2, 16)
    want[0, 7], want[0, 4], want[0, 8 + 4] = 0.75**0.5, 0.5, 1.0  # white, red; red
    want[1, 0], want[1, 3], want[1, 8 + 3] = 0.75**0.5, 0.5, 1.0  # dark blue is the first step of blue
    torch.testing.assert_close(found, want)


def test_each_histogram_is_a_unit_vector_and_reads_no_other_picture():
    pictures = torch.randint(256, (3, 3, 9, 7), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    found = colour_histograms(pictures, 4)
    torch.testing.assert_close(found.view(3, 2, 64).norm(dim=-1), torch.ones(3, 2))
    torch.testing.assert_close(colour_histograms(pictures[1:2], 4), found[1:2])
    torch.testing.assert_close(colour_histograms(pictures.float(), 4), found)


def test_the_pooled_vector_ends_with_the_histograms_and_a_saved_backbone_keeps_them(tmp_path):
    picture = Image.fromarray(framed((255, 255, 255), (255, 0, 0), side=32))
    plain = create_backbone("timm:test_resnet", **SMALL)
    plain.save(tmp_path / "plain")
    with_colours = create_backbone(
        "timm:test_resnet", weights=tmp_path / "plain" / "model.safetensors", colours=2, **SMALL
    )
    assert with_colours.pooled_dim == plain.pooled_dim + 16
    assert "colours" not in plain.options and with_colours.fingerprint() != plain.fingerprint()
    tokens = with_colours.encode([picture] * 9)
    torch.testing.assert_close(tokens.pooled[:, : plain.pooled_dim], plain.encode([picture] * 9).pooled)
    torch.testing.assert_close(tokens.pooled[8, plain.pooled_dim + 4], torch.tensor(0.5))
    with_colours.save(tmp_path / "colours")
    torch.testing.assert_close(load_backbone(tmp_path / "colours").encode([picture]).pooled, tokens.pooled[:1])


@pytest.mark.parametrize("options", [{"colours": 1}, {"colours": 17}, {"colours": 8, "pooled": "mean"}])
def test_histograms_that_cannot_be_joined_are_refused(options):
    with pytest.raises(XRetrieveError, match="colours=.* give 2 to 16, with pooled='model'"):
        create_backbone("timm:test_resnet", **SMALL, **options)
