"""What mkdocs does beside its plug-ins: pages that lie outside ``docs/``, links to them, formulas, and the drawings.

Pages are written so that they read well where the repository is shown as well; the site is made of the same files.
Rows of measured tables are copied from the page that they stand on: ``<!-- rows: FILE | HEADING | ROW; ROW -->``.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
LINK = re.compile(r"(?<!!)\[([^\]]+)\]\(([^)\s#]+)(#[^)\s]*)?\)")
FORMULA = re.compile(r'<(span|div) class="arithmatex">\\([(\[])(.*?)\\[)\]]</\1>', re.S)
ROWS = re.compile(r"<!-- rows: (\S+) \| (.+?) \| (.+?) -->")
DRAWING = re.compile(r'<img alt="([^"]*)" src="([^"]*\.svg)"\s*/?>')
CLAIMS = "claims.md"
# file of the repository: its page on the site
OUTSIDE = {
    **{f"tasks/{p.parent.name}/README.md": f"tasks/{p.parent.name}.md" for p in ROOT.glob("tasks/*/README.md")},
    **{name: name.lower() for name in ("CHANGELOG.md", "CONTRIBUTING.md") if (ROOT / name).is_file()},
    "benchmarks/results/claims/report.md": CLAIMS,
}
PICTURES = {f"plots/{p.name}": p for p in (ROOT / "benchmarks/results/claims/plots").glob("*.png")}  # beside claims.md
SOURCES = {page: name for name, page in OUTSIDE.items()}


def on_files(files: Any, config: Any) -> Any:
    """Add the pages that lie outside ``docs/``, and their pictures."""
    from mkdocs.structure.files import File

    for name, page in OUTSIDE.items():
        files.append(File.generated(config, page, content=(ROOT / name).read_text(encoding="utf-8")))
    for uri, path in PICTURES.items():
        files.append(File.generated(config, uri, abs_src_path=str(path)))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Any) -> str:
    """Links between files of the repository become links between pages; to files that are no page, their name."""
    here = page.file.src_uri
    if here == CLAIMS:
        page.meta["hide"] = ["toc"]  # its tables are wide
    source = SOURCES.get(here, f"docs/{here}")

    def follow(match: re.Match[str]) -> str:
        text, target, anchor = match[1], match[2], match[3] or ""
        if "://" in target or target.startswith("mailto:"):
            return match[0]
        file = os.path.normpath(os.path.join(os.path.dirname(source), target))
        to = OUTSIDE.get(file) or (file.removeprefix("docs/") if file.startswith("docs/") else "")
        if to:
            return f"[{text}]({os.path.relpath(to, os.path.dirname(here) or '.')}{anchor})"
        return text if (ROOT / file).exists() else match[0]  # what is not there is left for mkdocs to complain about

    return LINK.sub(follow, ROWS.sub(lambda m: measured(*m.groups()), markdown))


def measured(file: str, heading: str, rows: str) -> str:
    """The head of the first table under a heading of a page, and those of its rows whose first cell is named."""
    text = (ROOT / file).read_text(encoding="utf-8")
    section = re.search(rf"^#+ {re.escape(heading)}$(.*?)(?=^#|\Z)", text, re.M | re.S)
    table = re.search(r"(?:^\|.*\n)+", section[1], re.M) if section else None
    if table is None:
        raise ValueError(f"{file} has no table under the heading {heading!r}")
    lines = table[0].splitlines()
    kept = []
    for name in rows.split(";"):
        found = [line for line in lines[2:] if _label(line) == name.strip()]
        if not found:
            raise ValueError(f"{file} has no row {name.strip()!r} under the heading {heading!r}")
        kept += found
    return "\n".join([*lines[:2], *kept])


def _label(line: str) -> str:
    return re.sub(r"[`*]", "", line.split("|")[1]).strip()


def on_page_content(html: str, page: Any, config: Any, files: Any) -> str:
    """Formulas as MathML, which browsers show by themselves; drawings in the page, so that they take its colours."""
    from latex2mathml.converter import convert

    def formula(match: re.Match[str]) -> str:
        latex = match[3].replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&")
        return convert(latex, display="block" if match[2] == "[" else "inline")

    def drawing(match: re.Match[str]) -> str:
        file = ROOT / "docs" / os.path.normpath(os.path.join(os.path.dirname(page.file.src_uri), match[2]))
        svg = file.read_text(encoding="utf-8").replace("<svg ", f'<svg role="img" aria-label="{match[1]}" ', 1)
        return svg[svg.index("<svg ") :]

    return DRAWING.sub(drawing, FORMULA.sub(formula, html))
