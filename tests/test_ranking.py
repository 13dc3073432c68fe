import base64
import io
import json

import pytest
from PIL import Image as PILImage

import xretrieve as xr
from tests.gallery_fakes import FakeMatcher, paint
from xretrieve.errors import XRetrieveError
from xretrieve.gallery import Gallery
from xretrieve.ranking import Hit, Ranking, thumbnail


@pytest.fixture
def gallery(tmp_path):
    for name in ("red", "green", "yellow"):
        paint(tmp_path / "p" / f"{name}.png", name if name != "green" else (0, 255, 0), (900, 300))
    return Gallery.build(FakeMatcher(), tmp_path / "p", tmp_path / "g.xr")


def test_multi_text_explains_each_sentence_and_their_mean_is_the_score(gallery):
    ranking = gallery.search(xr.MultiText(["red", "green"]), 3)
    for place in range(3):
        told = ranking.explain(place)
        assert [p["text"] for p in told["parts"]] == ["red", "green"]
        assert sum(p["score"] for p in told["parts"]) / 2 == pytest.approx(told["score"], abs=1e-6)
    red = ranking.explain(ranking.ids.index("red.png"))["parts"]
    assert red[0]["score"] == pytest.approx(1) and red[1]["score"] == pytest.approx(0)


def test_image_text_explains_both_parts(gallery, tmp_path):
    told = gallery.search(xr.ImageText(tmp_path / "p" / "red.png", "green"), 1).explain(0)
    assert [p["kind"] for p in told["parts"]] == ["image", "text"] and told["id"] == "yellow.png"
    assert all(p["score"] == pytest.approx(0.5**0.5, abs=1e-5) for p in told["parts"])
    with pytest.raises(XRetrieveError, match=r"explain\(5\).*1 hits|explain\(5\)"):
        gallery.search("red", 1).explain(5)


def test_json_survives_a_round_trip(gallery):
    ranking = gallery.search(xr.MultiText(["red", "green"]), 9)
    value = json.loads(json.dumps(ranking.to_json()))
    assert value["query"] == {"kind": "multi-text", "texts": ["red", "green"]} and "all 3 shown" in value["note"]
    assert [h["id"] for h in value["hits"]] == ranking.ids and value["hits"][0]["score"] == ranking.scores[0]


def test_trec_fields_hold_no_white_space():
    lines = Ranking([Hit(1, "my dog\t100%.jpg", 0.1)]).to_trec("a b", "q 1").splitlines()
    assert lines == ["q%201 Q0 my%20dog%09100%25.jpg 1 0.1 a%20b"]


def test_html_holds_its_pictures_and_escapes_what_is_written(gallery, tmp_path):
    ranking = gallery.search(xr.Text("<script>alert(1)</script> red"), 2)
    (tmp_path / "p" / "red.png").unlink()
    page = ranking.to_html(tmp_path / "out" / "page.html").read_text()
    assert "<script>" not in page and "&lt;script&gt;" in page
    assert page.count("data:image/jpeg;base64,") == 1 and "no picture to show" in page, (
        "a vanished picture is said, not fatal"
    )
    assert "http" not in page, "nothing is loaded from elsewhere"
    assert (
        "data:image"
        in gallery.search(xr.Image(PILImage.new("RGB", (5, 5), "red")), 1).to_html(tmp_path / "i.html").read_text()
    )


def test_thumbnails_are_small_and_keep_their_shape(tmp_path):
    data = thumbnail(paint(tmp_path / "x.png", "red", (1000, 500)))
    image = PILImage.open(io.BytesIO(base64.b64decode(data.split(",")[1])))
    assert image.size == (320, 160)
