"""Outputs of an earlier commit against those of the working tree: equal to the bit, or every difference named.

    python benchmarks/reliability/frozen.py                                            changes that are not committed
    python benchmarks/reliability/frozen.py --commit HEAD~3 --only tshsr,progressive   those of three commits too
    python benchmarks/reliability/frozen.py --ignore unit
    python benchmarks/reliability/frozen.py --keep tests/fixtures

The commit is unpacked into a temporary folder, and this file runs there and here, each in a process of its own: tiny
runs of all four kinds of stage (pairs, query sets, domain, composition), an average of two, scores alone; of each the
weights, the log, report.json, ranks.npz, TREC files, the page, the table, the model card, a comparison, and rankings of
a gallery and of a session with what explains them. Only what a clock says, and versions, are left out. Nothing but
public names and verbs is used, so that this file runs on both sides.
"""

from __future__ import annotations

import argparse
import io
import json
import math
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import yaml

ROOT = Path(__file__).resolve().parents[2]
CLOCK = ("seconds", "created", "versions", "cpu_seconds", "checksum")  # keys that differ from one minute to the next
SCENES = {"train": 40, "val": 12, "test": 12, "size": 48}
IMAGE = {"pretrained": False, "size": 48, "mean": 0.5, "std": 0.5, "cells": 3,
         "model_args": {"output_stride": 16, "channels": [8, 8, 8, 8]}}  # fmt: skip
WORDS = {"min_count": 1, "word_dim": 8, "dim": 16, "dropout": 0.1}
INFONCE = {"name": "infonce", "options": {"temperature": 0.1, "learnable": True}}
STAGE = {"epochs": 1, "batch_size": 10, "lr": 0.005, "clip": 2.0}
COARSE = {**STAGE, "loss": None, "coarse_loss": INFONCE, "batching": "images", "captions_per_image": 3}
PAIRS = {**STAGE, "loss": INFONCE, "group": 5, "group_pool": 20}
SETS = {**STAGE, "loss": {"name": "infonce", "options": {"temperature": 0.1, "directions": "sum"}}}
DOMAIN = {**STAGE, "domain": {"tasks": ["t2i", "i2i"]}, "loss": {"name": "match", "options": {"match": "symmetric"}},
          "batching": "images"}  # fmt: skip
EDITS = {**STAGE, "composition": {"label": "logprob"}, "loss": {"name": "match"}}
TSHSR = {"dim": 16, "sim_dim": 8, "dropout": 0.1, "fusion": "logit", "aux_weight": 0.3, "train_on": "logit"}
HMRN = {"dim": 16, "sim_dim": 8, "dropout": 0.0, "image_norm": True, "weight_horizon": 10}
RUNS: dict[str, dict[str, Any]] = {  # name -> task, head, its options, stages
    "dual": {"head": ("dual", {"dim": 16}), "stages": [{**STAGE, "loss": INFONCE}]},
    "tshsr": {"head": ("tshsr", TSHSR), "stages": [COARSE, {**PAIRS, "freeze_coarse": True}]},
    "sgr": {"head": ("sgr", {"dim": 16, "sim_dim": 8, "train_on": "logit"}), "stages": [PAIRS]},
    "hmrn-t2i": {"task": "multi_query", "head": ("hmrn", {"direction": "t2i", **HMRN}), "stages": [SETS]},
    "hmrn-i2t": {"task": "multi_query", "head": ("hmrn", {"direction": "i2t", **HMRN}), "stages": [SETS]},
    "hmrn": {"task": "multi_query", "members": ["hmrn-t2i.yaml", "hmrn-i2t.yaml"]},
    "drilldown": {"task": "multi_query", "head": ("drilldown", {"dim": 16, "slots": 3, "image_norm": True}),
                  "stages": [{**SETS, "keep": "rounds"}]},
    "fusion": {"task": "multi_query", "head": ("dual", {"dim": 16, "text_source": "pooled"}), "stages": [SETS],
               "combine": "rank_fusion"},
    "progressive": {"task": "composed", "head": ("progressive", {"dim": 16}), "stages": [DOMAIN, EDITS]},
    "sum": {"task": "composed", "head": ("sum", {"dim": 16}), "stages": [DOMAIN, {**EDITS, "composition": {}}]},
}  # fmt: skip
PROTOCOLS = {"image_text": "full", "multi_query": "scenes-10", "composed": "scenes/split/removed/each"}
TEXTS = (".json", ".jsonl", ".yaml", ".md")
KEPT = ("tshsr", "drilldown", "progressive")  # whose runs tests/fixtures has, each with a gallery
CELL = ["image_text/scenes-dual", f"dataset.options={SCENES}", f"image.options={IMAGE}", f"text.options={WORDS}",
        "head.options={dim: 16}", "stages.0.epochs=1", "stages.0.batch_size=10"]  # fmt: skip
