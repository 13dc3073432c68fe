"""Precomputed regions: memory-mapped, checked row by row."""

import copy

import numpy as np
import pytest
import torch

from xretrieve.backbones import create_backbone, load_backbone
from xretrieve.data.base import FeatureRow
from xretrieve.errors import XRetrieveError


@pytest.fixture
def file(tmp_path):
    values = np.random.default_rng(0).normal(size=(6, 4, 5)).astype(np.float32)
    np.save(tmp_path / "test_ims.npy", values)
    return tmp_path / "test_ims.npy"


def test_rows_come_as_stored_with_their_mean(file):
    backbone, values = create_backbone("regions", features=file), np.load(file)
    tokens = backbone.encode([FeatureRow(file, i) for i in (5, 0, 2)], batch_size=2)
    np.testing.assert_array_equal(tokens.local.numpy(), values[[5, 0, 2]])
    np.testing.assert_allclose(tokens.pooled.numpy(), values[[5, 0, 2]].mean(1), rtol=1e-5, atol=1e-6)
    assert tokens.mask.all() and backbone.local_dim == 5


def test_the_file_is_mapped_not_loaded(file):
    backbone = create_backbone("regions", dim=5)
    backbone.prepare([FeatureRow(file, 1)])
    assert isinstance(backbone._files[file], np.memmap)
    assert copy.deepcopy(backbone)._files == {}


def test_boxes_follow_the_rows(file, tmp_path):
    boxes = np.arange(6 * 4 * 4).reshape(6, 4, 4)
    np.save(tmp_path / "boxes.npy", boxes)
    backbone = create_backbone("regions", dim=5, boxes=tmp_path / "boxes.npy")
    assert torch.equal(backbone.boxes([FeatureRow(file, 3)]), torch.from_numpy(boxes[[3]]).float())
    assert create_backbone("regions").boxes([FeatureRow(file, 3)]) is None


def test_a_broken_row_names_file_and_row(file):
    values = np.load(file)
    values[2, 1, 1], values[4] = np.nan, 0
    np.save(file, values)
    backbone = create_backbone("regions", dim=5)
    with pytest.raises(XRetrieveError, match="test_ims.npy: row 2 holds NaN"):
        backbone.encode([FeatureRow(file, 2)])
    with pytest.raises(XRetrieveError, match="test_ims.npy: row 4 is all zeros"):
        backbone.encode([FeatureRow(file, 4)])
    with pytest.raises(XRetrieveError, match="no row 6, it has 6"):
        backbone.encode([FeatureRow(file, 6)])


def test_wrong_files_are_named(file, tmp_path):
    with pytest.raises(XRetrieveError, match="dim=5"):
        create_backbone("regions").encode([FeatureRow(file, 0)])
    (tmp_path / "cut.npy").write_bytes(file.read_bytes()[:200])
    with pytest.raises(XRetrieveError, match="cut.npy: not a whole"):
        create_backbone("regions", dim=5).encode([FeatureRow(tmp_path / "cut.npy", 0)])
    np.save(tmp_path / "objects.npy", np.array([{}], dtype=object))
    with pytest.raises(XRetrieveError, match="objects.npy"):
        create_backbone("regions", features=tmp_path / "objects.npy")
    with pytest.raises(XRetrieveError, match="FeatureRow"):
        create_backbone("regions").encode(["photo.jpg"])


def test_save_and_load(file, tmp_path):
    backbone = create_backbone("regions", dim=5, frozen=True)
    backbone.save(tmp_path / "image")
    again = load_backbone(tmp_path / "image")
    assert again.fingerprint() == backbone.fingerprint()
    assert torch.equal(again.encode([FeatureRow(file, 0)]).local, backbone.encode([FeatureRow(file, 0)]).local)


def test_absent_regions_of_a_mask_file_are_not_real(tmp_path):
    rows = np.ones((2, 3, 4), np.float32)
    rows[1, 2] = 0
    np.save(tmp_path / "features.npy", rows)
    mask = np.array([[True] * 3, [True, True, False]])
    np.save(tmp_path / "features_mask.npy", mask)
    backbone = create_backbone("regions", dim=4)
    tokens = backbone.encode([FeatureRow(tmp_path / "features.npy", row) for row in (1, 0)])
    assert tokens.lengths.tolist() == [2, 3] and tokens.pooled.eq(1).all()
    np.save(tmp_path / "features_mask.npy", mask[:1])
    with pytest.raises(XRetrieveError, match="features_mask.npy: expected true and false"):
        create_backbone("regions", dim=4).prepare([FeatureRow(tmp_path / "features.npy", 0)])
