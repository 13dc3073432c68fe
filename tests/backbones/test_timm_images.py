"""timm images: grids, patches, preprocessing, weights, hub errors."""

import numpy as np
import pytest
import timm
import torch
from PIL import Image

from xretrieve.backbones import create_backbone, list_backbones, load_backbone
from xretrieve.data.base import FeatureRow
from xretrieve.errors import XRetrieveError

CNN = dict(pretrained=False, size=64)


@pytest.fixture
def pictures(tmp_path):
    paths = []
    for i in range(3):
        pixels = np.random.default_rng(i).integers(0, 255, (50 + 20 * i, 90, 3), dtype=np.uint8)
        paths.append(tmp_path / f"{i}.png")
        Image.fromarray(pixels).save(paths[-1])
    return paths


@pytest.mark.parametrize(
    ("name", "grid", "width"), [("mobilenetv3_small_050", 4, 288), ("vit_tiny_patch16_224", 16, 192)]
)
def test_grid_cells_and_patches_come_without_prefix_tokens(pictures, name, grid, width):
    backbone = create_backbone(f"timm:{name}", **CNN)
    tokens = backbone.encode(pictures, batch_size=2)
    assert tokens.local.shape == (3, grid, width) and tokens.mask.all()
    assert (backbone.local_dim, backbone.pooled_dim) == (width, tokens.pooled.shape[1])
    assert backbone.training  # encode restored the mode


def test_channels_last_maps_are_flattened_the_right_way():
    backbone = create_backbone("timm:swin_tiny_patch4_window7_224", pretrained=False, pooled="mean")
    assert (backbone.local_dim, backbone.cells) == (768, 49)


