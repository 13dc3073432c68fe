"""`replay` refuses what does not fit with one clear error, and reads only what is real."""

from __future__ import annotations

import numpy as np
import pytest

import xretrieve as xr
from xretrieve.errors import XRetrieveError
from xretrieve.heads import create_head
from xretrieve.interop.parts import build_words, published_names


def example(family: str = "sgr") -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    widths = {"vocab_size": 9, "word_dim": 4, "embed_dim": 6}
    more = {} if family == "scan" else {"sim_dim": 5, "region_norm": "index", "regions": 3}
    head = create_head(family, image_dim=7, text_dim=6, dim=6, **more)
    state = {k: v.detach().numpy().copy() for k, v in published_names(head, build_words(widths)).items()}
    rng = np.random.default_rng(0)
    inputs = {
        "images": rng.normal(size=(2, 3, 7)).astype(np.float32),
        "captions": np.array([[1, 5, 2], [1, 2, 0], [1, 8, 2]]),
        "lengths": np.array([3, 2, 3]),
    }
    return state, inputs


@pytest.mark.parametrize("family", ["scan", "sgr", "saf", "tshsr"])
def test_scores_come_as_images_by_captions(family):
    found = xr.interop.replay(family, *example(family))
    assert found["scores"].shape == (2, 3) and found["img_emb"].shape == (2, 3, 6)
    assert "loss_max" not in found and ("logits" in found) == (family != "scan")


@pytest.mark.parametrize("family", ["scan", "sgr", "saf", "tshsr"])
def test_one_image_gives_all_but_what_training_makes_of_several(family):
    state, inputs = example(family)
    whole = xr.interop.replay(family, state, inputs)
    for first in (1, 3):
        captions = {key: inputs[key][:first] for key in ("captions", "lengths")}
        found = xr.interop.replay(family, state, {"images": inputs["images"][:1], **captions})
        assert set(found) == {name for name in whole if not name.startswith("train/")}
        np.testing.assert_allclose(found["scores"], whole["scores"][:1, :first], atol=1e-6)


def test_ids_beyond_a_caption_are_ignored():
    state, inputs = example()
    want = xr.interop.replay("sgr", state, inputs)["scores"]
    inputs["captions"][1, 2] = 777  # not even a word
    np.testing.assert_array_equal(xr.interop.replay("sgr", state, inputs)["scores"], want)


def without(key):
    return lambda state, inputs: (state.pop(key, None), inputs.pop(key, None))


def changed(key, value):
    return lambda state, inputs: (inputs if key in inputs else state).__setitem__(key, value)


@pytest.mark.parametrize(
    ("family", "options", "spoil", "says"),
    [
        ("sgrr", {}, None, "unknown family 'sgrr'; did you mean 'sgr'"),
        ("saf", {}, None, "no 'sim_enc.SAF_module.*looks like sgr"),
        ("scan", {}, None, "a scan model has no 'sim_enc.*looks like sgr"),
        ("sgr", {}, without("sim_enc.sim_eval_w.bias"), "no 'sim_enc.sim_eval_w.bias'"),
        ("sgr", {}, without("img_enc.fc.weight"), "no 'img_enc.fc.weight'"),
        ("sgr", {}, changed("sim_enc.sim_eval_w.weight", np.zeros((1, 4))), r"sim_eval_w.weight has shape \(1, 4\)"),
        ("sgr", {}, changed("sim_enc.extra", np.zeros(2)), "a sgr model has no 'sim_enc.extra'"),
        ("sgr", {}, changed("img_enc.fc.bias", np.full(6, np.nan)), "img_enc.fc.bias holds NaN"),
        ("sgr", {}, changed("img_enc.fc.bias", "words"), "not an array of numbers"),
        ("sgr", {}, without("lengths"), "inputs: no 'lengths'"),
        ("sgr", {}, changed("images", np.zeros((2, 3, 8), np.float32)), r"images has shape \(2, 3, 8\)"),
        ("sgr", {}, changed("lengths", np.array([3, 0, 3])), "lengths must lie between 1 and 3"),
        ("sgr", {}, changed("captions", np.full((3, 3), 9)), "word id 9, the vocabulary has 9"),
        ("sgr", {"lamda_softmax": 9}, None, "did you mean 'lambda_softmax'"),
        ("sgr", {"direction": "up"}, None, "unknown stream 'up'"),
        ("sgr", {"sim_dim": 8}, None, "option sim_dim is 8"),
        ("sgr", {"model": "saf"}, None, "option model is 'saf'"),
        ("sgr", {"eps": 1e-5}, None, "eps=1e-05 cannot be replayed"),
        ("sgr", {"region_norm": "none"}, None, "option region_norm is 'none'"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_one_clear_error(family, options, spoil, says):
    state, inputs = example()
    if spoil is not None:
        spoil(state, inputs)
    with pytest.raises(XRetrieveError, match=says):
        xr.interop.replay(family, state, inputs, options)
