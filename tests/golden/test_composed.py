"""Every stored array of the composed heads, recomputed from its parameters and inputs."""

from __future__ import annotations

import numpy as np
import pytest

import xretrieve as xr
from tests.golden.test_image_text import arrays, part

FILES = ("combiner", "tirg", "dqu")


@pytest.fixture(params=FILES)
def stored(request, golden):
    return arrays(golden / f"composed_{request.param}.npz")


def replayed(stored, inputs=None, **changes):
    options = part(stored, "opt/") | changes
    given = part(stored, "in/") if inputs is None else inputs
    return xr.interop.replay(str(options["model"]), part(stored, "state/"), given, options)


def compare(found, wanted, prefix=""):
    assert wanted
    for name, want in wanted.items():
        got = found[prefix + name]
        assert got.shape == want.shape, name
        atol = 1e-5 * max(1.0, float(np.abs(want).max()))
        np.testing.assert_allclose(got, want, rtol=0, atol=atol, err_msg=prefix + name)


def test_outputs_and_the_loss(stored):
    compare(replayed(stored), part(stored, "out/"))


def test_gradients_of_every_parameter_and_input(stored):
    wanted = part(stored, "grad/")
    assert {"in/image", "in/text", "in/target"} < set(wanted)
    compare(replayed(stored), wanted, "grad/")


def test_a_batch_of_one(stored):
    found = replayed(stored, part(stored, "one/in/"))
    compare(found, part(stored, "one/out/"))
    assert found["loss"] == 0 and not any(key.startswith("train/") for key in found)


def test_tirg_in_training_mode_and_the_statistics_it_leaves(golden):
    stored = arrays(golden / "composed_tirg.npz")
    wanted = part(stored, "train/")
    assert any("num_batches_tracked" in name for name in wanted)
    compare(replayed(stored), wanted, "train/")


def test_without_gradients_nothing_of_them_is_returned(stored):
    assert not any(key.startswith("grad/") for key in replayed(stored, gradients=False))