def test_pixels_equal_timms_own_transform(pictures):
    backbone = create_backbone("timm:resnet18", pretrained=False).eval()
    model = backbone.model
    own = timm.data.create_transform(**timm.data.resolve_model_data_config(model), is_training=False)
    pixels = torch.stack([own(Image.open(p).convert("RGB")) for p in pictures])
    with torch.no_grad():
        features = model.forward_features(pixels)
    tokens = backbone.encode(pictures)
    torch.testing.assert_close(tokens.local, features.flatten(2).transpose(1, 2), atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(tokens.pooled, features.mean((2, 3)), atol=1e-4, rtol=1e-4)


def test_save_and_load_give_equal_outputs_and_fingerprint(pictures, tmp_path):
    backbone = create_backbone("timm:resnet18", frozen=True, mean=0.5, std=0.5, crop=1.0, **CNN)
    backbone.save(tmp_path / "image")
    again = load_backbone(tmp_path / "image")
    assert again.frozen and again.fingerprint() == backbone.fingerprint()
    assert torch.equal(again.encode(pictures).local, backbone.encode(pictures).local)


def test_a_backbone_made_in_inference_mode_has_the_same_fingerprint():
    torch.manual_seed(0)
    plain = create_backbone("timm:test_resnet", pretrained=False, size=32, frozen=True)
    with torch.inference_mode():
        torch.manual_seed(0)
        other = create_backbone("timm:test_resnet", pretrained=False, size=32, frozen=True)
        assert other.fingerprint() == plain.fingerprint()


def test_fingerprint_changes_with_weights_and_preprocessing(tmp_path):
    one = create_backbone("timm:resnet18", frozen=True, **CNN)
    one.save(tmp_path / "one")
    file = tmp_path / "one/model.safetensors"
    same = create_backbone("timm:resnet18", weights=file, size=64)
    darker = create_backbone("timm:resnet18", weights=file, size=64, mean=0.5)
    other = create_backbone("timm:resnet18", **CNN)
    assert same.fingerprint() == one.fingerprint()
    assert len({b.fingerprint() for b in (one, darker, other)}) == 3


def test_frozen_backbone_keeps_batch_norm_still_and_has_no_gradients(pictures):
    backbone = create_backbone("timm:resnet18", frozen=True, **CNN).train()
    before = backbone.fingerprint()
    tokens = backbone(backbone.prepare(pictures))
    assert not tokens.local.requires_grad
    assert backbone.fingerprint() == before


def test_a_trainable_backbone_gets_gradients(pictures):
    backbone = create_backbone("timm:resnet18", **CNN)
    backbone(backbone.prepare(pictures)).local.square().sum().backward()
    assert backbone.model.conv1.weight.grad.abs().sum() > 0


def test_real_weights_recognise_real_photos(data_root):
    # The folder's notes: 7 x 7 cells of 1,280 features; an image and its mirror image are nearer than two images.
    backbone = create_backbone(
        "timm:mobilenetv2_100",
        weights=data_root / "weights/mobilenetv2_100.safetensors",
        frozen=True,
        mean=0.5,
        std=0.5,
        size=224,
        crop=1.0,
        model_args={"pad_type": "same"},
    )
    paths = sorted((data_root / "flickr8k/images").glob("*.jpg"))[:4]
    photos = [Image.open(p) for p in paths]
    tokens = backbone.encode(photos + [p.transpose(Image.Transpose.FLIP_LEFT_RIGHT) for p in photos])
    assert tokens.local.shape == (8, 49, 1280)
    unit = torch.nn.functional.normalize(tokens.pooled, dim=1)
    assert (unit[:4] @ unit[4:].T).argmax(1).tolist() == [0, 1, 2, 3]


def test_a_missing_hub_names_the_local_alternative():
    with pytest.raises(XRetrieveError, match=r"weights=FILE.*pretrained=false"):
        create_backbone("timm:resnet18")


def test_weight_files_that_do_not_fit_name_the_key(tmp_path):
    state = timm.create_model("resnet18", num_classes=10).state_dict()
    torch.save(state, tmp_path / "with_classifier.pth")
    create_backbone("timm:resnet18", weights=tmp_path / "with_classifier.pth")
    state["layer1.0.conv1.weights"] = state.pop("layer1.0.conv1.weight")
    torch.save(state, tmp_path / "bad.pth")
    with pytest.raises(XRetrieveError, match=r"missing \(first: layer1.0.conv1.weight\).*unexpected"):
        create_backbone("timm:resnet18", weights=tmp_path / "bad.pth")
    with pytest.raises(XRetrieveError, match="no weights file"):
        create_backbone("timm:resnet18", weights=tmp_path / "none.pth")


def test_names_and_broken_pictures(tmp_path, pictures):
    assert "timm:resnet18" in list_backbones("timm:resnet1*")
    with pytest.raises(XRetrieveError, match="did you mean 'resnet18'"):
        create_backbone("timm:resnet_18")
    backbone = create_backbone("timm:resnet18", **CNN)
    (tmp_path / "cut.png").write_bytes(pictures[0].read_bytes()[:300])
    with pytest.raises(XRetrieveError, match="cut.png"):
        backbone.encode([*pictures, tmp_path / "cut.png"])
    with pytest.raises(XRetrieveError, match="regions backbone"):
        backbone.encode([FeatureRow(tmp_path / "x_ims.npy", 0)])


@pytest.mark.parametrize("name", ["test_resnet", "test_vit"])
def test_earlier_maps_join_every_token_and_leave_the_last_one_as_it_was(pictures, tmp_path, name):
    torch.manual_seed(0)
    plain = create_backbone(f"timm:{name}", pretrained=False)
    plain.save(tmp_path / "plain")
    joined = create_backbone(f"timm:{name}", weights=tmp_path / "plain" / "model.safetensors", layers=[0, 1])
    with joined.inference():
        batch = joined.prepare(pictures)
        first, second = plain.eval()(batch), joined(batch)
        pixels = (batch.float() - joined.mean) / joined.std
        maps = joined.model.forward_intermediates(pixels, indices=[0, 1], intermediates_only=True, output_fmt="NCHW")
    width = plain.local_dim
    torch.testing.assert_close(second.local[..., :width], first.local, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(second.pooled[:, : plain.pooled_dim], first.pooled, atol=1e-5, rtol=1e-5)
    side = int(first.local.shape[1] ** 0.5)
    cell = maps[0].shape[-1] // side  # the first cell is the mean of the map's first block
    want = maps[0][:, :, :cell, :cell].mean((2, 3))
    torch.testing.assert_close(second.local[:, 0, width : width + want.shape[1]], want, atol=1e-5, rtol=1e-5)
    assert joined.local_dim == width + sum(m.shape[1] for m in maps)
    assert joined.fingerprint() != plain.fingerprint()
    joined.save(tmp_path / "joined")
    assert load_backbone(tmp_path / "joined").fingerprint() == joined.fingerprint()


def test_layers_that_do_not_exist_are_named():
    with pytest.raises(XRetrieveError, match=r"layers \[9\] do not exist; it has feature maps 0 to"):
        create_backbone("timm:test_resnet", pretrained=False, layers=[1, 9])
