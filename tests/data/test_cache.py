"""The feature cache: nothing is encoded twice, nothing finished is lost, nothing damaged is used."""

import io
import multiprocessing
import os
import pickle
import shutil

import numpy as np
import pytest
import torch
from PIL import Image

from xretrieve.backbones import create_backbone
from xretrieve.backbones.images import ImageBackbone
from xretrieve.data import shards
from xretrieve.data.base import FeatureRow
from xretrieve.data.cache import FeatureCache, bars
from xretrieve.errors import DiskError, XRetrieveError
from xretrieve.tokens import Tokens


class Colours(ImageBackbone):
    """Four local tokens of width 3: the mean colours of the quarters; counts the pictures it encodes."""

    local_dim = pooled_dim = 3

    def __init__(self, stop_after=None):
        super().__init__("colours", "image", {})
        self.scale = torch.nn.Parameter(torch.ones(3))
        self.encoded, self.stop_after = 0, stop_after

    def transform(self, picture):
        return torch.from_numpy(np.array(picture.resize((2, 2)))).permute(2, 0, 1).float() / 255

    def forward(self, batch):
        if self.stop_after is not None and self.encoded >= self.stop_after:
            raise KeyboardInterrupt
        self.encoded += len(batch)
        return Tokens.from_local(batch.flatten(2).transpose(1, 2) * self.scale)


@pytest.fixture
def pictures(tmp_path):
    paths = [tmp_path / f"{i}.png" for i in range(10)]
    for i, path in enumerate(paths):
        Image.fromarray(np.random.default_rng(i).integers(0, 255, (8, 8, 3), dtype=np.uint8)).save(path)
    return paths


@pytest.fixture
def cache(tmp_path):
    return FeatureCache(tmp_path / "features")


def test_the_second_encode_does_not_call_the_backbone(cache, pictures):
    backbone = Colours()
    first = cache.encode(backbone, pictures, batch_size=3)
    assert backbone.encoded == 10 and len(first) == 10
    again = cache.encode(backbone, pictures[::-1], batch_size=3)
    assert backbone.encoded == 10
    torch.testing.assert_close(again[:].pooled, backbone.encode(pictures[::-1]).pooled)
    torch.testing.assert_close(again[:].local, backbone.encode(pictures[::-1]).local, atol=1e-3, rtol=0)


def test_rows_come_in_the_order_asked_for(cache, pictures):
    cached, backbone = cache.encode(Colours(), pictures), Colours()
    wanted = backbone.encode(pictures).pooled
    for rows in ([7, 0, 7], np.array([2, 9]), torch.tensor([5, 1]), slice(3, 6), np.arange(10) % 2 == 0):
        torch.testing.assert_close(cached[rows].pooled, wanted[rows])
    torch.testing.assert_close(cached.pooled, wanted)
    with pytest.raises(IndexError):
        cached[[10]]
    with pytest.raises(TypeError):
        cached[3]


def test_a_copy_under_another_name_is_the_same_item_and_changed_bytes_are_not(cache, pictures, tmp_path):
    backbone = Colours()
    cache.encode(backbone, pictures[:2])
    shutil.copy(pictures[0], tmp_path / "copy.png")
    cache.encode(backbone, [tmp_path / "copy.png", pictures[0], Image.open(pictures[1])])
    assert backbone.encoded == 3  # only the PIL image is new
    Image.new("RGB", (8, 8), "red").save(pictures[0])
    assert cache.encode(backbone, pictures[:1])[:].pooled[0].tolist() == [1, 0, 0]
    assert backbone.encoded == 4


def test_other_weights_have_other_features(cache, pictures):
    backbone = Colours()
    cache.encode(backbone, pictures[:3])
    with torch.no_grad():
        backbone.scale.mul_(2)
    torch.testing.assert_close(cache.encode(backbone, pictures[:3])[:].pooled, backbone.encode(pictures[:3]).pooled)


def test_an_interrupted_fill_resumes_with_what_was_finished(cache, pictures):
    with pytest.raises(KeyboardInterrupt):
        cache.encode(Colours(stop_after=6), pictures, batch_size=3)
    resumed = Colours()
    assert len(cache.encode(resumed, pictures, batch_size=3)) == 10
    assert resumed.encoded == 4


def _killed_fill(root, paths):
    shards._SHARD_BYTES = 1  # a shard per batch

    class Dies(Colours):
        def forward(self, batch):
            if self.encoded >= 6:
                os._exit(9)
            return super().forward(batch)

    FeatureCache(root).encode(Dies(), paths, batch_size=2)


def test_a_killed_fill_keeps_its_finished_shards(cache, pictures):
    process = multiprocessing.get_context("fork").Process(target=_killed_fill, args=(cache.root, pictures))
    process.start()
    process.join()
    assert process.exitcode == 9
    backbone = Colours()
    cache.encode(backbone, pictures)
    assert backbone.encoded == 4


def _fill(root, paths):
    shards._SHARD_BYTES = 1
    FeatureCache(root).encode(Colours(), paths, batch_size=1)


