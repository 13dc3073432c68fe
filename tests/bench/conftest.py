"""A folder of its own for runs, and small keys for every recipe over `scenes`."""

from __future__ import annotations

from pathlib import Path

import pytest

SMALL = ["dataset.options={train: 40, val: 12, test: 12, size: 48}", "image.options.size=48", "stages.0.epochs=1"]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working folder without real data."""
    (tmp_path / "data").mkdir()
    monkeypatch.setenv("XRETRIEVE_DATA", str(tmp_path / "data"))
    monkeypatch.chdir(tmp_path)
    return tmp_path
