"""Names of protocols of composed queries, and the published rows beside them."""

from __future__ import annotations

import pytest

from xretrieve.data.modifications import MODES
from xretrieve.errors import XRetrieveError
from xretrieve.evaluation.composed_protocols import ALIASES, USUAL, find, names, names_for
from xretrieve.evaluation.protocols import get_protocol, list_protocols
from xretrieve.evaluation.published import published_rows
from xretrieve.evaluation.published_composed import composed_rows


def test_the_names_of_the_specification_are_there() -> None:
    specified = {
        "fashion-iq/original/kept/and", "fashion-iq/original/removed/and", "fashion-iq/val-union/removed/and",
        "shoes/all/removed/single", "shoes/val-list/removed/single", "cirr/val/removed/single",
        "products/split/removed/single",
    }  # fmt: skip
    assert specified <= set(names()) and set(names()) == set(list_protocols("composed"))
    for name in names():
        protocol = get_protocol(name)
        assert protocol.name == name and protocol.task == "composed"
        assert name.split("/")[1:] == [protocol.rule, protocol.reference, protocol.mode]


def test_any_caption_mode_may_stand_last() -> None:
    for mode in MODES:
        assert get_protocol(f"fashion-iq/val-union/removed/{mode}").mode == mode
    assert get_protocol("fashion_iq/original/kept/and") == get_protocol("fashion-iq")
    with pytest.raises(XRetrieveError, match="did you mean 'both-orders'"):
        get_protocol("fashion-iq/original/kept/both-order")
    with pytest.raises(XRetrieveError, match="did you mean 'fashion-iq/original/kept/and'"):
        get_protocol("fashion-iq/orignal/kept/and")


def test_short_names_and_the_usual_ones() -> None:
    assert all(get_protocol(alias).name == full for alias, full in ALIASES.items())
    assert get_protocol(None, "shoes", 4658).name == "shoes/all/removed/single"
    assert get_protocol(None, "scenes", 100).name == "full"
    assert all(names_for(dataset)[: len(own)] == list(own) for dataset, own in USUAL.items())
    assert find("coco-5k") is None


def test_official_sizes_are_checked() -> None:
    protocol = get_protocol("fashion-iq-val")
    assert protocol.check_gallery("dress", "val", 2628) == [] and protocol.check_gallery("dress", "train", 9) == []
    assert "officially 2,628" in protocol.check_gallery("dress", "val", 2600)[0]


def test_published_rows_stay_with_their_gallery_rule() -> None:
    original, union = (published_rows("fashion_iq", p) for p in ("fashion-iq", "fashion-iq-val"))
    assert {r.name for r in original} & {r.name for r in union} == {
        "progressive paper, smaller", "progressive paper, larger", "DQU-CIR ViT-H"}  # fmt: skip
    larger = {r.name: r for r in original}["progressive paper, larger"]
    assert larger.values["dress_r10"] == 33.60 and "not known" not in larger.source
    assert published_rows("shoes", "shoes/val-list/removed/single") == [] == published_rows("products", "products")
    assert all("fashion-iq/" in row.source for row in [*original, *union])


@pytest.mark.parametrize("protocol", ["fashion-iq/original/kept/and", "fashion-iq/val-union/removed/and"])
def test_published_means_are_those_of_the_six(protocol: str) -> None:
    for row in composed_rows(protocol).values():
        six = sum(row.values[f"{c}_r{k}"] for c in ("dress", "shirt", "toptee") for k in (10, 50)) / 6
        exact = 0.02 if "sum to 54.75" in row.source else 0.0051
        assert row.values["mean"] == pytest.approx(six, abs=exact)


def test_relative_gains_of_the_paper_follow_from_the_rows() -> None:
    original, shoes = composed_rows("fashion-iq/original/kept/and"), composed_rows("shoes/all/removed/single")
    gain = [rows["progressive paper, larger"].values["mean"] / rows[best].values["mean"] - 1
            for rows, best in ((original, "DCNet RN50"), (shoes, "CLVC-Net"))]  # fmt: skip
    assert [round(100 * g, 1) for g in gain] == [24.9, 9.5]