def test_two_processes_fill_the_same_cache_at_once(cache, pictures):
    fork = multiprocessing.get_context("fork")
    processes = [fork.Process(target=_fill, args=(cache.root, pictures)) for _ in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [p.exitcode for p in processes] == [0, 0]
    backbone = Colours()
    cached = cache.encode(backbone, pictures)
    assert backbone.encoded == 0
    torch.testing.assert_close(cached[:].pooled, backbone.encode(pictures).pooled)


def test_a_damaged_shard_is_left_out_and_encoded_again(cache, pictures):
    cache.encode(Colours(), pictures)
    file = next(cache.root.glob("*/shard-*/local.npy"))
    file.write_bytes(file.read_bytes()[:100])
    backbone = Colours()
    with pytest.warns(UserWarning, match="damaged"):
        cached = cache.encode(backbone, pictures)
    assert backbone.encoded == 10
    assert torch.isfinite(cached[:].local).all()


@pytest.mark.parametrize("name", ["keys", "local", "mask", "pooled"])
def test_a_flipped_bit_in_a_shard_is_noticed_and_encoded_again(cache, pictures, name):
    cache.encode(Colours(), pictures)
    shards._SOUND.clear()  # another process
    file = next(cache.root.glob(f"*/shard-*/{name}.npy"))
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)
    backbone = Colours()
    with pytest.warns(UserWarning, match=f"{name}.npy is damaged: its bytes changed.*deleted"):
        cached = cache.encode(backbone, pictures)
    assert backbone.encoded == 10 and not file.exists()
    torch.testing.assert_close(cached[:].pooled, backbone.encode(pictures).pooled)


def test_a_full_disk_of_the_cache_is_one_sentence_and_no_pictures_fault(cache, pictures, tmp_path, monkeypatch):
    def full(*args, **options):
        raise OSError("262144 requested and 0 written")

    monkeypatch.setattr("xretrieve.data.shards.np.save", full)
    for on_error in ("raise", "skip"):
        with pytest.raises(DiskError, match="cannot write the feature cache at .*No space left.*XRETRIEVE_CACHE"):
            cache.encode(Colours(), pictures, on_error=on_error)
    assert not list(cache.root.glob("*/*shard*"))


def test_unreadable_pictures_stop_or_are_skipped_by_name(cache, pictures, tmp_path):
    (tmp_path / "cut.png").write_bytes(pictures[0].read_bytes()[:60])
    (tmp_path / "empty.png").touch()
    items = [pictures[0], tmp_path / "cut.png", pictures[1], tmp_path / "none.png", tmp_path / "empty.png"]
    with pytest.raises(XRetrieveError, match="none.png"):
        cache.encode(Colours(), items)
    with pytest.raises(XRetrieveError, match="cut.png"):
        cache.encode(Colours(), items[:3])
    cached = cache.encode(Colours(), items, ids=["a", "b", "c", "d", "e"], on_error="skip")
    assert cached.kept.tolist() == [0, 2] and len(cached) == 2
    assert [name for name, _ in cached.failed] == ["b", "d", "e"]
    assert "0 bytes" in cached.failed[2][1]
    torch.testing.assert_close(cached[:].pooled, Colours().encode(pictures[:2]).pooled)


def test_texts_of_different_lengths_are_padded_and_cut(cache):
    captions = ["a dog", "a man runs in the deep snow", "snow"]
    words = create_backbone("words", captions=captions, min_count=1, word_dim=4, dim=5, frozen=True)
    cached = cache.encode(words, captions, batch_size=1)
    wanted = words.encode(captions)
    torch.testing.assert_close(cached[:].local, wanted.local, atol=1e-3, rtol=0)
    assert torch.equal(cached[:].mask, wanted.mask)
    assert cached[[0]].local.shape[1] == 4  # start, a, dog, end


def test_values_beyond_half_precision_are_kept(cache, pictures):
    backbone = Colours()
    with torch.no_grad():
        backbone.scale.fill_(1e6)
    torch.testing.assert_close(cache.encode(backbone, pictures)[:].local, backbone.encode(pictures).local)


def test_nan_features_are_an_error_that_names_the_picture(cache, pictures):
    backbone = Colours()
    with torch.no_grad():
        backbone.scale.fill_(float("nan"))
    with pytest.raises(XRetrieveError, match="0.png hold NaN"):
        cache.encode(backbone, pictures)


def test_feature_rows_are_read_on_demand_and_never_copied(cache, tmp_path):
    np.save(tmp_path / "x_ims.npy", np.random.default_rng(0).normal(size=(5, 3, 4)).astype(np.float32))
    cached = cache.encode(create_backbone("regions", dim=4), [FeatureRow(tmp_path / "x_ims.npy", i) for i in range(5)])
    assert not cache.root.exists()
    np.testing.assert_array_equal(cached[[4, 1]].local.numpy(), np.load(tmp_path / "x_ims.npy")[[4, 1]])
    assert cached.pooled.shape == (5, 4)


def test_a_pickled_handle_maps_the_files_again(cache, pictures):
    cached = cache.encode(Colours(), pictures)
    before = cached[:].pooled
    copy = pickle.dumps(cached)
    assert len(copy) < 5000
    assert torch.equal(pickle.loads(copy)[:].pooled, before)


def test_bars_stand_side_by_side_on_a_terminal_and_nowhere_else(monkeypatch):
    for terminal in (True, False):
        shown = io.StringIO()
        monkeypatch.setattr(shown, "isatty", lambda here=terminal: here)
        monkeypatch.setattr("sys.stderr", shown)
        with bars(True) as add:
            assert shown.getvalue() == "", "nothing is shown before there is something to wait for"
            steps = [add(10, "pictures"), add(20, "texts")]
            for step in steps:
                step(10)
        assert ("pictures" in shown.getvalue() and "texts" in shown.getvalue()) == terminal
