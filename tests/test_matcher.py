"""The matcher: encoding, queries, saving and loading, and what it says when a part does not fit."""

from __future__ import annotations

import json

import PIL.Image
import pytest
import torch

import xretrieve as xr
from tests.gallery_fakes import tiny_matcher
from xretrieve.backbones import create_backbone
from xretrieve.data.cache import FeatureCache
from xretrieve.errors import XRetrieveError
from xretrieve.matcher import Matcher, build_head

CAPTIONS = ["a red square", "a blue circle", "two green stars on the left"]


def tiny(**head) -> Matcher:
    torch.manual_seed(0)
    image = create_backbone("timm:test_resnet", pretrained=False, size=32, frozen=True)
    text = create_backbone("words", captions=CAPTIONS, min_count=1, word_dim=8, dim=16)
    return Matcher(image, text, build_head("dual", image, text, dim=12, **head), name="tiny")


@pytest.fixture
def pictures(tmp_path):
    paths = []
    for i, colour in enumerate(("red", "blue", "green", "white")):
        path = tmp_path / f"{colour}.png"
        PIL.Image.new("RGB", (40 + i, 32), colour).save(path)
        paths.append(path)
    return paths


def test_scores_are_queries_by_gallery_and_batches_change_nothing(pictures):
    matcher = tiny()
    images, texts = matcher.encode_images(pictures), matcher.encode_texts(CAPTIONS)
    scores = matcher.score(texts, images)
    assert tuple(scores.shape) == (3, 4) and scores.dtype == torch.float32
    again = matcher.score(matcher.encode_texts(CAPTIONS, batch_size=1), matcher.encode_images(pictures, batch_size=3))
    torch.testing.assert_close(again, scores, atol=1e-5, rtol=0)


@pytest.mark.parametrize("part", ["image", "text", "head"])
def test_a_part_that_a_trainer_left_in_training_mode_is_not_encoded_in_it(pictures, part):
    matcher, modes = tiny(), []
    matcher.image.frozen = False  # a frozen one never trains
    for module in getattr(matcher, part).modules():
        module.register_forward_hook(lambda module, *_: modes.append(module.training))
    getattr(matcher, part).train()
    matcher.encode_images(pictures), matcher.encode_texts(CAPTIONS)
    assert modes and not any(modes)


def test_a_matcher_that_trains_goes_on_training_after_it_encoded(pictures):
    matcher = tiny().train()
    matcher.encode_images(pictures), matcher.encode_texts(CAPTIONS)
    assert matcher.training and matcher.head.training and all(module.training for module in matcher.text.modules())
    assert not any(module.training for module in matcher.image.modules()), "it is frozen"


def test_the_modules_of_a_matcher_are_not_walked_for_every_query(pictures, monkeypatch):
    matcher = tiny()
    monkeypatch.setattr(torch.nn.Module, "train", lambda *_: pytest.fail("walked"))
    matcher.encode_query(xr.ImageText(pictures[0], CAPTIONS[0]))


@pytest.mark.parametrize("source", ["local", "pooled"])
def test_the_cache_gives_what_encoding_gives(pictures, tmp_path, source):
    matcher, cache = tiny(image_source=source), FeatureCache(tmp_path / "cache")
    plain = matcher.encode_images(pictures)
    for _ in range(2):  # filled, then read
        cached = matcher.encode_images(pictures, cache=cache)
        torch.testing.assert_close(cached.pooled, plain.pooled, atol=2e-3, rtol=0)  # local tokens are kept in float16


def test_texts_are_cached_only_where_the_text_backbone_is_frozen(tmp_path):
    matcher, cache = tiny(), FeatureCache(tmp_path / "cache")
    plain = matcher.encode_texts(CAPTIONS)
    matcher.encode_texts(CAPTIONS, cache=cache)
    assert not (tmp_path / "cache").exists()
    matcher.text.freeze()
    matcher.encode_texts(CAPTIONS, cache=cache)
    matcher.text.forward = lambda batch: pytest.fail("encoded again although it is in the cache")
    torch.testing.assert_close(matcher.encode_texts(CAPTIONS, cache=cache).pooled, plain.pooled, atol=2e-3, rtol=0)


