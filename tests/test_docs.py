"""The documents say what the code says: every recipe key, every protocol, every backbone option, every recipe loads."""

from __future__ import annotations

import ast
import dataclasses
import inspect
import re
from pathlib import Path

import pytest

from xretrieve.training import recipe as recipes
from xretrieve.training.recipes import list_recipes, load_recipe

ROOT = Path(__file__).resolve().parent.parent
MARK = "<!-- keys -->\n"
PLACES = {
    "Recipe": "The recipe",
    "DatasetConfig": "`dataset`",
    "BackboneConfig": "`image` and `text`",
    "HeadConfig": "`head`",
    "StageConfig": "an entry of `stages`",
    "DomainConfig": "`domain` of a stage",
    "CompositionConfig": "`composition` of a stage",
    "LossConfig": "`loss` and `coarse_loss` of a stage",
    "MemberConfig": "an entry of `members`, unless it is a name only",
}


def tables() -> str:
    """The recipe's dataclasses as markdown, one table each."""
    tree = ast.parse(inspect.getsource(recipes))
    bodies = {node.name: node.body for node in tree.body if isinstance(node, ast.ClassDef)}
    out = []
    for name, place in PLACES.items():
        out.append(f"## {place[0].upper() + place[1:]}\n\n| key | default | meaning |\n|---|---|---|")
        fields = {field.name: field for field in dataclasses.fields(getattr(recipes, name))}
        for here, following in zip(bodies[name], bodies[name][1:], strict=False):
            if isinstance(here, ast.AnnAssign) and isinstance(here.target, ast.Name):
                assert isinstance(following, ast.Expr), f"{name}.{here.target.id} has no meaning under it"
                meaning = following.value.value.replace("|", "\\|").replace("<", "&lt;")  # type: ignore[attr-defined]
                out.append(f"| `{here.target.id}` | {default(fields.pop(here.target.id))} | {meaning} |")
        assert not fields
        out.append("")
    return "\n".join(out)


def default(field: dataclasses.Field) -> str:  # type: ignore[type-arg]
    if field.default_factory is not dataclasses.MISSING:
        return "empty"
    if field.default is dataclasses.MISSING:
        return ""
    if field.default is None or field.default == "":
        return "none"
    return f"`{str(field.default).lower() if isinstance(field.default, bool) else field.default}`"


def test_every_recipe_key_is_documented_as_the_code_has_it() -> None:
    assert (ROOT / "docs/recipes.md").read_text(encoding="utf-8").partition(MARK)[2] == "\n" + tables(), (
        "run python tests/test_docs.py"
    )


def test_no_dataclass_of_the_recipe_is_left_out() -> None:
    found = {name for name, cls in vars(recipes).items() if dataclasses.is_dataclass(cls)}
    assert found == set(PLACES)


@pytest.mark.parametrize("name", list_recipes())
def test_every_recipe_loads_and_names_what_exists(name: str) -> None:
    from xretrieve.data import datasets
    from xretrieve.evaluation import get_protocol
    from xretrieve.evaluation.published import published_rows
    from xretrieve.heads import head_class
    from xretrieve.training.losses import create_loss
    from xretrieve.training.members import member_source

    recipe = load_recipe(name)
    assert recipe.name == name and recipe.task == name.split("/")[0] and recipe.description
    assert recipe.dataset.name in datasets.names()
    get_protocol(recipe.protocol), published_rows(recipe.dataset.name, recipe.protocol, recipe.published)
    made = [member_source(recipe, member) for member in recipe.members] if recipe.members else [recipe]
    for single in made:
        head_class(single.head.name)
        for loss in [loss for stage in single.stages for loss in (stage.loss, stage.coarse_loss) if loss]:
            create_loss(loss.name, **loss.options)


def test_every_protocol_is_explained() -> None:
    from xretrieve.evaluation import list_protocols

    text = (ROOT / "docs/protocols.md").read_text(encoding="utf-8")
    for name in list_protocols():
        assert f"| `{name}` |" in text


def test_every_backbone_option_is_explained() -> None:
    import importlib

    from xretrieve.backbones import _SOURCES

    text = (ROOT / "docs/backbones.md").read_text(encoding="utf-8")
    for source, module in _SOURCES.items():
        rows = " ".join(line for line in text.splitlines() if line.startswith(f"| {source} |"))
        documented = set(re.findall(r"`(\w+)`", rows))
        taken = set(inspect.signature(importlib.import_module(module).create).parameters)
        options = taken - {"rest", "modality", "weights", "assets"}
        assert options <= documented, f"{source}: docs/backbones.md lacks {sorted(options - documented)}"


PAGES = [page for pattern in ("*.md", "docs/**/*.md", "tasks/*/*.md") for page in sorted(ROOT.glob(pattern))]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_links_lead_to_files(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#\s]+)", page.read_text(encoding="utf-8")):
        assert "://" in target or (page.parent / target).exists(), f"{page.name}: {target}"


if __name__ == "__main__":
    page = ROOT / "docs/recipes.md"
    page.write_text(page.read_text(encoding="utf-8").partition(MARK)[0] + MARK + "\n" + tables(), encoding="utf-8")


def test_the_walks_of_the_design_name_what_is_there():
    text = (ROOT / "docs" / "design.md").read_text(encoding="utf-8")
    walks = text.split("## Three walks")[1].split("\n## ")[0].split("**Follow one ")[1:]
    assert [walk.split("**")[0] for walk in walks] == ["query", "training step", "evaluation"]
    for walk in walks:
        steps = re.findall(r"^\d\. `([\w/.]+)` `([\w.]+)`: ", walk, re.M)
        assert 5 < len(steps) <= 8 and len(steps) == len(re.findall(r"^\d\.", walk, re.M))
        for path, name in steps:
            body, found = ast.parse((ROOT / path).read_text(encoding="utf-8")).body, None
            for part in name.split("."):
                found = next((node for node in body if getattr(node, "name", "") == part), None)
                assert found is not None, f"{path} has no {name}"
                body = getattr(found, "body", [])
