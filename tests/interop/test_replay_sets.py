"""`replay` of query sets refuses what does not fit with one clear error, and reads only what is real."""

from __future__ import annotations

import numpy as np
import pytest

import xretrieve as xr
from tests.interop.set_models import state_of
from xretrieve.errors import XRetrieveError


def example(family: str = "hmrn") -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    state = {key: value.numpy() for key, value in state_of(family).items()}
    rng = np.random.default_rng(0)
    ids = np.zeros((4, 2, 3), np.int64)
    ids[..., :2] = [[[4, 2], [5, 2]], [[6, 2], [7, 2]], [[7, 2], [4, 2]], [[5, 2], [5, 2]]]
    inputs = {"images": rng.normal(size=(3, 3, 7)).astype(np.float32), "captions": ids, "captions_mask": ids > 0}
    return state, inputs


@pytest.mark.parametrize("family", ["hmrn", "drilldown"])
def test_scores_come_as_rounds_by_images_by_sets(family):
    found = xr.interop.replay(family, *example(family))
    assert found["scores"].shape == (2, 3, 4) and found["img_emb"].shape == (3, 3, 6)
    assert "loss" not in found and "ranks" not in found
    more = xr.interop.replay(family, *example(family), {"loss_pairs": 3, "gradients": False})
    assert more["loss"] > 0 and not any(key.startswith("grad/") for key in more)


def test_one_image_gives_all_but_what_training_makes_of_several():
    state, inputs = example()
    one = {key: value[:1] for key, value in inputs.items()}
    found = xr.interop.replay("hmrn", state, one, {"loss_pairs": 4, "gradients": False})
    assert found["scores"].shape == (2, 1, 1) and "loss" in found and not any(k.startswith("train/") for k in found)


def test_an_empty_sentence_is_an_absent_one():
    state, inputs = example()
    want = xr.interop.replay("hmrn", state, inputs | {"set_sizes": np.array([2, 1, 2, 2])})["scores"]
    inputs["captions_mask"][1, 1] = False
    got = xr.interop.replay("hmrn", state, inputs)["scores"]
    np.testing.assert_array_max_ulp(got, want, maxulp=4)  # products of other shapes round otherwise on some processors
    np.testing.assert_array_equal(want[1, :, 1], want[0, :, 1])


def spoiled(key, value):
    return lambda state, inputs: inputs.__setitem__(key, value)


@pytest.mark.parametrize(
    ("family", "options", "spoil", "says"),
    [
        ("hmrn", {}, lambda s, i: s.pop("sim_enc.sim_w.bias"), "no 'sim_enc.sim_w.bias'"),
        ("drilldown", {}, lambda s, i: s.pop("sim_enc.updater.l2.bias"), "no 'sim_enc.updater.l2.bias'"),
        ("hmrn", {}, lambda s, i: i.pop("captions_mask"), "inputs: no 'captions_mask'"),
        ("hmrn", {}, spoiled("captions", np.full((4, 2, 3), 9)), "word id 9, the vocabulary has 8"),
        ("hmrn", {}, spoiled("captions_mask", np.array([[[False, True, True]] * 2] * 4)), "on the first words"),
        ("hmrn", {}, spoiled("captions_mask", np.zeros((4, 2, 3), bool)), "every query set needs a sentence"),
        ("hmrn", {}, spoiled("images", np.zeros((3, 3, 8))), r"images has shape \(3, 3, 8\)"),
        ("hmrn", {}, spoiled("images", np.ones((3, 4, 7))), "trained with 3 regions per image, found 4"),
        ("hmrn", {}, spoiled("region_mask", np.array([[1, 1, 1], [0, 0, 0], [1, 1, 1]])), "image 1 .* no region"),
        ("hmrn", {"leaky_slope": 0.2}, None, "leaky_slope=0.2 cannot be replayed"),
        ("hmrn", {"tao": 40}, None, "did you mean 'tau'"),
        ("hmrn", {"direction": "up"}, None, "unknown stream 'up'"),
        ("hmrn", {"region_norm": "nope"}, None, "unknown region_norm"),
        ("drilldown", {"model": "hmrn"}, None, "option model is 'hmrn'"),
        ("drilldown", {"slots": 0}, None, "slots must be at least 1"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_one_clear_error(family, options, spoil, says):
    state, inputs = example(family)
    if spoil is not None:
        spoil(state, inputs)
    with pytest.raises(XRetrieveError, match=says):
        xr.interop.replay(family, state, inputs, options)
