"""The rules of the house that can be counted: sizes of files, types and docstrings, and what CONTRIBUTING says."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
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
