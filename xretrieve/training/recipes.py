"""Recipes by name: where they are looked for, how they are read, and how keys are overridden."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from xretrieve.config import apply_overrides, from_dict, parse_yaml, to_dict
from xretrieve.errors import XRetrieveError, unknown
from xretrieve.training.recipe import DatasetConfig, Recipe
from xretrieve.utils.files import data_root, write_text
from xretrieve.utils.paths import expand, is_file, is_folder, is_there
from xretrieve.utils.texts import read_text

Overrides = Mapping[str, Any] | Sequence[str] | None


def recipe_folders() -> list[Path]:
    """Where recipes are looked for, in this order: ./tasks, tasks/ beside the package (a checkout), the installed."""
    package = Path(__file__).resolve().parent.parent
    folders = [Path("tasks"), package.parent / "tasks", package / "tasks"]
    return [f for f in folders if is_folder(f)]


def list_recipes() -> list[str]:
    """Names that :func:`load_recipe` knows, for example ``image_text/flickr8k-dual``."""
    found = {
        f.relative_to(folder).with_suffix("").as_posix() for folder in recipe_folders() for f in folder.rglob("*.yaml")
    }
    return sorted(found)


def recipes_named(name: str) -> list[str]:
    """The recipe of this name, or those whose last part it is."""
    return [name] if _file(name) else [n for n in list_recipes() if n.rsplit("/", 1)[-1] == name]


def load_recipe(name: str | Path, overrides: Overrides = None) -> Recipe:
    """Read a recipe and set single keys.

    Args:
        name: a recipe's name (``image_text/flickr8k-dual``, or its last part where that is unique), or a YAML file.
        overrides: ``{"stages.0.lr": 1e-3}`` or ``["stages.0.lr=1e-3"]``.

    Raises:
        XRetrieveError: unknown recipe, key or value; the message names the nearest one.
    """
    path = _find(str(name))
    return from_dict(Recipe, apply_overrides(read_recipe(path), as_items(overrides)), where=path.name)


def read_recipe(path: Path) -> dict[str, Any]:
    """The keys of a recipe file as they are written; a file that cannot be read is an error that names the line."""
    try:
        values = parse_yaml(read_text(path))
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f" line {mark.line + 1}" if mark else ""
        raise XRetrieveError(f"{path}:{line} not valid YAML ({getattr(error, 'problem', error)})") from error
    if not isinstance(values, dict):
        raise XRetrieveError(
            f"{path}: a recipe is a mapping of keys (name, dataset, image, text, head, stages, protocol)"
        )
    return values


def recipe_of(run: str) -> dict[str, Any]:
    """The recipe of a run as plain keys, empty for a model name; ``dataset: NAME`` and ``{name: NAME}`` both work."""
    path = Path(run) / "recipe.yaml"
    if not is_file(path):
        return {}
    recipe = read_recipe(path)
    if isinstance(recipe.get("dataset"), str):
        recipe["dataset"] = {"name": recipe["dataset"]}
    return recipe


def dataset_config(
    run: str, name: str | None = None, root: str | Path | None = None, layout: str | None = None
) -> DatasetConfig:
    """The dataset of a run as its recipe says; another one by name, with that one's defaults.

    Args:
        run: a run folder; the name of a model has no dataset of its own, so ``name`` is needed.
        name: of a dataset; None takes the run's own.
        root: data root, instead of the recipe's.
        layout: of its files, instead of the recipe's.
    """
    own = recipe_of(run).get("dataset", {})
    if name is None and "name" not in own:
        if ":" not in run and not is_there(Path(run)):
            raise XRetrieveError(
                f"no run folder {run!r}; give a run folder, or with --dataset NAME a model such as 'open_clip:ARCH/TAG'"
            )
        raise XRetrieveError(
            f"{run} has no recipe.yaml that names a dataset; write --dataset NAME (`xretrieve data list`)"
        )
    kept = own if name in (None, own.get("name")) else {}
    given = str(root) if root is not None else kept.get("root")
    return DatasetConfig(name or own["name"], given, layout or kept.get("layout"), kept.get("options", {}))


def as_items(overrides: Overrides) -> list[str]:
    """Overrides as ``key=value`` strings.

    >>> as_items({"stages.0.lr": 0.001, "seed": 1})
    ['stages.0.lr=0.001', 'seed=1']
    """
    if not isinstance(overrides, Mapping):
        return [overrides] if isinstance(overrides, str) else list(overrides or [])
    return [
        f"{key}={yaml.safe_dump(value, default_flow_style=True).removesuffix('...' + chr(10)).strip()}"
        for key, value in overrides.items()
    ]


def save_recipe(recipe: Recipe, path: str | Path) -> None:
    """Write the recipe as resolved; :func:`load_recipe` reads it back."""
    write_text(path, yaml.safe_dump(to_dict(recipe), sort_keys=False, allow_unicode=True))


BUILT_IN = "built-in:"  # before the path of a file that comes with the package, below its folder data
PACKAGE_DATA = Path(__file__).resolve().parent.parent / "data"


def find_weights(given: str, root: str | Path | None) -> Path:
    """A weights file as given, or below the data root; ``built-in:scenes/encoders/FILE`` is one of the package."""
    if given.startswith(BUILT_IN):
        path = PACKAGE_DATA / given.removeprefix(BUILT_IN)
        if not path.is_file():
            files = [f.relative_to(PACKAGE_DATA).as_posix() for f in PACKAGE_DATA.glob("*/encoders/*.*")]
            raise unknown("built-in file", given, [BUILT_IN + name for name in sorted(files)])
        return path
    tried = [expand(given), data_root(root) / given]
    for path in tried:
        if is_file(path):
            return path
    raise XRetrieveError(
        f"weights: no file {given!r}; looked for {tried[0]} and {tried[1]} (set XRETRIEVE_DATA to your data root, or "
        "write image.weights=null or text.weights=null to have that backbone's own from the hub)"
    )


def _find(name: str) -> Path:
    path = expand(name)
    if path.suffix in (".yaml", ".yml"):
        if is_file(path):
            return path
        raise XRetrieveError(f"no recipe file {path}; `xretrieve train --list` names the recipes")
    matches = recipes_named(name)
    found = [file for file in map(_file, matches) if file is not None]
    if len(found) != 1:
        raise unknown("recipe", name, matches or list_recipes(), "`xretrieve train --list`")
    return found[0]


def _file(name: str) -> Path | None:
    return next((f for f in (folder / f"{name}.yaml" for folder in recipe_folders()) if is_file(f)), None)
