"""Every public class, function and method says what it does and what types it takes.

``python tests/docs/test_public_names.py`` counts them.
"""

from __future__ import annotations

import ast
import functools
from collections.abc import Iterator
from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[2] / "xretrieve"
Named = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef


def public(body: list[ast.stmt], inside: str) -> Iterator[tuple[str, Named, bool]]:
    """Public names of a module or a class: where they are, their node, whether they are methods."""
    for node in body:
        if isinstance(node, Named) and not node.name.startswith("_"):
            yield f"{inside}.{node.name}", node, False
            if isinstance(node, ast.ClassDef):
                yield from ((name, inner, True) for name, inner, _ in public(node.body, f"{inside}.{node.name}"))


@functools.lru_cache(1)
def everything() -> list[tuple[str, Named, bool]]:
    found = []
    for file in sorted(PACKAGE.rglob("*.py")):
        inside = ".".join(file.relative_to(PACKAGE.parent).with_suffix("").parts)
        found += public(ast.parse(file.read_text(encoding="utf-8")).body, inside)
    return found


def is_typed(node: ast.FunctionDef | ast.AsyncFunctionDef, method: bool) -> bool:
    given = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs, node.args.vararg, node.args.kwarg]
    static = any(isinstance(mark, ast.Name) and mark.id == "staticmethod" for mark in node.decorator_list)
    said = given[1:] if method and not static else given
    return node.returns is not None and all(one.annotation is not None for one in said if one is not None)


def undocumented() -> list[str]:
    return [name for name, node, _ in everything() if ast.get_docstring(node) is None]


def untyped() -> list[str]:
    functions = [(name, node, method) for name, node, method in everything() if not isinstance(node, ast.ClassDef)]
    return [name for name, node, method in functions if not is_typed(node, method)]


def test_every_public_name_is_documented() -> None:
    assert undocumented() == []


def test_every_public_function_is_typed() -> None:
    assert untyped() == []


if __name__ == "__main__":
    names = len(everything())
    print(
        f"{names} public names; without a docstring {len(undocumented())}, functions not fully typed {len(untyped())}"
    )
