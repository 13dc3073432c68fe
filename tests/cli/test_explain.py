"""`xretrieve explain`, and `index --coarse`, `search --rerank` around it, with tiny untrained runs."""

import json

import numpy as np
import pytest
from PIL import Image as PILImage

import xretrieve as xr
from tests.gallery_fakes import noise_photos, tiny_matcher
from xretrieve.cli.main import main

pytest.importorskip("timm")
QUERY = "a red dog near zorilla"


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Run folders of TSHSR, and of a dual encoder over the same image backbone."""
    folder = tmp_path_factory.mktemp("runs")
    local = tiny_matcher("tshsr")
    local.save(folder / "tshsr" / "matcher")
    tiny_matcher("dual", seed=1, image=local.image).save(folder / "dual" / "matcher")
    return folder


@pytest.fixture(scope="module")
def place(runs, tmp_path_factory):
    """Three galleries over twelve photos: TSHSR on the dual encoder, TSHSR alone, the dual encoder."""
    folder = tmp_path_factory.mktemp("place")
    photos = noise_photos(folder / "photos", 12)
    for out, *options in (
        ("both.xr", "--model", runs / "tshsr", "--coarse", runs / "dual"),
        ("alone.xr", "--model", runs / "tshsr"),
        ("dual.xr", "--model", runs / "dual"),
    ):
        assert main([str(a) for a in ("index", photos, "--out", folder / out, "--json", *options)]) == 0
    return folder


def call(capsys, *args):
    status = main([str(a) for a in args])
    out = capsys.readouterr()
    return status, out.out, out.err


def test_the_table_names_every_word_and_both_streams(place, capsys):
    status, out, err = call(capsys, "explain", place / "both.xr", QUERY, "--rank", 2)
    assert status == 0, err
    hit = xr.Gallery.open(place / "both.xr").search(QUERY, k=2)[1]
    assert f"{hit.id}: rank 2, score {hit.score:.4f}" in out
    for word in ("<start>", "red", "dog", "<zorilla>", "<end>", "row", "column", "looked at most by"):
        assert word in out
    assert "unknown" not in err


def test_json_is_what_python_gives(place, capsys):
    status, out, _ = call(capsys, "explain", place / "alone.xr", QUERY, "--json")
    told = json.loads(out)
    assert status == 0 and told == json.loads(json.dumps(xr.Gallery.open(place / "alone.xr").search(QUERY).explain(0)))
    assert told["attention"]["layout"]["grid"] == [3, 3] and told["attention"]["regions"] == 9
    assert np.array(told["attention"]["streams"]["t2i"]["weights"]).sum(1) == pytest.approx(np.ones(7), abs=1e-4)
    assert told["parts"] == [{"kind": "text", "text": QUERY, "score": pytest.approx(told["score"], abs=1e-5)}]


def test_a_figure_and_a_page_are_drawn(place, tmp_path, capsys):
    status, out, err = call(capsys, "explain", place / "both.xr", QUERY, "--out", tmp_path / "new" / "why.png")
    assert status == 0 and f"drawn: {tmp_path / 'new' / 'why.png'}" in out, err
    with PILImage.open(tmp_path / "new" / "why.png") as image:
        assert image.format == "PNG" and image.width > 900
    status, out, _ = call(capsys, "explain", place / "both.xr", QUERY, "--out", tmp_path / "why.html", "--json")
    assert status == 0 and "attention" in json.loads(out)
    assert (tmp_path / "why.html").read_text().count("data:image/png") == 2 * 8


def test_a_dual_encoder_gives_the_score_of_each_detail(place, tmp_path, capsys):
    status, out, _ = call(capsys, "explain", place / "dual.xr", "a red dog", "--and", "snow")
    assert status == 0 and "a red dog" in out and "snow" in out and "looks most at" not in out
    status, _, err = call(capsys, "explain", place / "dual.xr", "a red dog", "--out", tmp_path / "x.png")
    assert status == 2 and "nothing to draw" in err and not (tmp_path / "x.png").exists()


def test_a_vanished_picture_still_has_numbers_but_no_drawing(runs, tmp_path, capsys):
    photos = noise_photos(tmp_path / "photos", 2)
    assert call(capsys, "index", photos, "--model", runs / "tshsr", "--out", tmp_path / "g.xr")[0] == 0
    for path in photos.iterdir():
        path.unlink()
    status, out, _ = call(capsys, "explain", tmp_path / "g.xr", "red dog")
    assert status == 0 and "region " in out
    status, _, err = call(capsys, "explain", tmp_path / "g.xr", "red dog", "--out", tmp_path / "x.html")
    assert status == 2 and "nothing can be drawn" in err


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--rank", "13"], "--rank 13: there are 12 results; all 12 shown"),
        (["--rank", "0"], "--rank"),
        (["--out", "why.jpg"], "ends in .png or .html"),
        (["--rerank", "many"], "rerank is 'many'; give"),
        (["--where", "folder"], "write key=value"),
        (["--weights", "w.safetensors"], "--weights belongs to --model"),
    ],
)
def test_bad_input_is_one_line_on_stderr(place, capsys, args, message):
    status, out, err = call(capsys, "explain", place / "both.xr", QUERY, *args)
    assert status == 2 and message in err and err.count("\n") == 1 and out == ""


def test_search_shows_both_orders_and_its_page_the_heat(place, tmp_path, capsys):
    _, out, _ = call(capsys, "search", place / "both.xr", QUERY, "--rerank", 0, "--json")
    coarse = json.loads(out)["hits"]
    _, out, _ = call(capsys, "search", place / "dual.xr", QUERY, "--json")
    assert [h["id"] for h in coarse] == [h["id"] for h in json.loads(out)["hits"]]
    _, out, _ = call(capsys, "search", place / "both.xr", QUERY, "--rerank", "all", "--json", "--explain")
    exact = json.loads(out)["hits"]
    _, out, _ = call(capsys, "search", place / "alone.xr", QUERY, "--json")
    assert [h["id"] for h in exact] == [h["id"] for h in json.loads(out)["hits"]] != [h["id"] for h in coarse]
    assert all(h["parts"][0]["score"] == pytest.approx(h["score"], abs=1e-5) for h in exact)
    page = tmp_path / "page.html"
    assert call(capsys, "search", place / "both.xr", QUERY, "-k", 3, "--html", page)[0] == 0
    assert page.read_text().count("data:image/png") == 3 and "zorilla" not in page.read_text().split("<ol>")[1]
    assert call(capsys, "search", place / "dual.xr", QUERY, "-k", 3, "--html", page)[0] == 0
    assert "data:image/png" not in page.read_text() and 'id="heat"' not in page.read_text()


def test_index_says_where_candidates_come_from_and_adds(place, runs, tmp_path, capsys):
    photos = noise_photos(tmp_path / "photos", 4)
    args = ["index", photos, "--model", runs / "tshsr", "--out", tmp_path / "g.xr"]
    status, out, _ = call(capsys, *args)
    assert status == 0 and "no coarse space: a search scores every picture" in out
    status, out, _ = call(capsys, *args, "--coarse", runs / "dual", "--overwrite")
    assert status == 0 and "candidates come from tiny-dual" in out
    noise_photos(photos / "more", 2, seed=4)
    status, out, err = call(capsys, "index", photos, "--out", tmp_path / "g.xr", "--add", "--json")
    assert status == 0 and json.loads(out)["added"] == 2 and json.loads(out)["coarse"]["by"] == "matcher", err
    status, _, err = call(capsys, "index", photos, "--model", runs / "dual", "--coarse", runs / "dual",
                          "--out", tmp_path / "x.xr")  # fmt: skip
    assert status == 2 and "leave out coarse" in err
    status, _, err = call(capsys, "search", tmp_path / "g.xr", QUERY, "--coarse", runs / "tshsr")
    assert status == 2 and "takes its candidates from coarse matcher" in err
