"""Fixtures shared by all tests: where the real data and the golden arrays lie, when they do."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parent.parent
SHARED = REPOSITORY.parent / "shared"

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # a test that reaches for the hub must fail at once, not hang
os.environ.setdefault("XRETRIEVE_PRECISION", "32")  # what `auto` means: the same numbers on every machine


@pytest.fixture(scope="session")
def data_root() -> Path:
    """The real data: ``XRETRIEVE_DATA``, or ``../shared/data`` beside the checkout."""
    root = Path(os.environ.get("XRETRIEVE_DATA") or SHARED / "data")
    if not (root / "flickr8k").is_dir():
        pytest.skip(f"no real data at {root} (set XRETRIEVE_DATA)")
    return root


@pytest.fixture(scope="session")
def golden() -> Path:
    """The golden arrays, ``../shared/golden`` beside the checkout."""
    root = SHARED / "golden"
    if not root.is_dir():
        pytest.skip(f"no golden arrays at {root}")
    return root


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test reads or fills the user's feature cache."""
    monkeypatch.setenv("XRETRIEVE_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))
