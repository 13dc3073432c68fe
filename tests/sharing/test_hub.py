"""What goes up to the Hub comes down as it was: against a stand-in server that speaks its HTTP."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import xretrieve as xr
from tests.sharing.hub_server import Hub
from xretrieve.sharing import export
from xretrieve.sharing.hub import fetch, push

TEXTS = ["a red circle", "a large blue square beside a small green one"]


@pytest.fixture
def exported(run: Path, tmp_path: Path) -> Path:
    export(run, tmp_path / "out", name="hf-hub:me/tiny")
    return tmp_path / "out"


def test_a_pushed_model_loads_by_its_name_with_equal_scores(exported: Path, run: Path, hub: Hub) -> None:
    assert push(exported, "me/tiny") == f"{hub.url}/me/tiny"
    files = {path.relative_to(exported).as_posix() for path in exported.rglob("*") if path.is_file()}
    assert set(hub.repos["me/tiny"]) == files | {".gitattributes"}
    assert any(request.startswith("PUT /lfs/") for request in hub.asked), "weights go up as large files"
    matcher, original = xr.load("hf-hub:me/tiny"), xr.load(run)
    assert matcher.source == "hf-hub:me/tiny"
    assert matcher.fingerprint() == original.fingerprint()
    assert torch.equal(matcher.encode_texts(TEXTS).pooled, original.encode_texts(TEXTS).pooled)


def test_a_second_load_asks_for_no_file_again(exported: Path, hub: Hub) -> None:
    push(exported, "me/tiny")
    fetch("me/tiny")
    before = [request for request in hub.asked if request.startswith("GET /me/tiny/resolve/")]
    fetch("me/tiny")
    assert [request for request in hub.asked if request.startswith("GET /me/tiny/resolve/")] == before != []


def test_an_old_export_leaves_nothing_that_would_be_read_with_the_new_one(exported: Path, hub: Hub) -> None:
    push(exported, "me/tiny")
    hub.repos["me/tiny"] |= {"image/model.onnx": b"old", "notes.txt": b"mine"}
    push(exported, "me/tiny")
    assert "image/model.onnx" not in hub.repos["me/tiny"] and "notes.txt" in hub.repos["me/tiny"]


def test_pickles_in_a_repository_are_not_fetched(exported: Path, hub: Hub) -> None:
    push(exported, "me/tiny")
    hub.repos["me/tiny"]["pytorch_model.bin"] = b"never"
    assert not (fetch("me/tiny") / "pytorch_model.bin").exists()


def test_a_private_model_is_made_private(exported: Path, hub: Hub) -> None:
    push(exported, "me/tiny", private=True)
    assert hub.private == {"me/tiny"}


def test_a_wrong_token_is_one_error_that_says_to_log_in(
    exported: Path, hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "wrong")
    with pytest.raises(xr.XRetrieveError, match="hf auth login"):
        push(exported, "me/tiny")
    assert not hub.repos


def test_a_model_that_is_not_there_is_one_error_with_its_name(hub: Hub) -> None:
    with pytest.raises(xr.XRetrieveError, match="hf-hub:me/nothing.*check the name"):
        xr.load("hf-hub:me/nothing")


@pytest.mark.parametrize("name", ["tiny", "me/tiny/more", "me/", "../x/y"])
def test_names_that_are_no_owner_and_name_are_refused_before_anything_is_asked(name: str, hub: Hub) -> None:
    with pytest.raises(xr.XRetrieveError, match="OWNER/NAME"):
        xr.load(f"hf-hub:{name}")
    assert not hub.asked
