"""Heat lies where the regions lie; figure and page hold what they should and open anywhere."""

import base64
import io
import re

import numpy as np
import pytest
from PIL import Image

from xretrieve.backbones.places import Layout
from xretrieve.explain.figure import figure
from xretrieve.explain.heat import colours, heat_map, overlay, shares, whole, word_values
from xretrieve.explain.page import page


def told(layout, regions, words=("<start>", "a", "$dog_", "<end>"), streams=("t2i", "i2t")):
    """An explanation with a random attention."""
    rng = np.random.default_rng(0)
    weights = {"t2i": rng.dirichlet(np.ones(regions), len(words)), "i2t": rng.dirichlet(np.ones(len(words)), regions)}
    attention = {
        "words": list(words),
        "regions": regions,
        "layout": layout.to_dict() if layout else None,
        "streams": {
            s: {"weights": weights[s].tolist(), "match": rng.random(len(weights[s])).tolist()} for s in streams
        },
        "map": {s: rng.dirichlet(np.ones(regions)).tolist() for s in streams},
    }
    return {"rank": 2, "id": "<a&b>.jpg", "score": 1.25, "parts": [], "attention": attention}


GRID = Layout((2, 3))


def test_the_hottest_cell_is_the_hottest_place():
    for place in range(6):
        heat = heat_map(GRID.to_dict(), np.eye(6)[place].tolist(), (90, 60))
        row, column = np.unravel_index(heat.argmax(), heat.shape)
        assert (row // 30, column // 30) == divmod(place, 3) and heat.max() == pytest.approx(1, abs=0.05)
        assert np.isfinite(heat).all() and heat.shape == (60, 90)


def test_even_heat_stays_even_and_what_was_cropped_off_is_not_seen():
    cropped = Layout((2, 2), (0.25, 0.0, 0.75, 1.0)).to_dict()
    heat = heat_map(cropped, [0.25] * 4, (40, 20))
    assert np.isnan(heat[:, :10]).all() and np.isnan(heat[:, 30:]).all()
    assert heat[:, 10:30] == pytest.approx(np.full((20, 20), 0.25))
    padded = heat_map(Layout((2, 2), (0.0, -0.5, 1.0, 1.5)).to_dict(), [1.0, 1.0, 0.0, 0.0], (10, 10))
    assert np.isfinite(padded).all() and padded[0, 0] > 0.7 > 0.3 > padded[-1, 0]


def test_boxes_in_pixels_and_in_shares_lie_alike():
    pixels = Layout(boxes=((0, 0, 50, 100), (50, 0, 200, 50))).to_dict()
    parts = Layout(boxes=((0, 0, 0.25, 1), (0.25, 0, 1, 0.5))).to_dict()
    for layout, picture in ((pixels, (200, 100)), (parts, (200, 100)), (pixels, None)):
        heat = heat_map(layout, [0.2, 0.8], (40, 20), picture)
        assert (heat[:, :10] == np.float32(0.2)).all() and (heat[:10, 10:] == np.float32(0.8)).all()
        assert np.isnan(heat[10:, 10:]).all(), "where no box lies nothing was looked at"
    overlapping = Layout(boxes=((0, 0, 1, 1), (0, 0, 0.5, 0.5))).to_dict()
    assert heat_map(overlapping, [0.9, 0.1], (10, 10)).min() == np.float32(0.9), "the stronger box is in front"
    assert shares([(0, 0, 30, 40)], (60, 80)).tolist() == [[0, 0, 0.5, 0.5]]


def test_colours_hide_what_is_cold_and_show_what_is_hot():
    pixels = np.asarray(colours(np.array([[0.0, 0.5, 1.0, np.nan]], np.float32)))
    assert pixels.shape == (1, 4, 4) and pixels[0, 0, :3].max() == 0 and pixels[0, 0, 3] > 100
    assert pixels[0, 2, 0] > 150 and (pixels[0, 3] == pixels[0, 0]).all()
    flat = np.asarray(colours(np.full((2, 2), 0.3, np.float32), low=0.3))
    assert np.isfinite(flat).all(), "an even heat from its lowest value on divides by nothing"


def test_an_overlay_is_small_and_has_the_pictures_shape():
    attention = told(GRID, 6)["attention"]
    png = overlay(attention, whole(attention), (500, 333))
    with Image.open(io.BytesIO(png)) as image:
        assert image.size == (64, 43) and image.mode == "RGBA"
    assert len(png) < 8000 and overlay(told(None, 6)["attention"], [0.1] * 6, (50, 50)) == b""


def test_word_values_are_a_row_of_t2i_and_a_column_of_i2t():
    attention = told(GRID, 6)["attention"]
    assert word_values(attention, "t2i", 2) == attention["streams"]["t2i"]["weights"][2]
    assert word_values(attention, "i2t", 2) == [row[2] for row in attention["streams"]["i2t"]["weights"]]


@pytest.mark.parametrize("streams", [("t2i",), ("i2t",), ("t2i", "i2t")])
@pytest.mark.parametrize("layout", [GRID, Layout(boxes=tuple((i, 0, i + 20, 30) for i in range(6)))])
@pytest.mark.parametrize("picture", [None, Image.new("RGB", (120, 80), "green")])
def test_a_figure_is_drawn_for_every_kind_of_head_and_region(streams, layout, picture):
    with Image.open(io.BytesIO(figure(told(layout, 6, streams=streams), picture, "$a$ query_{"))) as image:
        drawn = np.asarray(image.convert("RGB"))
    assert drawn.shape[1] > 900 and drawn.std() > 5
    assert (drawn[-4:] == 255).all() and (drawn[:, -4:] == 255).all(), "nothing is cut off at the edges"


def test_the_page_shows_a_heat_per_word_and_loads_nothing():
    text = page(told(GRID, 6), Image.new("RGB", (120, 80), "green"), "a <b>$dog_</b>")
    assert text.count("data:image/png") == 2 * (1 + 4) and text.count("data:image/jpeg") == 1
    assert "&lt;start&gt;" in text and "<b>" not in text and "&lt;a&amp;b&gt;.jpg" in text
    assert "http" not in text and "<script" not in text and text.count('type="radio"') == 5
    for uri in re.findall(r"data:image/png;base64,([^\"]+)", text):
        with Image.open(io.BytesIO(base64.b64decode(uri))) as image:
            assert image.size == (64, 43)
    assert "data:image/png" in page(told(GRID, 6), None, "no picture")
