"""A tiny trained run, and the stand-in Hub that `huggingface_hub` is pointed at."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

import xretrieve as xr
from tests.sharing.hub_server import Hub, running_hub
from xretrieve.training import Recipe


def tiny(task: str = "image_text", **changes: object) -> dict[str, object]:
    recipe = {
        "name": "tiny",
        "description": "Twelve drawn pictures, for a test.",
        "task": task,
        "dataset": {"name": "scenes", "options": {"train": 12, "val": 6, "test": 6, "size": 48}},
        "image": {"backbone": "timm:test_resnet", "frozen": True, "options": {"pretrained": False, "size": 32}},
        "text": {"backbone": "words", "options": {"min_count": 1, "word_dim": 8, "dim": 8}},
        "head": {"name": "dual", "options": {"dim": 8, "image_pool": "gpo", "text_pool": "max"}},
        "stages": [{"epochs": 1, "batch_size": 8, "loss": {"name": "infonce"}}],
        "protocol": "full",
    }
    return recipe | changes


@pytest.fixture(scope="session")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sharing") / "tiny"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XRETRIEVE_CACHE", str(folder.parent / "cache"))
        from xretrieve.config import from_dict

        xr.train(from_dict(Recipe, tiny()), out=folder, progress=False)
    return folder


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Hub]:
    from huggingface_hub import constants

    with running_hub() as server:
        monkeypatch.setattr(constants, "ENDPOINT", server.url)  # what HF_ENDPOINT sets at the start of a program
        monkeypatch.setattr(
            constants, "HUGGINGFACE_CO_URL_TEMPLATE", server.url + "/{repo_id}/resolve/{revision}/{filename}"
        )
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)  # large files go by Git LFS, over plain HTTP
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub-cache"))
        monkeypatch.setenv("HF_TOKEN", "right")
        yield server
