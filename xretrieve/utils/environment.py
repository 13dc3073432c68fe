"""What this machine has for xretrieve: packages, devices, FAISS, data, cache, hub; and what is wrong with it."""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from xretrieve.utils.files import cache_root, data_root
from xretrieve.utils.plugins import GROUPS, plugins
from xretrieve.version import __version__

# distribution: the lowest version that works, as in setup.cfg (a test keeps the two equal)
NEEDED = {
    "torch": "2.4", "torchvision": "", "numpy": "", "timm": "1.0", "open_clip_torch": "3.0", "transformers": "4.44",
    "tokenizers": "", "safetensors": "", "lightning-fabric": "2.4", "einops": "", "pillow": "10", "pyyaml": "",
    "typer": "0.12", "rich": "", "matplotlib": "", "jinja2": "", "filelock": "3.21",
    "fastapi": "0.115", "uvicorn": "", "httptools": "", "python-multipart": "", "prometheus-client": "",
}  # fmt: skip
if sys.platform != "win32":
    NEEDED["uvloop"] = ""

FAST = ("avx2", "avx_vnni", "avx_ne_convert", "avx512f", "avx512_bf16", "avx512_fp16", "amx_bf16", "amx_fp16", "asimd",
        "bf16", "sve")  # fmt: skip

# Each runs in a process of its own: a package that crashes on import must not take the report with it.
TORCH_PROBE = """
import json, torch
print(json.dumps({
    "version": torch.__version__, "cuda_build": torch.version.cuda, "threads": torch.get_num_threads(),
    "cpu_capability": torch.backends.cpu.get_cpu_capability(), "mps": torch.backends.mps.is_available(),
    "cuda": [{"name": p.name, "memory": p.total_memory, "bf16": p.major >= 8} for p in
             map(torch.cuda.get_device_properties, range(torch.cuda.device_count()))],
}))
"""
TORCHVISION_PROBE = """
import json, torch, torchvision
torchvision.ops.nms(torch.zeros(1, 4), torch.zeros(1), 0.5)
print(json.dumps({"version": torchvision.__version__}))
"""
PRECISION_PROBE = """
import json
from xretrieve.utils.precision import every
print(json.dumps(every()))
"""
FAISS_PROBE = """
import json, faiss
print(json.dumps({"version": faiss.__version__, "gpus": getattr(faiss, "get_num_gpus", lambda: 0)(),
                  "gpu_build": hasattr(faiss, "StandardGpuResources")}))
"""
PLUGIN_PROBE = """
import json
from xretrieve.utils.plugins import state
print(json.dumps({"found": state()}))
"""


@dataclass(frozen=True)
class Problem:
    """Something that is wrong: what, what to do about it, and whether xretrieve cannot work because of it."""

    what: str
    do: str
    broken: bool = False


def probe(code: str) -> tuple[dict[str, Any] | None, str]:
    """Run code that prints one JSON line in another process: what it printed, or None and why."""
    try:
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300)
    except subprocess.TimeoutExpired:
        return None, "no answer within five minutes"
    if done.returncode == 0:
        return json.loads(done.stdout.strip().splitlines()[-1]), ""
    return None, (done.stderr.strip().splitlines() or [f"the process ended with status {done.returncode}"])[-1]


def versions() -> dict[str, str | None]:
    """The installed version of each needed package; None where it is missing."""
    return {name: _version(name) for name in NEEDED}


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _older(version: str, lowest: str) -> bool:
    numbers = [[int(n) for n in re.findall(r"\d+", v.partition("+")[0])] for v in (version, lowest)]
    return numbers[0] < numbers[1]


def package_problems(found: dict[str, str | None]) -> list[Problem]:
    """Packages that are missing or too old."""
    problems = []
    for name, version in found.items():
        lowest = NEEDED[name]
        wanted = f"'{name}>={lowest}'" if lowest else name
        if version is None:
            problems.append(Problem(f"{name} is not installed.", f"Type: pip install {wanted}", True))
        elif lowest and _older(version, lowest):
            what = f"{name} {version} is older than {lowest}."
            problems.append(Problem(what, f"Type: pip install -U {wanted}", True))
    return problems


