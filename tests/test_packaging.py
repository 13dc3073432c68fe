"""What is installed is what is in the repository: packages, recipes, templates, the command."""

from __future__ import annotations

import configparser
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


def config() -> configparser.ConfigParser:
    parsed = configparser.ConfigParser()
    parsed.read(ROOT / "setup.cfg")
    return parsed


def test_every_folder_with_python_files_is_a_listed_package() -> None:
    found = {".".join(path.parent.relative_to(ROOT).parts) for path in (ROOT / "xretrieve").rglob("*.py")}
    listed = config()["options"]["packages"].split()
    assert sorted(listed) == sorted({*found, "xretrieve.tasks"}), "setup.cfg, [options] packages"


def test_every_package_has_an_init() -> None:
    for package in config()["options"]["packages"].split():
        if package != "xretrieve.tasks":  # recipes only
            assert (ROOT / package.replace(".", "/") / "__init__.py").is_file()


def files(folder: str, *patterns: str) -> set[str]:
    return {path.relative_to(ROOT).as_posix() for pattern in patterns for path in (ROOT / folder).rglob(pattern)}


@pytest.mark.slow
def test_the_wheel_holds_the_package_the_recipes_and_the_templates(tmp_path) -> None:
    copy = tmp_path / "source"  # building leaves build/ and *.egg-info behind, and takes in what an earlier one left
    copy.mkdir()
    for name in ("setup.cfg", "pyproject.toml", "README.md", "LICENSE"):
        if (ROOT / name).is_file():
            shutil.copy(ROOT / name, copy)
    for name in ("xretrieve", "tasks"):
        shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
    done = subprocess.run(
        [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation",
         "--disable-pip-version-check", "--wheel-dir", str(tmp_path), str(copy)], capture_output=True,
        text=True)  # fmt: skip
    assert done.returncode == 0, done.stderr
    with zipfile.ZipFile(next(tmp_path.glob("xretrieve-*.whl"))) as wheel:
        names = set(wheel.namelist())
        entry = next(n for n in names if n.endswith("entry_points.txt"))
        assert "xretrieve = xretrieve.cli.main:main" in wheel.read(entry).decode()
    assert files("xretrieve", "*.py", "*.html", "*.css", "*.js", "*.svg") <= names
    assert files("xretrieve/data/scenes/encoders", "*") <= names
    assert "xretrieve/py.typed" in names  # without it type checkers see no types
    assert {f"xretrieve/{name}" for name in files("tasks", "*.yaml", "*.md")} <= names
    assert any(name.startswith("xretrieve/tasks/image_text/") for name in names)
    outside = {n for n in names if not n.startswith("xretrieve/") and ".dist-info/" not in n}
    assert not outside and not any("__pycache__" in n for n in names)
