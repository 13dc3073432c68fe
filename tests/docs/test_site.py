"""The site: it is built without a warning, loads nothing from elsewhere, and leaves no public name and no head out."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

import xretrieve as xr
from docs.hooks import ROWS, measured
from tests.docs.pages import ROOT, blocks, commands
from tests.test_readme import parse

PAGES = sorted((ROOT / "docs").rglob("*.md"))
CARDS = sorted((ROOT / "docs/models").glob("[!i]*.md"))
PARTS = ["Idea", "Equations", "Source", "What is the paper's, and what is ours", "Cost", "Measured"]


def told(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


@pytest.mark.parametrize("page", PAGES, ids=told)
def test_every_command_of_the_pages_is_read_by_the_command_line(page: Path) -> None:
    for words in commands(page.read_text(encoding="utf-8")):
        parse(words)


@pytest.mark.parametrize("page", PAGES, ids=told)
def test_the_python_of_the_pages_is_python(page: Path) -> None:
    for block in blocks(page.read_text(encoding="utf-8")):
        if block.kind == "python":
            ast.parse(block.text)


def test_every_head_has_a_card() -> None:
    text = "".join(card.read_text(encoding="utf-8").partition("\n")[0] for card in CARDS)
    assert {name for name in xr.list_heads() if f"`{name}`" not in text} == set()


@pytest.mark.parametrize("card", CARDS, ids=lambda card: card.stem)
def test_a_card_has_all_parts_and_copies_what_was_measured(card: Path) -> None:
    text = card.read_text(encoding="utf-8")
    assert re.findall(r"^## (.+)$", text, re.M) == PARTS
    found = [measured(*marker.groups()) for marker in ROWS.finditer(text.partition("## Measured")[2])]
    assert found and all(len(table.splitlines()) > 2 for table in found)
    assert not re.search(r"^\|", text.partition("## Measured")[2], re.M), "a table of its own would drift"
    for name in re.findall(r"`(xretrieve/[\w/]+\.py)`", text):
        assert (ROOT / name).is_file(), name


def test_rows_are_copied_by_heading_and_label() -> None:
    table = measured("tasks/multi_query/README.md", "Scenes: region captions", "hmrn; drilldown")
    assert [line.split("|")[1].strip() for line in table.splitlines()[2:]] == ["`hmrn`*", "`drilldown`"]
    with pytest.raises(ValueError, match="no row 'nobody'"):
        measured("tasks/multi_query/README.md", "Scenes: region captions", "nobody")
    with pytest.raises(ValueError, match="no table"):
        measured("tasks/multi_query/README.md", "Nowhere", "hmrn")


def test_the_reference_has_every_public_name() -> None:
    """A name is there by itself, or with the module that it is in."""
    places = [line[4:].strip() for page in sorted((ROOT / "docs/api").glob("*.md"))
              for line in page.read_text(encoding="utf-8").splitlines() if line.startswith("::: ")]  # fmt: skip
    last = {place.rsplit(".", 1)[-1] for place in places}
    missing = set(xr.__all__) - last - {"__version__", "interop"}
    assert missing == set()


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("mkdocstrings", reason="pip install 'xretrieve[docs]'")
    folder = tmp_path_factory.mktemp("site")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)], cwd=ROOT,
        capture_output=True, text=True)  # fmt: skip
    assert done.returncode == 0, done.stderr
    return folder


@pytest.mark.slow
def test_the_site_loads_nothing_from_elsewhere(site: Path) -> None:
    loads = re.compile(
        r"""<(?:script|img|iframe|source|video)[^>]*\ssrc=["']?(?:https?:)?//[^\s"'>]+"""
        r"""|<link[^>]*\srel=["']?(?:stylesheet|preload|preconnect|icon)[^>]*href=["']?(?:https?:)?//"""
    )
    for page in site.rglob("*.html"):
        assert not loads.search(page.read_text(encoding="utf-8")), page
    for sheet in site.rglob("*.css"):
        assert not re.search(r"(?:@import|url\()\s*[\"']?(?:https?:)?//", sheet.read_text(encoding="utf-8")), sheet


@pytest.mark.slow
def test_formulas_and_drawings_are_in_the_pages(site: Path) -> None:
    card = (site / "models/hmrn.html").read_text(encoding="utf-8")
    assert card.count("<math") >= 5 and "arithmatex" not in card
    assert 'class="drawing"' in (site / "design.html").read_text(encoding="utf-8")
    assert "hmrn-t2i" in card and "&lt;!-- rows" not in card and "<!-- rows" not in card