def torch_problems(torch: dict[str, Any] | None, vision: dict[str, Any] | None, error: str) -> list[Problem]:
    """Torch that does not start, or torchvision that was built for another one.

    Args:
        torch, vision: what the probes said; None: the import failed.
        error: why it failed.
    """
    pair = "pip install -U torch torchvision"
    if torch is None:
        return [Problem(f"torch cannot be imported ({error}).", f"Type: {pair} --force-reinstall", True)]
    if vision is None:
        have = f"torchvision {_version('torchvision')} ({_built_for()}) and torch {torch['version']}"
        return [
            Problem(
                f"{have} do not fit together ({error}).",
                f"Install the pair in one command, from one index: {pair}",
                True,
            )
        ]
    builds = [found["version"].partition("+")[2] for found in (torch, vision)]
    if all(builds) and builds[0] != builds[1]:
        have = f"torch {torch['version']} and torchvision {vision['version']}"
        return [
            Problem(
                f"{have} are builds for different devices.", f"Install the pair in one command, from one index: {pair}"
            )
        ]
    return []


def _built_for() -> str:
    try:
        needs = importlib.metadata.requires("torchvision") or []
    except importlib.metadata.PackageNotFoundError:
        needs = []
    named = [need.partition(";")[0].strip() for need in needs if re.match(r"torch\b", need)]
    return f"needs {named[0]}" if named else "names no torch"


def faiss_wheels() -> dict[str, str]:
    """The installed distributions that bring the module ``faiss``, with their versions."""
    names = {(d.metadata["Name"] or "").lower(): d.version for d in importlib.metadata.distributions()}
    return {name: version for name, version in sorted(names.items()) if re.fullmatch(r"faiss([-_](cpu|gpu).*)?", name)}


def faiss_problems(wheels: dict[str, str], faiss: dict[str, Any] | None, error: str, cuda: bool) -> list[Problem]:
    """No FAISS is fine (the torch index answers); two wheels, or one that does not start, are not."""
    if len(wheels) > 1:
        keep = next((w for w in wheels if "gpu" in w), "") if cuda else "faiss-cpu"
        return [
            Problem(
                f"{' and '.join(wheels)} are both installed and overwrite each other's files.",
                f"Type: pip uninstall -y {' '.join(wheels)}, then: pip install {keep or 'faiss-cpu'}",
            )
        ]
    if wheels and faiss is None:
        return [
            Problem(
                f"faiss is installed but cannot be imported ({error}).",
                f"Type: pip install --force-reinstall {next(iter(wheels))}; the torch index works without it.",
            )
        ]
    if faiss and faiss["gpu_build"] and not faiss["gpus"]:
        return [
            Problem(
                "faiss is the GPU build, but it sees no GPU.",
                "Indexes run on the CPU; to save space: pip uninstall the GPU wheel, pip install faiss-cpu.",
            )
        ]
    return []


def processor() -> dict[str, Any]:
    """CPU name, cores that this process may use, and the instructions that make bfloat16 quick."""
    flags, name = set(), platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.is_file():
        for line in info.read_text(errors="replace").splitlines():
            key, _, value = line.partition(":")
            if key.strip() == "model name":
                name = value.strip()
            elif key.strip() in ("flags", "Features"):
                flags = set(value.split())
                break
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    fast = [f for f in FAST if f in flags]
    return {"name": name, "cores": usable, "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS"), "flags": fast}


def cache() -> dict[str, Any]:
    """Where the caches are, their size and the space left there, in bytes."""
    root = cache_root()
    size = sum(path.lstat().st_size for path in root.rglob("*") if path.is_file()) if root.is_dir() else 0
    there = next(p for p in (root.absolute(), *root.absolute().parents) if p.exists())
    return {
        "path": str(root),
        "size": size,
        "free": shutil.disk_usage(there).free,
        "writable": os.access(there, os.W_OK),
    }


