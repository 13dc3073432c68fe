"""The scripts of benchmarks/quality: their arguments reach the tables, and the table is printed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from benchmarks.quality import composed, image_text, multi_query

SMALL = ["dataset.options={train: 40, val: 12, test: 12, size: 48}", "image.options.size=48", "stages.0.epochs=1",
         "text.options.dim=16"]  # fmt: skip


@pytest.mark.parametrize(
    ("script", "given", "row"),
    [
        (composed, ["--data", "scenes", "stages.1.epochs=1"], "sum"),
        (multi_query, ["--data", "scenes"], "mean-similarity"),
        (image_text, ["--base", "image_text/scenes-tshsr", "stages.1.epochs=1"], "dual"),
    ],
)
def test_a_row_is_made_and_the_table_printed(
    script: Any, given: list[str], row: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    script.main([*given, *SMALL, "--rows", row, "--seeds", "4", "--out", str(tmp_path)])
    assert (tmp_path / "cells" / f"{row}-s4" / "report.json").is_file()
    assert f"| `{row}` |" in capsys.readouterr().out
