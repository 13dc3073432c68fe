"""Names, third-party sources, saved folders, weight files."""

import pickle
import subprocess
import sys

import pytest
import torch

import xretrieve.backbones as backbones
from xretrieve.backbones import create_backbone, load_backbone
from xretrieve.backbones.weights import read_weights
from xretrieve.errors import XRetrieveError


class _Point:
    """An installed entry point ``mine`` of the group ``xretrieve.backbones``."""

    name = "mine"

    def load(self):
        return self

    @staticmethod
    def create(rest, *, modality=None, weights=None, assets=None, dim=3):
        from xretrieve.backbones.regions import Regions

        return Regions(dim)

    @staticmethod
    def names():
        return ["one", "two"]


def test_a_third_party_source_is_found_by_its_entry_point(monkeypatch):
    monkeypatch.setattr(backbones, "plugins", lambda group: {"mine": _Point()})
    assert create_backbone("mine:one", dim=7).local_dim == 7
    assert backbones.list_backbones("mine:*") == ["mine:one", "mine:two"]
    with pytest.raises(XRetrieveError, match="unknown option 'dims'; did you mean 'dim'"):
        create_backbone("mine:one", dims=7)
    with pytest.raises(XRetrieveError, match="encodes images, not texts"):
        create_backbone("mine:one", modality="text")


def test_importing_the_registry_imports_no_library():
    heavy = ("torch", "timm", "open_clip", "transformers")
    code = f"import sys, xretrieve.backbones; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=_root(), check=True)
    assert done.stdout.strip() == "[]"


def _root():
    from pathlib import Path

    return Path(backbones.__file__).parents[2]


def test_a_folder_that_is_no_backbone_is_named(tmp_path):
    with pytest.raises(XRetrieveError, match="no backbone.json"):
        load_backbone(tmp_path)
    (tmp_path / "backbone.json").write_text('{"name": "words"}')
    with pytest.raises(XRetrieveError, match="missing key 'modality'"):
        load_backbone(tmp_path)


class _Evil:
    def __reduce__(self):
        return (print, ("code ran",))


def test_weight_files_never_run_code(tmp_path, capsys):
    (tmp_path / "evil.pth").write_bytes(pickle.dumps({"a": _Evil()}))
    with pytest.raises(XRetrieveError, match="evil.pth"):
        read_weights(tmp_path / "evil.pth")
    assert "code ran" not in capsys.readouterr().out


def test_weights_come_as_float32_and_broken_files_are_named(tmp_path):
    torch.save({"state_dict": {"a": torch.ones(2, dtype=torch.float16), "n": torch.tensor(3)}}, tmp_path / "half.pth")
    state = read_weights(tmp_path / "half.pth")
    assert state["a"].dtype == torch.float32 and state["n"].dtype == torch.int64
    (tmp_path / "cut.safetensors").write_bytes(b"\x10\x00")
    with pytest.raises(XRetrieveError, match="cut.safetensors"):
        read_weights(tmp_path / "cut.safetensors")


def test_without_a_network_only_the_local_cache_is_asked(monkeypatch):
    import socket

    from huggingface_hub import constants

    from xretrieve.backbones.weights import hub

    def unknown_name(*args):
        raise socket.gaierror("Name or service not known")

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr("urllib.request.getproxies", dict)
    monkeypatch.setattr(socket, "getaddrinfo", unknown_name)
    with hub():
        assert constants.HF_HUB_OFFLINE
    assert not constants.HF_HUB_OFFLINE