def cache_problems(found: dict[str, Any]) -> list[Problem]:
    """A cache folder that cannot be written, or is nearly full."""
    do = "Set XRETRIEVE_CACHE to a folder with space that you may write."
    if not found["writable"]:
        return [Problem(f"The cache folder {found['path']} cannot be written.", do, True)]
    if found["free"] < 1 << 30:
        return [Problem(f"Less than 1 GB is free for the cache folder {found['path']}.", do)]
    return []


def hub() -> dict[str, Any]:
    """Whether pretrained weights may be fetched, by the environment; nothing is contacted."""
    true = ("1", "ON", "YES", "TRUE")
    off = [n for n in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE") if os.environ.get(n, "").upper() in true]
    return {"offline": bool(off), "because": off, "endpoint": os.environ.get("HF_ENDPOINT", "https://huggingface.co")}


def data() -> tuple[dict[str, Any], list[Problem]]:
    """The data root and what of each dataset lies below it."""
    from xretrieve.data import datasets

    root, there, problems = data_root(), {}, []
    for name in datasets.names():
        try:
            there[name] = datasets.found(name)
        except Exception as error:  # a plug-in's code, or a broken file: say so and go on
            there[name] = []
            what = f"Looking for dataset {name} failed: {error}"
            problems.append(Problem(what, f"Type: xretrieve data check {name}"))
    if not root.is_dir():
        problems.append(
            Problem(
                f"There is no data root at {root}; only scenes, which is generated, can be used.",
                "Set XRETRIEVE_DATA to the folder that holds the datasets.",
            )
        )
    return {"root": str(root), "exists": root.is_dir(), "datasets": there}, problems


def pictures() -> dict[str, Any]:
    """Suffixes of the pictures that are read, and whether HEIC is among them; none where Pillow cannot be imported."""
    try:
        from xretrieve.data.folder import picture_suffixes

        suffixes = sorted(picture_suffixes())
    except Exception:  # a broken package is named with the packages
        suffixes = []
    return {"suffixes": suffixes, "heic": ".heic" in suffixes}


def plugged() -> tuple[list[dict[str, str]], list[Problem]]:
    """The installed plug-ins, and those of them that cannot be imported."""
    if not any(plugins(group) for group in GROUPS):
        return [], []
    answer, error = probe(PLUGIN_PROBE)
    if answer is None:
        return [], [Problem(f"An installed plug-in stops Python ({error}).", "Uninstall the last one installed.")]
    return answer["found"], [
        Problem(f"{row['error'].partition('; ')[0]}.", "Mend its package, or uninstall it.")
        for row in answer["found"] if row["error"]
    ]  # fmt: skip


def examine() -> tuple[dict[str, Any], list[Problem]]:
    """The whole report, ready for JSON, and the problems, the broken ones first."""
    found = versions()
    torch, error = probe(TORCH_PROBE) if found["torch"] else (None, "")
    precision = probe(PRECISION_PROBE)[0] if torch else None
    vision, error = probe(TORCHVISION_PROBE) if torch and found["torchvision"] else (None, error)
    wheels = faiss_wheels()
    faiss, faiss_error = probe(FAISS_PROBE) if wheels else (None, "")
    stored, where = cache(), hub()
    problems = package_problems(found)
    if found["torch"] and found["torchvision"]:  # else that is the problem, and it has been named
        problems += torch_problems(torch, vision, error)
    problems += faiss_problems(wheels, faiss, faiss_error, bool(torch and torch["cuda"])) + cache_problems(stored)
    if sys.version_info < (3, 10):  # noqa: UP036  the source may lie on the path of an older one
        what = f"Python {platform.python_version()} is older than 3.10."
        problems.append(Problem(what, "Install Python 3.10 or later.", True))
    datasets, more = data()
    installed, failing = plugged()
    problems += more + failing
    report = {
        "xretrieve": __version__,
        "python": platform.python_version(),
        "system": platform.platform(),
        "packages": found,
        "processor": processor(),
        "torch": torch,
        "precision": precision,
        "faiss": {"wheels": wheels, "module": faiss},
        "data": datasets,
        "plugins": installed,
        "pictures": pictures(),
        "cache": stored,
        "hub": where,
    }
    return report, sorted(problems, key=lambda p: not p.broken)
