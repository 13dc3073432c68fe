"""Plug-ins of installed packages: found, built, trained parts of a matcher; a package that fails is named."""

from __future__ import annotations

import json
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

import xretrieve as xr
from xretrieve.cli.main import main
from xretrieve.errors import XRetrieveError
from xretrieve.utils.plugins import PluginError, state

MODULES = {
    "stains": """
        import torch
        from xretrieve.backbones.base import Backbone
        from xretrieve.tokens import Tokens

        class Stain(Backbone):
            def __init__(self, side):
                super().__init__("stain:mean", "image", {"side": side})
                self.local_dim = self.pooled_dim = 3 * side

            def prepare(self, items):
                return torch.ones(len(items), self.pooled_dim)

            def forward(self, batch):
                return Tokens.from_pooled(batch)

        def create(rest, *, modality=None, weights=None, assets=None, side=2):
            return Stain(side)

        def names():
            return ["mean"]
        """,
    "heads_of_mine": """
        from xretrieve.heads.cosine import Cosine

        class Mine(Cosine):
            name = "mine"
            tasks = ("image_text",)

        class NoHead:
            pass
        """,
    "two_pictures": """
        from xretrieve.data.base import RetrievalDataset
        from xretrieve.data.info import DatasetInfo

        INFO = DatasetInfo("Two pictures", ("image_text",), {"test": (2, 2)}, url="", terms="", paper="")

        def load(root, split="test", *, count=2):
            ids = [f"{split}{i}" for i in range(count)]
            return RetrievalDataset("two", split, ids, ids, ids, ids, range(count), count, "own")
        """,
    "falls_over": "import a_library_that_is_not_there",
}
POINTS = """
[xretrieve.backbones]
stain = stains
bare = heads_of_mine
fallen-encoder = falls_over
[xretrieve.heads]
mine = heads_of_mine:Mine
no-head = heads_of_mine:NoHead
fallen-head = falls_over:Head
gone-head = heads_of_mine:Gone
[xretrieve.datasets]
two = two_pictures:load
no-loader = two_pictures:INFO
fallen-data = falls_over:load
"""


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder on the path, as an installer leaves one: modules and the dist-info of a package `mended`."""
    about = tmp_path / "mended-1.2.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: mended\nVersion: 1.2\n")
    (about / "entry_points.txt").write_text(POINTS)
    for name, code in MODULES.items():
        (tmp_path / f"{name}.py").write_text(textwrap.dedent(code))
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield tmp_path
    for name in MODULES:
        sys.modules.pop(name, None)


def test_parts_of_an_installed_package_are_built_by_name_and_take_their_options(site: Path) -> None:
    assert xr.create_backbone("stain:mean", side=4).encode([1, 2]).pooled.shape == (2, 12)
    assert xr.create_head("mine", image_dim=3, text_dim=3).name == "mine"
    assert xr.datasets.load("two", split="val", count=3).image_ids == ["val0", "val1", "val2"]
    with pytest.raises(XRetrieveError, match="unknown option 'sides'; did you mean 'side'"):
        xr.create_backbone("stain:mean", sides=4)
    with pytest.raises(XRetrieveError, match="'two': 'counts'; did you mean 'count'"):
        xr.datasets.load("two", counts=3)


@pytest.mark.filterwarnings("ignore:xretrieve")
def test_parts_of_an_installed_package_are_listed_where_their_task_is(site: Path) -> None:
    assert xr.list_backbones("stain:*") == ["stain:mean"]
    assert "mine" in xr.list_heads() and "mine" in xr.image_text.heads() and "mine" not in xr.composed.heads()
    assert "two" in xr.image_text.datasets() and "two" not in xr.multi_query.datasets()


@pytest.mark.parametrize(
    ("use", "said"),
    [
        (lambda: xr.create_backbone("fallen-encoder"), "ModuleNotFoundError: No module named 'a_library_that_is_not"),
        (lambda: xr.create_backbone("bare"), r"has no function create\(\)"),
        (lambda: xr.create_head("fallen-head", image_dim=1, text_dim=1), "ModuleNotFoundError: No module named"),
        (lambda: xr.create_head("gone-head", image_dim=1, text_dim=1), "AttributeError: .*Gone"),
        (lambda: xr.create_head("no-head", image_dim=1, text_dim=1), "no subclass of xretrieve.heads.base.Head"),
        (lambda: xr.datasets.load("fallen-data"), "ModuleNotFoundError: No module named"),
        (lambda: xr.datasets.load("no-loader"), "is no function load"),
    ],
)
def test_a_package_that_fails_is_named_with_what_to_do(site: Path, use, said: str) -> None:
    with pytest.raises(PluginError, match=rf"the package mended\) .*{said}.*; mend that package, .*uninstall mended"):
        use()


def test_a_broken_package_hides_no_other_part_from_a_list(site: Path) -> None:
    for names in (xr.list_backbones, xr.image_text.heads, xr.image_text.datasets):
        with pytest.warns(UserWarning, match="falls_over"):
            found = names()
        assert {"words", "dual", "scenes"} & set(found)


@pytest.mark.filterwarnings("ignore:xretrieve")
def test_the_command_line_names_a_broken_package(site: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "check", "fallen-data"]) == 2
    assert "of the package mended" in capsys.readouterr().err
    assert main(["data", "list", "--json"]) == 0
    listed = {row["name"]: row for row in json.loads(capsys.readouterr().out)["datasets"]}
    assert listed["two"]["title"] == "Two pictures" and "fallen-data" not in listed


def test_the_state_of_every_plugin_is_told(site: Path) -> None:
    rows = {(row["group"], row["name"]): row for row in state()}
    assert rows["xretrieve.heads", "mine"] == {
        "group": "xretrieve.heads", "name": "mine", "value": "heads_of_mine:Mine", "package": "mended 1.2", "error": ""
    }  # fmt: skip
    assert "No module named" in rows["xretrieve.backbones", "fallen-encoder"]["error"]


def test_asking_which_plugins_there_are_imports_no_library() -> None:
    code = "import sys; from xretrieve.utils.plugins import *; plugins(HEADS); print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
