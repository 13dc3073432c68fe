"""`xretrieve explain` for several sentences about one picture: table, figure, page, and the heat of a search's page."""

from __future__ import annotations

import json

import pytest
from PIL import Image as PILImage

from tests.set_galleries import SENTENCES, Galleries
from xretrieve.cli.main import main
from xretrieve.gallery import Gallery
from xretrieve.query import MultiText

pytest.importorskip("timm")
QUERY = [SENTENCES[0], "--and", SENTENCES[1], "--and", SENTENCES[2]]


@pytest.fixture(scope="module")
def galleries(tmp_path_factory):
    return Galleries(tmp_path_factory.mktemp("sets"))


def call(capsys, *args):
    status = main([str(a) for a in args])
    out = capsys.readouterr()
    return status, out.out, out.err


@pytest.mark.parametrize("case", ["hmrn-t2i", "hmrn-i2t", "drilldown", "dual"])
def test_the_table_has_a_row_for_each_sentence(galleries, capsys, monkeypatch, case):
    monkeypatch.setenv("COLUMNS", "160")
    folder = galleries[case].path
    status, out, err = call(capsys, "explain", folder, *QUERY, "--rank", 2)
    assert status == 0, err
    told = Gallery.open(folder).search(MultiText(SENTENCES[:3]), k=2).explain(1)
    assert f"{told['id']}: rank 2, score {told['score']:.4f}" in out
    for part in told["parts"]:
        line = next(line for line in out.splitlines() if part["text"] in line)
        assert f"{part['score']:.4f}" in line
        if case != "dual":
            row, column = divmod(part["region"], 3)
            assert f"{part['found']:.4f}" in line and f"row {row + 1}, column {column + 1}" in line
        if case.startswith("hmrn"):
            assert f"{100 * part['reads']:.0f} %" in line
    if case.startswith("hmrn"):
        levels = told["levels"]
        assert f"score = 0.6 x {levels['local']['value']:.4f} (local) + " in out and "(reason)" in out
    else:
        assert "score =" not in out


def test_a_figure_and_a_page_show_where_each_sentence_looks(galleries, tmp_path, capsys):
    folder = galleries["hmrn-t2i"].path
    status, _, err = call(capsys, "explain", folder, *QUERY, "--out", tmp_path / "why.png")
    assert status == 0, err
    with PILImage.open(tmp_path / "why.png") as image:
        assert image.width > 900
    status, out, _ = call(capsys, "explain", folder, *QUERY, "--out", tmp_path / "why.html", "--json")
    page = (tmp_path / "why.html").read_text()
    assert status == 0 and len(json.loads(out)["parts"]) == 3
    assert page.count("data:image/png") == 1 + 3 and "Choose a sentence" in page and "sentences look at regions" in page


def test_a_searchs_page_shows_the_heat_of_the_set(galleries, tmp_path, capsys):
    out = tmp_path / "page.html"
    assert call(capsys, "search", galleries["drilldown"].path, *QUERY, "-k", 2, "--html", out)[0] == 0
    assert out.read_text().count("data:image/png") == 2 and SENTENCES[1] in out.read_text()


def test_index_says_that_a_bound_makes_searches_exact(galleries, tmp_path, capsys):
    galleries["hmrn-t2i"]
    run, out = galleries.folder / "runs" / "hmrn-t2i", tmp_path / "g.xr"
    status, said, err = call(capsys, "index", galleries.photos, "--model", run, "--out", out)
    assert status == 0 and "a search is exact: a bound leaves out" in said, err
