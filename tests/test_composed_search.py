"""`ImageText` queries over a gallery: any head answers from the plain index, and the weights are explained."""

from __future__ import annotations

import json

import pytest
import torch
from PIL import Image

import xretrieve as xr
from xretrieve.backbones import create_backbone
from xretrieve.cli.main import main
from xretrieve.matcher import Matcher, build_head

HEADS = ("progressive", "combiner", "tirg", "dqu", "sum", "constant", "image_only", "text_only", "dual")


def build(head, tmp_path, **options):
    torch.manual_seed(0)
    image = create_backbone("timm:test_resnet", modality="image", pretrained=False, size=32, mean=0.5, std=0.5)
    text = create_backbone("words", captions=["in blue please"], min_count=1, word_dim=4, dim=4)
    matcher = Matcher(image, text, build_head(head, image, text, **{"dim": 8, **options}))
    folder = tmp_path / "pictures"
    folder.mkdir()
    for number, colour in enumerate(("red", "green", "blue", "white")):
        Image.new("RGB", (40, 40), colour).save(folder / f"{number}.png")
    run = matcher.save(tmp_path / "run")
    return xr.load(run), folder


@pytest.mark.parametrize("head", HEADS)
def test_a_composed_query_is_answered_by_the_index_and_its_weights_are_told(tmp_path, head):
    matcher, folder = build(head, tmp_path)
    gallery = matcher.index(folder, out=tmp_path / "gallery.xr")
    query = xr.ImageText(folder / "0.png", "in blue")
    ranking = gallery.search(query, k=3)
    vector = matcher.encode_query(query).pooled[0]
    wanted = matcher.encode_images([hit.path for hit in ranking]).pooled @ vector
    assert ranking.scores == pytest.approx(wanted.tolist(), abs=1e-5)
    assert "0.png" not in [hit.id for hit in ranking]  # the reference itself is left out
    parts = ranking.explain(0)["parts"]
    assert [part["kind"] for part in parts] == ["image", "text"]
    assert sum(part["weight"] for part in parts) == pytest.approx(1, abs=1e-5)
    if head in ("image_only", "text_only"):
        assert parts[0]["weight"] == (head == "image_only")


def test_the_command_line_searches_and_explains_with_a_picture_and_a_change(tmp_path, capsys):
    matcher, folder = build("combiner", tmp_path)
    matcher.index(folder, out=tmp_path / "gallery.xr")
    query = [str(tmp_path / "gallery.xr"), "in blue", "--image", str(folder / "0.png")]
    capsys.readouterr()
    assert main(["search", *query, "-k", "2", "--explain"]) == 0
    assert " %)" in capsys.readouterr().out.replace("\n", " ")
    assert main(["search", *query, "-k", "2", "--explain", "--json"]) == 0
    hits = json.loads(capsys.readouterr().out)["hits"]
    assert len(hits) == 2 and 0 < hits[0]["parts"][1]["weight"] < 1
    assert main(["explain", *query]) == 0
    told = capsys.readouterr().out
    assert "weight" in told and "in blue" in told


def test_weights_are_told_for_each_attribute_that_is_read(tmp_path, capsys):
    matcher, folder = build("progressive", tmp_path, residual=False, attributes={"colour": ["red", "blue"]})
    gallery = matcher.index(folder, out=tmp_path / "gallery.xr")
    query = xr.ImageText(folder / "0.png", "in blue")
    image, text = gallery.search(query, k=2).explain(0)["parts"]
    assert set(image["attributes"]) == {"other", "colour"}
    for name, share in image["attributes"].items():
        assert share + text["attributes"][name] == pytest.approx(1, abs=1e-5)
    capsys.readouterr()
    assert main(["explain", str(tmp_path / "gallery.xr"), "in blue", "--image", str(folder / "0.png")]) == 0
    assert "colour 50 %" in capsys.readouterr().out
    alike = gallery.search(xr.Image(folder / "0.png"), k=2)  # a picture alone asks with what is read off it
    assert alike[0].id == "0.png" and alike[0].score == pytest.approx(float(
        matcher.head.image_query(matcher.encode_images([folder / "0.png"])).pooled[0]
        @ matcher.encode_images([folder / "0.png"]).pooled[0]
    ), abs=1e-5)  # fmt: skip