COMPARED = (("dual", "tshsr"), ("drilldown", "hmrn-t2i"), ("sum", "progressive"))


def recipe(name: str) -> dict[str, Any]:
    """A tiny recipe as YAML has it."""
    own = RUNS[name]
    task = own.get("task", "image_text")
    told = {"name": f"{task}/{name}", "task": task, "dataset": {"name": "scenes", "options": SCENES},
            "protocol": PROTOCOLS[task]}  # fmt: skip
    if "members" in own:
        return {**told, "members": own["members"]}
    head, options = own["head"]
    text = "sentences" if task == "multi_query" else "words"
    return {**told, "image": {"backbone": "timm:test_resnet", "options": IMAGE},
            "text": {"backbone": text, "options": WORDS}, "head": {"name": head, "options": options},
            "stages": own["stages"], **({"combine": own["combine"]} if "combine" in own else {})}  # fmt: skip


# what one side makes -------------------------------------------------------------------------------------------------


def make(out: Path, names: Sequence[str]) -> None:
    """All outputs of the code that is imported here, as .npz, .json and .txt files under ``out``."""
    import torch

    torch.set_num_threads(1)
    os.chdir(out.parent)
    for name in names:
        Path(f"{name}.yaml").write_text(yaml.safe_dump(recipe(name)), encoding="utf-8")
    for name in names:
        _run(name, out / name)
    _cell(out)
    for one in COMPARED:
        if set(one) <= set(names):
            _compared(*one, out / f"{one[0]}-{one[1]}.json")
    _scores(out)


def _run(name: str, out: Path) -> None:
    """Train, and keep everything that a user gets of it."""
    import xretrieve as xr
    from xretrieve.sharing import export

    run = Path("runs") / name
    xr.train(f"{name}.yaml", out=run, progress=False)
    out.mkdir(parents=True)
    for weights in sorted(run.glob("**/matcher/**/*.safetensors")):
        from safetensors.numpy import load_file

        np.savez(out / ("-".join(weights.relative_to(run).with_suffix("").parts) + ".npz"), **load_file(weights))
    if (run / "log.csv").is_file():
        (out / "log.txt").write_text("\n".join(_log(run / "log.csv")), encoding="utf-8")
    export(run, out.parent.parent / "exports" / name)
    for source, kept in (("README.md", "card.txt"), ("results.json", "results.json")):
        shutil.copyfile(out.parent.parent / "exports" / name / source, out / kept)
    matcher = xr.load(run)
    test = xr.datasets.load("scenes", split="test", **SCENES)
    told = recipe(name)
    report = xr.evaluate(matcher, test, told["protocol"], bootstrap=50, trec=out / "trec",
                         combine=told.get("combine", ""))  # fmt: skip
    _report(xr.Report.load(run), out / "kept")
    _report(report, out / "measured")
    if "members" not in RUNS[name]:
        gallery = matcher.index(test, out.parent.parent / "galleries" / name)
        hits = rankings(gallery, test, told["task"])
        (out / "rankings.json").write_text(json.dumps(hits), encoding="utf-8")
        explained = [gallery.search(query, k=2).explain(1) for query in queries(test, told["task"])]
        place = str(out.parent.parent)  # which pictures lie below
        (out / "explained.json").write_text(json.dumps(explained).replace(place, ""), encoding="utf-8")
        if told["task"] != "composed":
            combine = told.get("combine", "" if told["task"] == "multi_query" else "mean_similarity")
            turns = list(_session(gallery.session(combine), test.captions[:3]))
            (out / "session.json").write_text(json.dumps(turns), encoding="utf-8")


def _log(path: Path) -> Iterator[str]:
    """Rows of a log without its seconds."""
    import csv

    with open(path, newline="", encoding="utf-8") as handle:
        for row in csv.DictReader(handle):
            yield ", ".join(f"{key}={value}" for key, value in row.items() if "second" not in key)


def _report(report: Any, out: Path) -> None:
    """report.json, ranks.npz, the page and the table of a report, without what a clock says."""
    report.seconds, report.created, report.versions = {}, "", {}
    report.save(out)
    (out / "table.txt").write_text(str(report), encoding="utf-8")
    (out / "report.html").rename(out / "page.txt")


def queries(test: Any, task: str) -> list[Any]:
    """Four of a task, made of the test split."""
    import xretrieve as xr

    texts = test.captions
    if task == "composed":
        return [xr.ImageText(picture, text) for picture, text in zip(test.images[:4], texts[:4], strict=True)]
    return [xr.MultiText(texts[i : i + 3]) if task == "multi_query" else xr.Text(texts[i]) for i in range(4)]


