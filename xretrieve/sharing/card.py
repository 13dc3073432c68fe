"""The model card of an export: what a run's recipe and its reports say, and nothing else."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePath
from typing import Any

import yaml

from xretrieve.config import from_dict, to_dict
from xretrieve.data.info import INFO
from xretrieve.ensemble import Ensemble
from xretrieve.errors import XRetrieveError
from xretrieve.evaluation.report import Report
from xretrieve.loading import HUB
from xretrieve.matcher import Matcher
from xretrieve.training.recipe import Recipe
from xretrieve.training.recipes import load_recipe
from xretrieve.utils.paths import is_file
from xretrieve.version import __version__

ASK = {
    "image_text": 'gallery.search(xr.Text("a dog in the snow"))',
    "multi_query": 'gallery.search(xr.MultiText(["a man in a red coat", "a sledge"]))',
    "composed": 'gallery.search(xr.ImageText("reference.jpg", "the same but in blue"))',
}


@dataclass
class Result:
    """One evaluation as it is shared.

    Args:
        setting: protocol, data, sizes, coverage, tie rule and interval in one line.
        dataset, split, protocol: what was measured.
        metrics: name -> value, ends of the 95 % interval, queries, gallery.
        warnings: what a reader must know before comparing.
        about: further facts of the evaluation.
        created: date and time, UTC.
        versions: of the libraries that measured.
    """

    setting: str
    dataset: str
    split: str
    protocol: str
    metrics: dict[str, dict[str, Any]]
    warnings: list[str]
    about: dict[str, str]
    created: str
    versions: dict[str, str]

    @classmethod
    def of(cls, report: Report) -> Result:
        """What a report says, without its pictures, paths and single queries."""
        kept = ("value", "low", "high", "unit", "queries", "gallery")
        values = report.to_dict()
        metrics = {name: {key: m[key] for key in kept} for name, m in values["metrics"].items()}
        setting = report.metrics.setting
        return cls(str(setting), setting.dataset, setting.split, setting.protocol, metrics, list(report.warnings),
                   dict(values.get("about", {})), report.created, dict(report.versions))  # fmt: skip


@dataclass
class Source:
    """What is known about a model beside its weights.

    Args:
        recipe: as resolved, without the places of files; None where the model came from no run.
        reports: those of the run that were taken of these very weights.
    """

    recipe: Recipe | None = None
    reports: list[Report] = field(default_factory=list)

    @classmethod
    def of(cls, run: str | Path, matcher: Matcher | Ensemble) -> Source:
        """Read a run folder; a report of other weights than the run now has is an error."""
        folder = Path(run)
        if not is_file(folder / "recipe.yaml"):
            return cls()
        reports = []
        for path in [folder / "report.json", *sorted(folder.glob("*/report.json"))]:
            if is_file(path):
                report = Report.load(path.parent)
                if report.matcher.get("fingerprint") != matcher.fingerprint():
                    raise XRetrieveError(
                        f"{path} is of other weights than those of {folder}; run `xretrieve evaluate {folder}` "
                        "again, or delete it"
                    )
                reports.append(report)
        return cls(without_places(load_recipe(folder / "recipe.yaml")), reports)

    @property
    def results(self) -> list[Result]:
        """The reports as they are shared."""
        return [Result.of(report) for report in self.reports]

    @property
    def recipe_text(self) -> str:
        """The recipe as YAML."""
        return str(yaml.safe_dump(to_dict(self.recipe), sort_keys=False, allow_unicode=True))


def without_places(recipe: Recipe) -> Recipe:
    """The recipe without its data root, and with the names of files in place of absolute paths to them."""

    def shown(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: shown(inner) for key, inner in value.items()}
        if isinstance(value, list):
            return [shown(inner) for inner in value]
        return PurePath(value).name if isinstance(value, str) and PurePath(value).is_absolute() else value

    plain = from_dict(Recipe, shown(to_dict(recipe)))
    return replace(plain, dataset=replace(plain.dataset, root=None))


def model_card(
    matcher: Matcher | Ensemble, source: Source, name: str, license: str = "", graphs: dict[str, Any] | None = None
) -> str:
    """The card as Markdown with the Hub's header.

    Args:
        matcher: the model.
        source: its recipe and reports.
        name: what others give to ``xr.load``.
        license: of the weights, as the Hub spells it; empty: not stated.
        graphs: of an ONNX export, what ``onnx.json`` says.
    """
    recipe = source.recipe
    datasets = dict.fromkeys([*([recipe.dataset.name] if recipe else []), *(r.dataset for r in source.results)])
    header = {"library_name": "xretrieve", "tags": ["image-retrieval", *([recipe.task] if recipe else [])]}
    if license:
        header["license"] = license
    parts = [
        f"---\n{yaml.safe_dump(header, sort_keys=False)}---",
        f"# {matcher.name}",
        _about(matcher, recipe),
        _loading(matcher, recipe, name),
        *(_graphs(graphs) if graphs else []),
        *_measured(source.results),
        _terms(datasets, matcher, license),
    ]
    if recipe is not None:
        parts.append(f"## Recipe\n\n```yaml\n{source.recipe_text.rstrip()}\n```")
    return "\n\n".join(parts) + "\n"


def _members(matcher: Matcher | Ensemble) -> list[tuple[str, Matcher]]:
    if isinstance(matcher, Matcher):
        return [("", matcher)]
    return list(zip(matcher.names, matcher.matchers, strict=True))


def _about(matcher: Matcher | Ensemble, recipe: Recipe | None) -> str:
    lines = [recipe.description.strip(), ""] if recipe is not None and recipe.description.strip() else []
    if isinstance(matcher, Ensemble):
        lines += [f"The scores of {len(matcher.names)} models, averaged ({matcher.fusion}).", ""]
    for member, each in _members(matcher):
        weights = sum(p.numel() for p in each.parameters())
        lines.append(
            (f"- {member}: " if member else "- ")
            + f"head `{each.head.name}`; pictures by `{each.image.name}`, texts by `{each.text.name}`"
            + (f"; {weights:,} parameters" if weights else "")
        )
    said = [inspect.cleandoc(sys.modules[kind.__module__].__doc__ or "") for kind in _heads(matcher)]
    lines += [f"- trained with seed {recipe.seed}"] if recipe is not None else []
    return "\n".join([*lines, f"- exported by xretrieve {__version__}", *(f"\n{text}" for text in said)])


def _heads(matcher: Matcher | Ensemble) -> Iterable[type]:
    return dict.fromkeys(type(each.head) for _, each in _members(matcher))


def _loading(matcher: Matcher | Ensemble, recipe: Recipe | None, name: str) -> str:
    task = recipe.task if recipe is not None else "image_text"
    lines = ["```python", "import xretrieve as xr", "", f"matcher = xr.load({name!r})"]
    if isinstance(matcher, Matcher) and matcher.image.cacheable:
        lines += ['gallery = matcher.index("photos/", out="photos.xr")', f"ranking = {ASK[task]}"]
    lines.append("```")
    if isinstance(matcher, Matcher) and not matcher.image.cacheable:
        lines += [
            "",
            f"Its image side (`{matcher.image.name}`) reads features computed elsewhere, no pictures.",
        ]
    if name.startswith(HUB):
        lines += ["", "The files are fetched once; a folder that holds a copy of them is loaded in the same way."]
    return "\n".join(["## How to load", "", *lines])


def _graphs(graphs: dict[str, Any]) -> list[str]:
    rows = ["## ONNX graphs", "", "The pair stage of the head, where it has one, runs in torch.", "",
            "| graph | inputs | outputs | largest difference from torch |", "|---|---|---|---|"]  # fmt: skip
    for side, about in graphs.items():
        ends = [", ".join(f"`{n}` {_shape(s)}" for n, s in about[key].items()) for key in ("inputs", "outputs")]
        rows.append(f"| `{side}/model.onnx` | {ends[0]} | {ends[1]} | {about['largest_difference']:.1g} |")
    return ["\n".join(rows)]


def _shape(spec: list[Any]) -> str:
    return f"{spec[0].removeprefix('tensor(').rstrip(')')} ({', '.join(map(str, spec[1:]))})"


def _measured(results: list[Result]) -> list[str]:
    if not results:
        return ["## Measured\n\nNothing: no evaluation came with these weights."]
    parts = ["## Measured"]
    for result in results:
        rows = [f"### {result.protocol}, {result.dataset}/{result.split}", "", result.setting, ""]
        rows += ["| metric | value | 95 % interval | queries | gallery |", "|---|---|---|---|---|"]
        for name, m in result.metrics.items():
            interval = "" if m["low"] is None else f"{m['low']:.1f} to {m['high']:.1f}"
            rows.append(f"| {name} | {m['value']:.1f} | {interval} | {m['queries']} | {m['gallery']} |")
        notes = [f"- {key}: {value}" for key, value in result.about.items()]
        notes += [f"- warning: {warning}" for warning in result.warnings]
        rows += ["", *notes] if notes else []
        measured = ", ".join(f"{key} {value}" for key, value in result.versions.items())
        parts.append("\n".join([*rows, "", f"Measured {result.created}" + (f" with {measured}." if measured else ".")]))
    return parts


def _terms(datasets: Iterable[str], matcher: Matcher | Ensemble, license: str) -> str:
    lines = ["## Terms", ""]
    lines.append(f"- Weights: {license}." if license else "- Weights: whoever exported them stated no licence.")
    lines.append("- xretrieve, the code that reads them: Apache-2.0.")
    names = dict.fromkeys(b.name for _, each in _members(matcher) for b in (each.image, each.text) if ":" in b.name)
    if names:
        lines.append(f"- Where weights started from published ones ({', '.join(f'`{n}`' for n in names)}), those have "
                     "terms of their own.")  # fmt: skip
    for name in datasets:
        info = INFO.get(name)
        known = f"{info.title}: {info.terms} ({info.paper})" if info else f"`{name}`: its terms are not known here."
        lines.append(f"- Data, {known}")
    return "\n".join(lines)
