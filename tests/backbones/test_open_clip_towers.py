"""open_clip towers, on tiny random models: tokens, joint vectors, weights, offline save and load."""

import json

import numpy as np
import open_clip
import pytest
import torch
from PIL import Image

from xretrieve.backbones import create_backbone, list_backbones, load_backbone
from xretrieve.errors import XRetrieveError

TEXT = {"context_length": 12, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 2}
CONFIGS = {
    "tiny-vit": {
        "embed_dim": 24,
        "vision_cfg": {"image_size": 32, "layers": 2, "width": 64, "patch_size": 8},
        "text_cfg": TEXT,
    },
    "tiny-rn": {
        "embed_dim": 24,
        "vision_cfg": {"image_size": 64, "layers": [1, 1, 1, 1], "width": 8, "patch_size": None},
        "text_cfg": TEXT,
    },
    "tiny-timm": {
        "embed_dim": 24,
        "custom_text": True,
        "text_cfg": {**TEXT, "no_causal_mask": True, "pool_type": "last"},
        "vision_cfg": {"image_size": 64, "timm_model_name": "resnet18", "timm_pool": "avg", "timm_proj": "linear"},
    },
}
TEXTS = ["a dog!", "a man in a red coat", "snow"]


@pytest.fixture(scope="module", autouse=True)
def _configs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("configs")
    for name, config in CONFIGS.items():
        (folder / f"{name}.json").write_text(json.dumps(config))
    open_clip.add_model_config(folder)


@pytest.fixture(scope="module")
def pictures():
    return [Image.fromarray(np.random.default_rng(i).integers(0, 255, (40, 50, 3), dtype=np.uint8)) for i in range(2)]


@pytest.mark.parametrize(("name", "grid", "width"), [("tiny-vit", 16, 64), ("tiny-rn", 4, 256), ("tiny-timm", 4, 512)])
def test_images_give_local_tokens_and_open_clips_own_joint_vector(name, grid, width, pictures, tmp_path):
    model = open_clip.create_model(name).eval()
    torch.save(model.state_dict(), tmp_path / "whole.pt")
    tower = create_backbone(f"open_clip:{name}", modality="image", weights=tmp_path / "whole.pt")
    tokens = tower.encode(pictures)
    assert tokens.local.shape == (2, grid, width) and tokens.mask.all()
    assert (tower.local_dim, tower.pooled_dim) == (width, 24)
    with torch.no_grad():
        wanted = model.encode_image(tower.prepare(pictures))
    torch.testing.assert_close(tokens.pooled, wanted, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("name", ["tiny-vit", "tiny-timm"])
def test_texts_give_word_tokens_and_open_clips_own_joint_vector(name, tmp_path):
    model = open_clip.create_model(name).eval()
    torch.save(model.state_dict(), tmp_path / "whole.pt")
    tower = create_backbone(f"open_clip:{name}", modality="text", weights=tmp_path / "whole.pt")
    tokens = tower.encode(TEXTS)
    # start + words + end; "!" has the number 0, which is also the padding
    assert tokens.lengths.tolist() == [5, 8, 3] and tokens.local.shape == (3, 8, 32)
    with torch.no_grad():
        wanted = model.encode_text(open_clip.get_tokenizer(name)(TEXTS))
    torch.testing.assert_close(tokens.pooled, wanted, atol=1e-5, rtol=1e-4)


def test_patch_tokens_are_the_normed_last_layer_without_the_class_token(pictures):
    tower = create_backbone("open_clip:tiny-vit", modality="image", pretrained=False).eval()
    visual, pixels = tower.tower.visual, tower.prepare(pictures)
    with torch.no_grad():
        wanted = visual.ln_post(visual.transformer(visual._embeds(pixels)))[:, 1:]
    torch.testing.assert_close(tower.encode(pictures).local, wanted)


@pytest.mark.parametrize("name", sorted(CONFIGS))
def test_save_and_load_without_the_configuration_registry(name, pictures, tmp_path, monkeypatch):
    for modality, items in (("image", pictures), ("text", TEXTS)):
        tower = create_backbone(f"open_clip:{name}", modality=modality, pretrained=False, frozen=True)
        tower.save(tmp_path / modality)
        with monkeypatch.context() as patch:
            patch.setattr(open_clip.factory, "_MODEL_CONFIGS", {})
            again = load_backbone(tmp_path / modality)
        assert again.fingerprint() == tower.fingerprint()
        assert torch.equal(again.encode(items).local, tower.encode(items).local)
        assert torch.equal(again.encode(items).pooled, tower.encode(items).pooled)
        assert not any(p.requires_grad for p in again.parameters())


def test_towers_are_trainable(pictures):
    image = create_backbone("open_clip:tiny-vit", modality="image", pretrained=False)
    text = create_backbone("open_clip:tiny-vit", modality="text", pretrained=False)
    for tower, items in ((image, pictures), (text, TEXTS)):
        tokens = tower(tower.prepare(items))
        (tokens.local.square().sum() + tokens.pooled.square().sum()).backward()
        assert all(p.grad is not None for p in tower.parameters())


def test_errors_name_what_to_type():
    with pytest.raises(XRetrieveError, match="modality='image'"):
        create_backbone("open_clip:ViT-B-32/openai")
    with pytest.raises(XRetrieveError, match="did you mean 'ViT-B-32'"):
        create_backbone("open_clip:VitB-32/openai", modality="image")
    with pytest.raises(XRetrieveError, match="did you mean 'laion2b_s34b_b79k'"):
        create_backbone("open_clip:ViT-B-32/laion2b_s34b", modality="image")
    with pytest.raises(XRetrieveError, match="names no weights.*pretrained=false"):
        create_backbone("open_clip:tiny-vit", modality="image")
    assert "open_clip:ViT-B-32/laion2b_s34b_b79k" in list_backbones("open_clip:*laion2b*")


def test_a_missing_hub_names_the_local_alternative(monkeypatch):
    def no_network(*args, **options):
        raise OSError("no route to host")

    monkeypatch.setattr(open_clip.factory, "download_pretrained", no_network)
    with pytest.raises(XRetrieveError, match=r"weights=FILE.*pretrained=false"):
        create_backbone("open_clip:RN50/openai", modality="image")


def test_texts_that_are_cut_are_counted():
    text = create_backbone("open_clip:tiny-vit", modality="text", pretrained=False)
    assert text.cut(["a dog", "a dog " * 5, "a dog " * 50]) == [(4, 4), (12, 12), (12, 102)]
    ids = text.prepare(["a dog " * 5, "a dog " * 5 + "and a cat"])["ids"]
    assert ids[0, :-1].equal(ids[1, :-1]), "what is counted as cut changes nothing"