def rankings(gallery: Any, test: Any, task: str) -> list[list[list[Any]]]:
    """The first hits of :func:`queries` in a gallery of the test pictures: ids and scores."""
    return [[[hit.id, hit.score] for hit in gallery.search(query, k=6)] for query in queries(test, task)]


def _session(session: Any, texts: Sequence[str]) -> Iterator[Any]:
    """The ranking after each sentence, and what explains its first hit; then without the last sentence."""
    for text in texts:
        session.add(text)
        ranking = session.ranking(4)
        yield [[[hit.id, hit.score] for hit in ranking], ranking.explain(0)]
    session.undo()
    yield [[hit.id, hit.score] for hit in session.ranking(4)]


def _compared(a: str, b: str, out: Path) -> None:
    import xretrieve as xr
    from xretrieve.evaluation import compare as paired

    reports = [xr.Report.load(Path("runs") / name) for name in (a, b)]
    out.write_text(json.dumps(paired(*reports, resamples=50).to_dict()), encoding="utf-8")


def _cell(out: Path) -> None:
    """A cell of a bench table, and the table."""
    from xretrieve.bench.suites import SuiteCells

    cells = SuiteCells(CELL[:1], out.parent / "bench", CELL[1:])
    (out / "table.json").write_text(json.dumps(list(cells.run())), encoding="utf-8")


def _scores(out: Path) -> None:
    """Scores with ties, in folds and with one caption each."""
    from xretrieve.evaluation import Protocol, evaluate_scores

    scores = np.random.default_rng(0).integers(0, 40, (60, 300)).astype(np.float32)
    owner = np.arange(300) // 5
    for name, rules in (("folds", {"folds": 3}), ("first", {"captions": "first", "ties": "pessimistic"})):
        report = evaluate_scores(
            scores, owner, protocol=Protocol(name, **rules), bootstrap=50, trec=out / name / "trec"
        )
        _report(report, out / name)


def keep(made: Path, folder: Path) -> None:
    """What tests/fixtures holds, of what :func:`make` left in ``made``: runs, their galleries and rankings, a cell."""
    rest = shutil.ignore_patterns("last", "groups", "*.png", "*.html", "log.csv")
    for name in KEPT:
        shutil.copytree(made / "runs" / name, folder / "trained" / name, ignore=rest)
        shutil.copytree(made / "galleries" / name, folder / "galleries" / name)
        shutil.copyfile(made / "out" / name / "rankings.json", folder / "galleries" / f"{name}.json")
    shutil.copytree(made / "bench", folder / "bench", ignore=rest)
    without_places(folder, made)


def without_places(folder: Path, made: Path) -> None:
    """Paths below ``made`` become relative in all that lies in a folder, and checksums are made anew."""
    from xretrieve.utils.checksums import KEY, seal
    from xretrieve.utils.files import write_json

    for path in sorted(folder.rglob("*")):
        if path.suffix in TEXTS:
            text = path.read_text(encoding="utf-8")
            path.write_text(text.replace(f"{made}/", ""), encoding="utf-8")
    for path in [*folder.rglob("report.json"), *folder.rglob("gallery.json")]:
        about = json.loads(path.read_text(encoding="utf-8"))
        for part in about.get("parts", []) if path.name == "gallery.json" else []:
            part["sum"] = seal(path.parent / "parts" / part["name"])
        if KEY in about:
            write_json(path, about, sealed=True)


# both sides ----------------------------------------------------------------------------------------------------------


def differences(before: Path, after: Path, ignore: Sequence[str] = ()) -> list[str]:
    """A line for each value that differs between two folders that :func:`make` filled."""
    places = sorted({path.relative_to(side) for side in (before, after) for path in side.rglob("*") if path.is_file()})
    lines = []
    for place in places:
        one, other = before / place, after / place
        if not (one.is_file() and other.is_file()):
            lines.append(f"{place}: only {'before' if one.is_file() else 'after'}")
        elif place.suffix == ".npz":
            lines += [f"{place}: {line}" for line in _arrays(one, other)]
        elif place.suffix == ".json":
            told = [json.loads(path.read_text(encoding="utf-8")) for path in (one, other)]
            lines += [f"{place}: {line}" for line in _values(*told, (*CLOCK, *ignore))]
        elif one.read_bytes() != other.read_bytes():
            texts = [_without_clock(path.read_text(encoding="utf-8")).splitlines() for path in (one, other)]
            rows = [row for row in zip(*texts, strict=False) if row[0] != row[1]]
            lines += [f"{place}: {a.strip()[:160]!r} -> {b.strip()[:160]!r}" for a, b in rows]
            if len(texts[0]) != len(texts[1]):
                lines.append(f"{place}: {len(texts[0])} lines -> {len(texts[1])}")
    return lines


