"""Every stored array of the multi-query family, recomputed from its parameters and inputs."""

from __future__ import annotations

import numpy as np
import pytest

import xretrieve as xr
from tests.golden.test_image_text import arrays, part

FILES = ("hmrn_it", "hmrn_ti", "drilldown")
EXACT = {"slots", "ranks", "recall", "mean_rank", "median_rank", "mean_ranks", "round_weights"}


def replayed(stored, inputs=None, state=None, **changes):
    options = part(stored, "opt/") | changes
    family = str(options["model"]).lower()
    state, inputs = part(stored, "state/") | (state or {}), part(stored, "in/") | (inputs or {})
    return xr.interop.replay(family, state, inputs, options)


def scoring_only(stored, **changes):
    stored = {key: value for key, value in stored.items() if key != "opt/loss_pairs"}
    return replayed(stored, **changes)


@pytest.fixture(params=FILES)
def case(request, golden):
    stored = arrays(golden / f"multi_query_{request.param}.npz")
    return stored, replayed(stored)


def tolerance(name: str) -> float:
    last = name.split("/")[-1]
    if last in EXACT:
        return 1e-9
    if name.startswith(("loss", "train/loss", "policy/train/loss", "round")) or "logit" in last:
        return 1e-4
    if last == "rewards":
        return 5e-5
    return 3e-5 if last in ("reasoning_rounds", "reasoning") else 1e-5


def compare(found, wanted, prefix=""):
    assert wanted, prefix
    for name, want in wanted.items():
        got = found[prefix + name]
        assert got.shape == want.shape, name
        np.testing.assert_allclose(got, want, rtol=0, atol=tolerance(prefix + name), err_msg=prefix + name)


def test_outputs_of_every_round_intermediates_ranks_and_losses(case):
    stored, found = case
    wanted = part(stored, "out/")
    norm = wanted.pop("grad_norm", None)
    compare(found, wanted)
    if norm is not None:
        np.testing.assert_allclose(found["grad_norm"], norm, rtol=1e-3)


def test_gradients_of_every_parameter(case):
    stored, found = case
    for prefix in ("grad/", "train/grad/", "policy/grad/"):
        wanted = part(stored, prefix)
        largest = max((np.abs(w).max() for w in wanted.values()), default=0.0)
        for name, want in wanted.items():
            atol = 1e-4 * np.abs(want).max() + 3e-5 * largest
            np.testing.assert_allclose(found[prefix + name], want, rtol=0, atol=atol, err_msg=prefix + name)
    assert part(stored, "grad/")


def test_training_pass_and_the_statistics_it_leaves(case):
    stored, found = case
    wanted = {k: v for k, v in part(stored, "train/").items() if not k.startswith("grad/")}
    norm = wanted.pop("grad_norm", None)
    for name in [name for name in wanted if name.endswith("num_batches_tracked")]:
        assert found[f"train/{name}"] == wanted.pop(name), name
    if norm is not None:
        np.testing.assert_allclose(found["train/grad_norm"], norm, rtol=1e-3)
        compare(found, wanted, "train/")


@pytest.mark.parametrize("file", FILES)
def test_images_with_fewer_regions_and_shorter_sets(golden, file):
    stored = arrays(golden / f"multi_query_{file}.npz")
    found = scoring_only(stored, inputs=part(stored, "ragged/in/"))
    compare(found, part(stored, "ragged/out/"))
    sizes = stored["ragged/in/set_sizes"]
    short = int(sizes.argmin())
    np.testing.assert_array_equal(found["scores"][sizes[short] :, :, short],
                                  np.repeat(found["scores"][sizes[short] - 1, :, short][None],
                                            len(found["scores"]) - sizes[short], 0))  # fmt: skip


@pytest.mark.parametrize("file", ["hmrn_it", "hmrn_ti"])
def test_region_norms_and_the_horizon_of_the_round_weights(golden, file):
    stored = arrays(golden / f"multi_query_{file}.npz")
    turns = stored["in/captions"].shape[1]
    compare(scoring_only(stored, weight_horizon=turns), part(stored, "horizon_T/out/"))
    compare(scoring_only(stored, region_norm="none"), part(stored, "norm_none/out/"))
    state = part(stored, "norm_feature/state/")
    compare(scoring_only(stored, state=state, region_norm="feature"), part(stored, "norm_feature/out/"))


def test_the_ensemble_averages_the_two_directions(golden):
    both = [arrays(golden / f"multi_query_hmrn_{name}.npz") for name in ("it", "ti")]
    mean = np.mean([scoring_only(stored)["scores"] for stored in both], 0)
    np.testing.assert_allclose(mean, both[1]["ensemble/out/scores"], rtol=0, atol=1e-5)


def test_simple_fusions_and_the_policy(golden):
    stored = arrays(golden / "multi_query_drilldown.npz")
    found = replayed(stored)
    compare(found, part(stored, "fusion/out/"), "fusion/out/")
    compare(found, part(stored, "policy/out/"), "policy/out/")
    compare(found, part(stored, "policy/train/"), "policy/train/")


@pytest.mark.parametrize("file", FILES)
def test_one_image_one_set_one_sentence(golden, file):
    stored = arrays(golden / f"multi_query_{file}.npz")
    want = scoring_only(stored)["scores"][0, 2, 1]
    inputs = {"images": stored["in/images"][2:3], "target": np.array([0])}
    inputs |= {key: stored[f"in/{key}"][1:2, :1] for key in ("captions", "captions_mask")}
    found = scoring_only(stored, inputs=inputs)["scores"]
    assert found.shape == (1, 1, 1)
    np.testing.assert_allclose(found[0, 0, 0], want, rtol=0, atol=1e-6)
