"""What `auto` means: a table of devices and instruction sets, limits of a process, and the one line about emulation."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import torch

from xretrieve.errors import XRetrieveError
from xretrieve.utils import precision
from xretrieve.utils.precision import Native, cpu_native, native, resolve

LIMITS = {"ATEN_CPU_CAPABILITY": "avx2", "ONEDNN_MAX_CPU_ISA": "AVX2", "DNNL_MAX_CPU_ISA": "AVX2"}


@pytest.fixture(autouse=True)
def _by_the_device(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("XRETRIEVE_PRECISION", raising=False)
    precision.slowdown.cache_clear()
    precision._say.cache_clear()


@pytest.mark.parametrize(
    ("flags", "environ", "vectors", "onednn", "name"),
    [
        ("avx2 fma", {}, "AVX2", False, "32"),
        ("avx512f avx512_vnni", {}, "AVX512", True, "32"),  # torch says yes, oneDNN emulates
        ("avx2 avx_vnni avx_ne_convert", {}, "AVX2", True, "32"),  # only converts
        ("avx512f avx512_bf16", {}, "AVX512", True, "bf16"),
        ("avx512f avx512_bf16 amx_bf16 amx_tile", {}, "AVX512", True, "bf16"),
        ("avx512f avx512_bf16", {"ONEDNN_MAX_CPU_ISA": "AVX512_CORE_BF16"}, "AVX512", True, "bf16"),
        ("avx512f avx512_bf16", {"ONEDNN_MAX_CPU_ISA": "AVX512_CORE_VNNI"}, "AVX512", True, "32"),
        ("avx512f avx512_bf16", {"DNNL_MAX_CPU_ISA": "avx2"}, "AVX512", True, "32"),
        ("avx512f amx_bf16", {"ONEDNN_MAX_CPU_ISA": "AVX512_CORE_BF16"}, "AVX512", True, "32"),
        ("avx512f avx512_bf16", {}, "AVX2", True, "32"),  # ATEN_CPU_CAPABILITY
        ("avx512f avx512_bf16", {}, "AVX512", False, "32"),  # torch without oneDNN
        ("avx512f avx512_bf16", {}, "NO AVX", True, "32"),
        ("fp asimd bf16", {}, "DEFAULT", True, "bf16"),
        ("fp asimd bf16 sve", {}, "SVE256", True, "bf16"),
        ("fp asimd", {}, "NO AVX", True, "32"),
        ("", {}, "", True, "32"),
    ],
)
def test_a_cpu_computes_bf16_only_with_instructions_that_multiply_it(flags, environ, vectors, onednn, name) -> None:
    found = cpu_native(frozenset(flags.split()), environ, vectors, onednn)
    assert found.name == name and found.why


@pytest.mark.parametrize(("major", "minor", "name"), [(6, 1, "32"), (7, 0, "fp16"), (7, 5, "fp16"), (8, 0, "bf16"),
                                                      (9, 0, "bf16")])  # fmt: skip
def test_cuda_goes_by_its_compute_capability(monkeypatch, major: int, minor: int, name: str) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (major, minor))
    found = native("cuda:0")
    assert found.name == name and f"{major}.{minor}" in found.why


@pytest.mark.parametrize(("times", "name"), [(0.5, "bf16"), (1.0, "32"), (1.9, "32")])
def test_avx512_bf16_must_win_a_product(monkeypatch, times: float, name: str) -> None:
    monkeypatch.setattr(precision, "of_cpu", lambda: Native("bf16", "avx512_bf16"))
    monkeypatch.setattr(precision, "slowdown", lambda *_: times)
    assert native("cpu").name == name
    monkeypatch.setattr(precision, "of_cpu", lambda: Native("bf16", "amx_bf16 and avx512_bf16"))
    assert native("cpu").name == "bf16"  # trusted, not measured


def test_the_variable_decides_and_a_wrong_one_is_named(monkeypatch) -> None:
    monkeypatch.setenv("XRETRIEVE_PRECISION", "bf16")
    assert resolve("auto") == "bf16" and resolve("32") == "32"
    monkeypatch.setenv("XRETRIEVE_PRECISION", "bf61")
    with pytest.raises(XRetrieveError, match="unknown XRETRIEVE_PRECISION 'bf61'; did you mean 'bf16'"):
        resolve("auto")
    with pytest.raises(XRetrieveError, match="unknown precision 'half'"):
        resolve("half")


def test_an_emulated_precision_is_obeyed_with_exactly_one_line(monkeypatch, capsys) -> None:
    monkeypatch.setattr(precision, "of_cpu", lambda *_: Native("32", "no bf16 instructions"))
    monkeypatch.setattr(precision, "slowdown", lambda name, device="cpu", convolution=False: 40.0 if convolution else 6)
    assert [resolve("bf16"), resolve("bf16"), resolve("32"), resolve("auto")] == ["bf16", "bf16", "32", "32"]
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and "only emulated" in said and "6.0 times" in said and "40.0 times" in said


def test_a_native_precision_that_is_quicker_is_taken_without_a_word(monkeypatch, capsys) -> None:
    monkeypatch.setattr(precision, "of_cpu", lambda *_: Native("bf16", "amx_bf16"))
    monkeypatch.setattr(precision, "slowdown", lambda *_: 0.2)
    assert resolve("bf16") == "bf16" and capsys.readouterr().err == ""


def test_the_factor_is_measured_in_milliseconds() -> None:
    assert 0 < precision.slowdown("bf16") < 1000
    assert precision.slowdown("32") == pytest.approx(1, rel=3)


def test_a_process_that_is_limited_to_avx2_computes_in_float32() -> None:
    code = "from xretrieve.utils.precision import native, resolve; print(native().name, resolve('bf16'))"
    environ = {k: v for k, v in os.environ.items() if k != "XRETRIEVE_PRECISION"} | LIMITS
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environ, check=True)
    assert done.stdout.split() == ["32", "bf16"]
    assert done.stderr.count("precision bf16 is only emulated") == 1 and done.stderr.count("\n") == 1