def _without_clock(text: str) -> str:
    """Dates and seconds of a text made equal."""
    text = re.sub(r"\d{4}-\d\d-\d\d(T[\d:]+Z)?", "DATE", text)
    return re.sub(r"[\d.]+ s (wall|CPU)", r"SECONDS \1", text)


def _arrays(one: Path, other: Path) -> Iterator[str]:
    with np.load(one, allow_pickle=False) as a, np.load(other, allow_pickle=False) as b:
        for name in sorted({*a.files, *b.files}):
            if name not in a.files or name not in b.files:
                yield f"array {name!r} only {'before' if name in a.files else 'after'}"
            elif (a[name].dtype, a[name].shape) != (b[name].dtype, b[name].shape):
                yield f"array {name!r} {a[name].dtype} {a[name].shape} -> {b[name].dtype} {b[name].shape}"
            elif a[name].tobytes() != b[name].tobytes():
                same = float(np.mean(a[name] == b[name]))
                yield f"array {name!r} differs in {100 * (1 - same):.3g} % of its values"


def _values(a: Any, b: Any, ignore: Sequence[str], where: str = "") -> Iterator[str]:
    if isinstance(a, dict) and isinstance(b, dict):
        for key in [*a, *(key for key in b if key not in a)]:
            if key not in ignore:
                nothing = "(nothing)"
                yield from _values(a.get(key, nothing), b.get(key, nothing), ignore, f"{where}.{key}".strip("."))
    elif isinstance(a, list) and isinstance(b, list) and len(a) == len(b):
        for i, pair in enumerate(zip(a, b, strict=True)):
            yield from _values(*pair, ignore, f"{where}[{i}]")
    elif not (a == b and type(a) is type(b)) and not _both_nan(a, b):
        yield f"{where} {a!r} -> {b!r}"


def _both_nan(a: Any, b: Any) -> bool:
    return all(isinstance(value, float) and math.isnan(value) for value in (a, b))


def unpack(commit: str, folder: Path) -> None:
    """The files of a commit."""
    packed = subprocess.run(["git", "archive", commit], cwd=ROOT, capture_output=True, check=False)
    if packed.returncode:
        sys.exit(f"frozen: no commit {commit!r} here: {packed.stderr.decode().strip()}; give another by --commit")
    with tarfile.open(fileobj=io.BytesIO(packed.stdout)) as archive:
        archive.extractall(folder, filter="data")


def made_by(tree: Path, work: Path, names: Sequence[str]) -> Path:
    """Run this file on the code of ``tree``; the folder of its outputs."""
    out = work / "out"
    out.mkdir(parents=True)
    own = {"PYTHONPATH": str(tree), "XRETRIEVE_CACHE": str(work / "cache"), "XRETRIEVE_PRECISION": "32",
           "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}  # fmt: skip
    check = f"import xretrieve, sys; sys.exit(not xretrieve.__file__.startswith({str(tree)!r}))"
    subprocess.run([sys.executable, "-c", check], cwd=work, env=os.environ | own, check=True)  # not an installed one
    command = [sys.executable, str(Path(__file__).resolve()), "--make", str(out), "--only", ",".join(names)]
    subprocess.run(command, cwd=work, env=os.environ | own, check=True)
    return out


def main(argv: list[str] | None = None) -> int:
    """The differences, and status 1 where there is one."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--commit", default="HEAD", help="what the working tree is compared with")
    parser.add_argument("--only", default="", help="names of runs, with commas: " + ", ".join(RUNS))
    parser.add_argument("--ignore", default="", help="keys of JSON whose values may differ, with commas")
    parser.add_argument(
        "--keep", type=Path, help="write what tests/fixtures holds into this new folder, and compare not"
    )
    parser.add_argument("--make", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args(argv)
    chosen = [name for name in given.only.split(",") if name] or list(RUNS)
    if unknown := sorted(set(chosen) - set(RUNS)):
        parser.error(f"no run {', '.join(unknown)}; there are {', '.join(RUNS)}")
    names = [name for name in RUNS if name in chosen or "hmrn" in chosen and name.startswith("hmrn-")]
    if given.make is not None:
        make(given.make, names)
        return 0
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder).resolve()
        unpack(given.commit, place / "tree")
        before = made_by(place / "tree", place / "before", names)
        if given.keep is not None:
            keep(before.parent, given.keep)
            return 0
        after = made_by(ROOT, place / "after", names)
        lines = differences(before, after, [key for key in given.ignore.split(",") if key])
        files = sum(path.is_file() for path in after.rglob("*"))
    print("\n".join([*lines, f"frozen: {files} files of {len(names)} runs, {len(lines)} differences"]))
    return int(bool(lines))


if __name__ == "__main__":
    sys.exit(main())
