"""What ``precision: auto`` means on a device: the low precision that it computes natively, else float32.

bf16 where the device multiplies bf16 numbers (CUDA from compute capability 8.0; x86 with AMX; x86 with AVX512_BF16 and
ARM with the bf16 extension where a product is indeed quicker), fp16 on older CUDA devices with tensor cores, float32
elsewhere. Where a CPU only emulates bf16, a step takes many times as long as in float32.
"""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from torch.nn.functional import conv2d, linear

from xretrieve.errors import unknown

Precision = Literal["auto", "32", "bf16", "fp16"]
NAMES: tuple[str, ...] = get_args(Precision)
DTYPES = {"32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
WORDS = {"32": "float32", "bf16": "bf16", "fp16": "fp16"}
VARIABLE = "XRETRIEVE_PRECISION"
WINS = 0.8  # of the time in float32: above it bf16 instructions do not pay

# The instructions that multiply numbers of a low precision, as Linux names them (the last ones are ARM's), and the
# values of ONEDNN_MAX_CPU_ISA under which oneDNN does not use them.
_FLAGS = {"bf16": ("amx_bf16", "avx512_bf16", "bf16"), "fp16": ("amx_fp16", "avx512_fp16")}
_PLAIN = ("sse41", "avx", "avx2", "avx2_vnni", "avx2_vnni_2", "avx512_core", "avx512_core_vnni")
_VECTORS = (*_PLAIN, "avx512_core_bf16", "avx512_core_fp16", "avx10_1_512", "avx10_2_512")
_TOO_LOW = {"avx512_bf16": _PLAIN, "amx_bf16": _VECTORS, "avx512_fp16": (*_PLAIN, "avx512_core_bf16"),
            "amx_fp16": (*_VECTORS, "avx512_core_amx", "avx10_1_512_amx")}  # fmt: skip


@dataclass(frozen=True)
class Native:
    """What a device computes natively: ``name`` is what auto means there, and ``why`` says so for people."""

    name: str
    why: str


def native(device: str | torch.device = "cpu") -> Native:
    """What ``auto`` means on a device; the variable XRETRIEVE_PRECISION (32, bf16 or fp16) decides where it is set."""
    wanted = os.environ.get(VARIABLE, "")
    if wanted not in ("", "auto"):
        return Native(check(wanted, VARIABLE), f"{VARIABLE}={wanted}")
    return computes(device)


def computes(device: str | torch.device = "cpu") -> Native:
    """As :func:`native`, by the device alone.

    AMX is trusted. Other bf16 instructions must win a product of a few milliseconds: on some Intel Xeons with
    AVX512_BF16 and no AMX it takes twice as long as in float32.
    """
    device = torch.device(device)
    if device.type == "cuda":
        return _cuda(*torch.cuda.get_device_capability(device))
    if device.type == "mps":
        return Native("32", "Apple's GPU is as quick in float32 as in fp16")
    if device.type != "cpu":
        return Native("32", f"nothing is known of {device.type} devices")
    found = of_cpu()
    times = 0.0 if found.name == "32" or "amx" in found.why else slowdown("bf16")
    if times > WINS:
        return Native("32", f"{found.why}, but a product takes {times:.1f} times as long as in float32")
    return found


def of_cpu(precision: str = "bf16") -> Native:
    """:func:`cpu_native` of this processor and its limits."""
    vectors = torch.backends.cpu.get_cpu_capability()
    return cpu_native(cpu_flags(), dict(os.environ), vectors, _onednn(precision), precision)


def _cuda(major: int, minor: int) -> Native:
    said = f"compute capability {major}.{minor}"
    if major >= 8:
        return Native("bf16", said)
    if major == 7:
        return Native("fp16", f"{said}: tensor cores for fp16, none for bf16")
    return Native("32", f"{said}: no tensor cores")


def cpu_native(
    flags: frozenset[str], environ: dict[str, str], vectors: str, onednn: bool, precision: str = "bf16"
) -> Native:
    """``precision`` if a CPU computes it natively, else ``32``.

    Args:
        flags: of the processor, as Linux names them.
        environ: ONEDNN_MAX_CPU_ISA (or DNNL_MAX_CPU_ISA) limits what oneDNN may use.
        vectors: what torch's own kernels use (``AVX512``, ``AVX2``, ...); ATEN_CPU_CAPABILITY limits it.
        onednn: whether torch hands bf16 products to oneDNN at all. It also does so where oneDNN emulates them.

    AVX-512 without AVX512_BF16 emulates bf16, and AVX_NE_CONVERT only converts to float32 and back: float32 there.
    """
    most = (environ.get("ONEDNN_MAX_CPU_ISA") or environ.get("DNNL_MAX_CPU_ISA") or "").lower()
    has = [flag for flag in _FLAGS[precision] if flag in flags]
    if not has:
        return Native("32", f"no {precision} instructions" if flags else "its instructions are not known")
    if not onednn:
        return Native("32", f"{has[0]}, but this torch computes no {precision} with oneDNN")
    if vectors in ("NO AVX", "DEFAULT", "AVX2") and has != ["bf16"]:  # ARM has other names
        return Native("32", f"{has[0]}, but torch is limited to {vectors}")
    used = [flag for flag in has if most not in _TOO_LOW.get(flag, ())]
    return Native(precision, " and ".join(used)) if used else Native(
        "32", f"{has[0]}, but oneDNN is limited to {most.upper()}")  # fmt: skip


@cache
def cpu_flags() -> frozenset[str]:
    """Instruction sets of this processor: of /proc/cpuinfo where there is one, and what torch knows of it."""
    found: set[str] = set()
    info = Path("/proc/cpuinfo")
    for line in info.read_text(errors="replace").splitlines() if info.is_file() else ():
        key, _, value = line.partition(":")
        if key.strip() in ("flags", "Features"):
            found |= set(value.split())
            break
    known: Callable[[], Any] | None = getattr(torch.cpu, "get_capabilities", None)
    if known is not None and not found:
        found |= {name for name, there in known().items() if there is True}
    return frozenset(found)


def _onednn(precision: str) -> bool:
    """Whether this torch hands products of a low precision to oneDNN."""
    try:
        asked = getattr(torch.ops.mkldnn, f"_is_mkldnn_{precision}_supported")
        return bool(torch.backends.mkldnn.is_available() and asked())
    except (AttributeError, RuntimeError):
        return False


def check(precision: str, where: str = "precision") -> str:
    """``precision`` if it is one; ``32`` may also be a number."""
    if str(precision) not in NAMES:
        raise unknown(where, str(precision), NAMES)
    return str(precision)


def resolve(precision: str, device: str | torch.device = "cpu", quiet: bool = False) -> str:
    """``32``, ``bf16`` or ``fp16``: what ``precision`` means on a device.

    One that the device only emulates, or is slower in, is obeyed; a line on stderr then says so and by how much, once
    in a process.
    """
    if check(precision) == "auto":
        return native(device).name
    if not quiet and precision != "32":
        _say(precision, str(torch.device(device)))
    return str(precision)


def every() -> list[dict[str, str]]:
    """What ``auto`` means on each device of this machine, why, and what bf16 costs where it is not native."""
    devices = ["cpu", *(f"cuda:{i}" for i in range(torch.cuda.device_count()))]
    devices += ["mps"] if torch.backends.mps.is_available() else []
    found = [(device, native(device)) for device in devices]
    return [{"device": device, "auto": WORDS[one.name], "why": one.why,
             "bf16": "" if one.name == "bf16" else told("bf16", device)} for device, one in found]  # fmt: skip


def described(precision: str, device: str | torch.device = "cpu") -> str:
    """What is used and why, for reports: ``bf16 (auto: amx_bf16)``, ``float32 (asked for)``."""
    if precision == "auto":
        found = native(device)
        return f"{WORDS[found.name]} (auto: {found.why})"
    return f"{WORDS[precision]} (asked for)"


@cache
def _say(precision: str, device: str) -> None:
    said = told(precision, device)
    if said:
        print(f"precision {precision} {said}; precision auto avoids it", file=sys.stderr, flush=True)


def told(precision: str, device: str | torch.device = "cpu") -> str:
    """What a precision costs on a device where that is more than float32, for people; else an empty text."""
    kind = torch.device(device).type
    if kind == "cuda":
        major = torch.cuda.get_device_capability(device)[0]
        emulated = major < (8 if precision == "bf16" else 7)
    else:
        emulated = kind == "cpu" and of_cpu(precision).name == "32"
    times = slowdown(precision, str(device))
    if not emulated and times < 1.1:
        return ""
    images = f", a small convolution {slowdown(precision, str(device), True):.1f} times" if emulated else ""
    what = "is only emulated on this" if emulated else "is slower than float32 on this"
    return f"{what} {kind}: a product takes {times:.1f} times{images} as long as in float32"


@cache
def slowdown(precision: str, device: str = "cpu", convolution: bool = False) -> float:
    """How many times as long a product, or a small convolution, takes as in float32; measured in milliseconds."""

    clock = (
        time.process_time if device == "cpu" else time.perf_counter
    )  # a busy machine stops the longer one more often

    def best(dtype: torch.dtype) -> float:
        made = torch.Generator().manual_seed(0)
        x = torch.randn(2, 32, 24, 24, generator=made) if convolution else torch.randn(256, 256, generator=made)
        weight = torch.randn(32, 32, 3, 3, generator=made) if convolution else torch.randn(256, 256, generator=made)
        x, weight, took = x.to(device, dtype), weight.to(device, dtype), []
        function = partial(conv2d, padding=1) if convolution else linear
        for _ in range(8):
            start = clock()
            float(function(x, weight).flatten()[0])  # waits for a GPU too
            took.append(clock() - start)
        return min(took[1:])

    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # several wait for each other on a busy machine, and waiting counts as work
    try:
        with torch.inference_mode():
            return best(DTYPES[precision]) / best(torch.float32)
    finally:
        torch.set_num_threads(threads)


@contextlib.contextmanager
def scoring_in(matcher: Any, precision: str) -> Iterator[None]:
    """Let a matcher score in ``precision`` for a while; an unknown one is an error."""
    own, matcher.precision = matcher.precision, check(precision)
    try:
        yield
    finally:
        matcher.precision = own
