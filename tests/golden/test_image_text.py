"""Every stored array of the image-text family, recomputed from its parameters and inputs."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
import pytest

import xretrieve as xr

FILES = ("scan", "sgr", "sgr_i2t", "saf", "tshsr")
SCORES = {"scores", "i2t_scores", "t2i_scores"}


@cache
def arrays(path: Path) -> dict[str, np.ndarray]:
    with np.load(path) as stored:
        return {key: stored[key] for key in stored.files}


def part(stored: dict[str, np.ndarray], prefix: str) -> dict[str, np.ndarray]:
    return {key[len(prefix) :]: value for key, value in stored.items() if key.startswith(prefix)}


def replayed(stored: dict[str, np.ndarray], **changes) -> dict[str, np.ndarray]:
    options = part(stored, "opt/") | changes
    return xr.interop.replay(str(options["model"]), part(stored, "state/"), part(stored, "in/"), options)


@pytest.fixture(params=FILES)
def case(request, golden):
    stored = arrays(golden / f"image_text_{request.param}.npz")
    return request.param, stored, replayed(stored)


def tolerance(file: str, name: str) -> float:
    if name.startswith("loss") or "_loss" in name:
        return 1e-4
    return 1e-5 if name in SCORES and not (file == "sgr_i2t" and name == "t2i_scores") else 5e-5


def test_outputs_losses_and_intermediates(case):
    file, stored, found = case
    for name, want in part(stored, "out/").items():
        assert found[name].shape == want.shape, name
        np.testing.assert_allclose(found[name], want, rtol=0, atol=tolerance(file, name), err_msg=f"{file} {name}")


def test_gradients_of_every_parameter(case):
    file, stored, found = case
    for prefix in ("grad/", "grad_sum/", "i2t_grad/"):
        wanted = part(stored, prefix)
        largest = max((np.abs(w).max() for w in wanted.values()), default=0.0)
        for name, want in wanted.items():
            atol = 1e-4 * np.abs(want).max() + 1e-5 * largest
            np.testing.assert_allclose(found[prefix + name], want, rtol=0, atol=atol, err_msg=f"{file} {prefix}{name}")


def test_training_pass_and_the_statistics_it_leaves(case):
    file, stored, found = case
    for name, want in part(stored, "train/").items():
        if name.endswith("num_batches_tracked"):
            assert found[f"train/{name}"] == want, name
        else:
            atol = 5e-5 if name == "scores" else 1e-5
            np.testing.assert_allclose(found[f"train/{name}"], want, rtol=0, atol=atol, err_msg=f"{file} {name}")


def test_scan_in_all_its_settings(golden):
    stored = arrays(golden / "image_text_scan.npz")
    state, inputs, grid = part(stored, "state/"), part(stored, "in/"), part(stored, "grid/")
    assert len(grid) == 90
    for name, want in grid.items():
        direction, norm, pooling, numbers = name.split("/")
        softmax, lse = (float(text[3 if text.startswith("lse") else 2 :]) for text in numbers.split("_"))
        options = {"direction": direction, "feature_norm": norm, "pooling": pooling, "lambda_softmax": softmax}
        found = xr.interop.replay("scan", state, inputs, options | {"lambda_lse": lse})["scores"]
        np.testing.assert_allclose(found, want, rtol=0, atol=1e-5 * max(1, np.abs(want).max()), err_msg=name)


def test_tshsr_with_concatenated_streams(golden):
    stored = arrays(golden / "image_text_tshsr.npz")
    found = replayed(stored, fusion="concat", gradients=False)
    for name, want in part(stored, "alt/concat_").items():
        np.testing.assert_allclose(found[name], want, rtol=0, atol=1e-5 if name == "scores" else 5e-5)


@pytest.mark.parametrize(("file", "stream"), [("sgr", "t2i"), ("sgr_i2t", "i2t")])
@pytest.mark.parametrize("options", [{"context": "cluster", "gate": "vector"}, {"context": "cluster", "gate": "scalar"},
                                     {"context": "mean", "gate": "vector"}, {"context": "none"}])  # fmt: skip
def test_with_the_gate_at_one_a_stream_of_tshsr_is_sgr(golden, file, stream, options):
    stored = arrays(golden / f"image_text_{file}.npz")
    generator = np.random.default_rng(0)
    state, s = {}, 32
    for key, value in part(stored, "state/").items():
        for name in ("sim_tranloc_w", "SGR_module", "sim_eval_w"):
            ours = "levels" if name == "SGR_module" else name
            key = key.replace(f"sim_enc.{name}", f"sim_enc.{stream}.{ours}")
        state[key] = value
    for k, clusters in enumerate((4, 2, 1)):
        level = f"sim_enc.{stream}.levels.{k}"
        shapes = {}
        if options["context"] == "cluster":
            shapes |= {"context_assign_w": (clusters, s)} | ({"context_key_w": (s, s)} if clusters > 1 else {})
        for name, shape in shapes.items():
            state[f"{level}.{name}.weight"] = generator.normal(size=shape).astype(np.float32)
            state[f"{level}.{name}.bias"] = generator.normal(size=shape[0]).astype(np.float32)
        if options["context"] != "none":
            rows = 1 if options["gate"] == "scalar" else s
            state[f"{level}.gate_w.weight"] = np.zeros((rows, 2 * s), np.float32)
            state[f"{level}.gate_w.bias"] = np.full(rows, 50, np.float32)
    found = xr.interop.replay("tshsr", state, part(stored, "in/"), {"direction": stream, **options})
    np.testing.assert_allclose(found["scores"], stored["out/scores"], rtol=0, atol=1e-5)
    np.testing.assert_allclose(found["logits"], stored["out/logits"], rtol=0, atol=5e-5)
