"""The table of published figures is typed by hand: its own sums must agree."""

from __future__ import annotations

from pathlib import Path

import pytest

from xretrieve.evaluation.published import published_rows

RECALLS = [f"{d}_r{k}" for d in ("i2t", "t2i") for k in (1, 5, 10)]


@pytest.mark.parametrize("key", [("flickr30k", "flickr-1k"), ("mscoco", "coco-1k"), ("mscoco", "coco-5k")])
def test_every_rsum_is_the_sum_of_its_recalls(key):
    rows = published_rows(*key)
    assert len(rows) >= 8
    for row in rows:
        recalls = [v for name, v in row.values.items() if name != "rsum"]
        assert len(recalls) in (4, 6) and all(0 < v <= 100 for v in recalls), row
        if "rsum" in row.values and len(recalls) == 6:
            assert row.values["rsum"] == pytest.approx(sum(recalls), abs=0.6), row  # printed figures are rounded


def test_the_readme_of_the_task_prints_the_same_figures():
    page = (Path(__file__).resolve().parents[2] / "tasks/image_text/README.md").read_text(encoding="utf-8")
    table = page.partition("| model (published) |")[2].partition("\n\n")[0].splitlines()[2:]
    columns = [("flickr30k", "flickr-1k"), ("mscoco", "coco-5k")]
    known = [{row.name: row.values for row in published_rows(*column)} for column in columns]
    assert len(table) >= 8
    for line in table:
        name, *cells = [cell.strip() for cell in line.strip("|").split("|")]
        for rows, cell in zip(known, cells, strict=True):
            printed = [float(number) for number in cell.replace(",", " ").split()]
            wanted = rows.get(name, {})
            assert printed == [wanted[key] for key in (*RECALLS, "rsum") if wanted], name