def test_every_query_is_one_row(pictures):
    matcher = tiny()
    texts, image = matcher.encode_texts(CAPTIONS).pooled, matcher.encode_images(pictures[:1]).pooled
    encode = lambda query: matcher.encode_query(query).pooled  # noqa: E731
    torch.testing.assert_close(encode(xr.Text(CAPTIONS[0])), texts[:1])
    torch.testing.assert_close(encode(CAPTIONS[0]), texts[:1])
    torch.testing.assert_close(encode(xr.MultiText(CAPTIONS)), texts.mean(0, keepdim=True))
    torch.testing.assert_close(encode(xr.Image(pictures[0])), image)
    total = image + texts[:1]
    torch.testing.assert_close(encode(xr.ImageText(pictures[0], CAPTIONS[0])), total / total.norm())
    with pytest.raises(XRetrieveError, match="not a query"):
        matcher.encode_query(7)


def test_saved_and_loaded_it_scores_the_same_and_keeps_its_fingerprint(pictures, tmp_path):
    matcher = tiny(image_pool="gpo")
    matcher.save(tmp_path / "run" / "matcher")
    loaded = xr.load(tmp_path / "run")
    assert loaded.fingerprint() == matcher.fingerprint() and loaded.name == "tiny"
    assert loaded.source == str(tmp_path / "run")
    want = matcher.score(matcher.encode_texts(CAPTIONS), matcher.encode_images(pictures))
    torch.testing.assert_close(loaded.score(loaded.encode_texts(CAPTIONS), loaded.encode_images(pictures)), want)
    with torch.no_grad():
        next(loaded.head.parameters()).add_(1)
    assert loaded.fingerprint() != matcher.fingerprint()


def test_weights_whose_bytes_changed_are_not_loaded(pictures, tmp_path):
    tiny_matcher("sgr").save(tmp_path / "m")
    for path in sorted((tmp_path / "m").rglob("*.safetensors")):
        whole = path.read_bytes()
        path.write_bytes(whole[:-5] + bytes([whole[-5] ^ 64]) + whole[-4:])
        with pytest.raises(XRetrieveError, match=f"{path.name} is damaged: its bytes changed"):
            Matcher.load(tmp_path / "m")
        path.write_bytes(whole)
    assert Matcher.load(tmp_path / "m")


def test_what_cannot_be_loaded_says_why(tmp_path):
    with pytest.raises(XRetrieveError, match="no run folder 'runs/none'"):
        xr.load("runs/none")
    with pytest.raises(XRetrieveError, match="holds no matcher"):
        xr.load(tmp_path)
    folder = tiny().save(tmp_path / "m")
    with pytest.raises(XRetrieveError, match="takes no options"):
        xr.load(folder, weights="x")
    config = json.loads((folder / "config.json").read_text())
    config["options"]["dim"] = 13
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(XRetrieveError, match=r"head.safetensors does not fit head 'dual'"):
        xr.load(folder)
    (folder / "head.safetensors").unlink()
    with pytest.raises(XRetrieveError, match="no file .*head.safetensors"):
        xr.load(folder)


def test_sides_in_the_wrong_place_and_empty_lists_are_refused():
    matcher = tiny()
    with pytest.raises(XRetrieveError, match="image side of a matcher needs a backbone of images"):
        Matcher(matcher.text, matcher.text, matcher.head)
    with pytest.raises(XRetrieveError, match="list of images is empty"):
        matcher.encode_images([])


def test_features_with_nan_name_the_picture(pictures):
    matcher = tiny()
    with torch.no_grad():
        next(matcher.image.parameters()).fill_(float("nan"))
    with pytest.raises(XRetrieveError, match="red.png.* NaN"):
        matcher.encode_images(pictures)
