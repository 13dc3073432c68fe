"""``xretrieve doctor``: what is installed, what is missing, and what to do about it."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any

import typer

from xretrieve.cli.options import AsJson

app = typer.Typer(add_completion=False)


@app.command()
def doctor(as_json: AsJson = False) -> None:
    """Say what is installed, what is missing and what to do about it; status 1 if something needed is broken."""
    from xretrieve.utils.environment import examine

    report, problems = examine()
    if as_json:
        print(json.dumps({**report, "problems": [asdict(p) for p in problems]}, indent=2))
    else:
        for line in _lines(report):
            print(line)
        print()
        for problem in problems:
            print(f"{'BROKEN' if problem.broken else 'note'}: {problem.what} {problem.do}")
        if not any(p.broken for p in problems):
            print("All that xretrieve needs works.")
    if any(p.broken for p in problems):
        raise typer.Exit(1)


def _lines(report: dict[str, Any]) -> list[str]:
    processor, torch, faiss = report["processor"], report["torch"], report["faiss"]
    threads = f", {torch['threads']} torch threads, {torch['cpu_capability']}" if torch else ""
    omp = f", OMP_NUM_THREADS={processor['OMP_NUM_THREADS']}" if processor["OMP_NUM_THREADS"] else ""
    rows = [
        ("xretrieve", f"{report['xretrieve']}, Python {report['python']}, {report['system']}"),
        ("packages", ", ".join(f"{name} {version or 'MISSING'}" for name, version in report["packages"].items())),
        ("CPU", f"{processor['name']}, {processor['cores']} cores{threads}{omp}"),
        ("", f"fast instructions: {', '.join(processor['flags']) or 'unknown'}"),
    ]
    if torch:
        gpus = [f"{g['name']} {_size(g['memory'])}{', bf16' if g['bf16'] else ''}" for g in torch["cuda"]]
        build = f"built for CUDA {torch['cuda_build']}" if torch["cuda_build"] else "a CPU build"
        rows += [("CUDA", "; ".join(gpus) or f"none (torch is {build})"), ("MPS", "yes" if torch["mps"] else "no")]
    for place, one in enumerate(report["precision"] or []):
        costs = f"; bf16 {one['bf16']}" if one["bf16"] else ""
        rows.append(("" if place else "precision", f"auto is {one['auto']} on {one['device']} ({one['why']}){costs}"))
    module = faiss["module"]
    wheels = ", ".join(f"{name} {version}" for name, version in faiss["wheels"].items())
    build = f" ({'GPU' if module['gpu_build'] else 'CPU'} build)" if module else ""
    rows.append(("FAISS", wheels + build if wheels else "not installed; the torch index answers every call"))
    data, cache, hub = report["data"], report["cache"], report["hub"]
    rows.append(("data root", data["root"] if data["exists"] else f"{data['root']} (not there)"))
    for name, there in data["datasets"].items():
        nothing = "made on demand" if name == "scenes" else "nothing"
        rows.append(("", f"{name}: {'; '.join(there) or nothing}"))
    read = " ".join(suffix[1:] for suffix in report["pictures"]["suffixes"])
    heic = "" if report["pictures"]["heic"] else "; HEIC is left out: `pip install 'xretrieve[heic]'` to read it"
    rows.append(("pictures", read + heic))
    for place, row in enumerate(report["plugins"]):
        kind, works = row["group"].partition(".")[2], "cannot be imported" if row["error"] else row["value"]
        rows.append(("" if place else "plug-ins", f"{kind} {row['name']}: {works} ({row['package']})"))
    rows.append(("cache", f"{cache['path']}: {_size(cache['size'])}, {_size(cache['free'])} free on its disk"))
    allowed = f"allowed: {hub['endpoint']} (not tried)"
    rows.append(("hub", f"offline by {', '.join(hub['because'])}" if hub["offline"] else allowed))
    return [f"{head:<10} {text}" for head, text in rows]


def _size(count: float) -> str:
    for unit in ("B", "kB", "MB"):
        if count < 1000:
            return f"{count:.0f} {unit}"
        count /= 1000
    return f"{count:.1f} GB"
