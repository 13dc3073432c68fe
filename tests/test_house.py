"""The rules of the house that can be counted: sizes of files, types and docstrings, and what CONTRIBUTING says."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parent.parent
CONTRIBUTING = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
Function = ast.FunctionDef | ast.AsyncFunctionDef


def public(body: list[ast.stmt], in_class: bool = False) -> Iterator[tuple[Function, bool]]:
    """Public functions, and public methods of public classes."""
    for node in body:
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
            yield from public(node.body, True)
        elif isinstance(node, Function) and not node.name.startswith("_"):
            yield node, in_class


def typed(node: Function, in_class: bool) -> bool:
    given = node.args
    names = [*given.posonlyargs, *given.args, *given.kwonlyargs, *filter(None, (given.vararg, given.kwarg))]
    own = ("self", "cls") if in_class else ()
    return node.returns is not None and all(a.annotation for a in names if a.arg not in own)


def test_every_public_function_has_types_and_a_docstring() -> None:
    bare = [
        f"{path.relative_to(ROOT)}:{node.lineno} {node.name}"
        for path in (ROOT / "xretrieve").rglob("*.py")
        for node, in_class in public(ast.parse(path.read_text(encoding="utf-8")).body)
        if not (typed(node, in_class) and ast.get_docstring(node))
    ]
    assert not bare


@pytest.mark.parametrize("folder", ["xretrieve", "tests", "benchmarks"])
def test_no_file_has_400_lines(folder: str) -> None:
    sizes = {path: len(path.read_text(encoding="utf-8").splitlines()) for path in (ROOT / folder).rglob("*.py")}
    assert not {str(path.relative_to(ROOT)): size for path, size in sizes.items() if size >= 400}


def test_the_map_names_what_is_there() -> None:
    named = re.findall(r"`((?:xretrieve|tasks|benchmarks|tests)/[\w./]*)`", CONTRIBUTING)
    assert len(named) > 10
    assert not [name for name in named if not (ROOT / name).exists()]
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.M))
    assert set(re.findall(r"^make ([a-z-]+)", CONTRIBUTING, re.M)) <= targets


def test_the_citation_has_the_three_papers() -> None:
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    papers = {paper["identifiers"][0]["value"]: paper for paper in cited["references"]}
    assert set(papers) == {"arXiv:2306.14460", "arXiv:2203.05349", "arXiv:2204.11212"}
    assert all(paper["title"] and paper["authors"] and paper["year"] for paper in papers.values())
    from xretrieve.version import __version__

    assert cited["version"] == __version__ and cited["license"] == "Apache-2.0"


def test_modules_that_mypy_is_told_about_exist() -> None:
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    named = {name for name in re.findall(r'"(xretrieve(?:\.[\w*]+)*)"', text.split("[tool.mypy]")[1])}
    assert "xretrieve.matcher" in named
    for name in named:
        place = ROOT / name.removesuffix(".*").replace(".", "/")
        assert place.is_dir() or place.with_suffix(".py").is_file(), name


# Modules that import each other in a circle; imports inside functions and for types alone count. What is named here may
# only get less: the patterns of the modules, and how many they are at most.
CIRCLES = {
    "reports that draw themselves": (14, [
        "xretrieve.evaluation.comparison", "xretrieve.evaluation.leads", "xretrieve.evaluation.rows",
        "xretrieve.evaluation.report", "xretrieve.evaluation.html", "xretrieve.evaluation.plots",
        "xretrieve.evaluation.terminal", "xretrieve.evaluation.round_report", "xretrieve.evaluation.round_html",
        "xretrieve.evaluation.round_plots", "xretrieve.evaluation.round_terminal",
        "xretrieve.evaluation.composed_report", "xretrieve.evaluation.composed_html",
        "xretrieve.evaluation.composed_terminal",
    ]),
    "reasoning steps": (2, ["xretrieve.heads._kernels.steps", "xretrieve.heads.graph"]),
}  # fmt: skip


# `matcher.index(...)` is public, and makes a gallery, which stands above the matcher: the one arrow that points up.
UPWARDS = ("xretrieve.matcher", "xretrieve.gallery")


def fits(circle: set[str], most: int, patterns: list[str]) -> bool:
    return len(circle) <= most and all(any(fnmatch(module, one) for one in patterns) for module in circle)


def imported(tree: ast.AST, name: str, package: bool, modules: set[str]) -> set[str]:
    """The modules among ``modules`` that a module's syntax tree names in an import, wherever it stands."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            parts = name.split(".") if package else name.split(".")[:-1]
            above = parts[: len(parts) - node.level + 1] if node.level else []
            base = ".".join([*above, *filter(None, [node.module])])
            inner = {f"{base}.{alias.name}" for alias in node.names} & modules
            found |= inner or {base}
    return (found & modules) - {name}


def circles(arrows: dict[str, set[str]]) -> list[set[str]]:
    """The largest sets of modules in which each reaches each other one, of two or more."""
    reach = {name: set(others) for name, others in arrows.items()}
    for middle in reach:
        for name in reach:
            if middle in reach[name]:
                reach[name] |= reach[middle]
    groups = {frozenset(o for o in reach[name] | {name} if name in reach.get(o, ()) or o == name) for name in reach}
    return [set(group) for group in groups if len(group) > 1]


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def test_circles_of_imports_only_get_fewer() -> None:
    paths = {module_name(path): path for path in (ROOT / "xretrieve").rglob("*.py")}
    arrows = {
        name: imported(ast.parse(path.read_text(encoding="utf-8")), name, path.stem == "__init__", set(paths))
        for name, path in paths.items()
    }
    assert UPWARDS[1] in arrows[UPWARDS[0]], "it is gone: take it out here"
    arrows[UPWARDS[0]].remove(UPWARDS[1])
    found = circles(arrows)
    new = [sorted(circle) for circle in found if not any(fits(circle, *known) for known in CIRCLES.values())]
    assert not new, "these modules import each other; move what both need into a module below them"
    gone = [name for name, known in CIRCLES.items() if not any(fits(circle, *known) for circle in found)]
    assert not gone, "these are no circles any more: take them out of CIRCLES"


def test_the_search_for_circles_sees_imports_in_functions_for_types_and_of_neighbours() -> None:
    codes = {
        "p": "from p import a",
        "p.a": "def f():\n    from p.b import x",
        "p.b": "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from .c import y",
        "p.c": "import p.a, json",
        "p.d": "from p import a, c",
        "p.e": "from . import d",
    }
    arrows = {name: imported(ast.parse(code), name, name == "p", set(codes)) for name, code in codes.items()}
    assert arrows["p.d"] == {"p.a", "p.c"} and arrows["p.e"] == {"p.d"} and arrows["p"] == {"p.a"}
    assert circles(arrows) == [{"p.a", "p.b", "p.c"}]
