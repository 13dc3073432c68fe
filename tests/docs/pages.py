"""A page of the documentation as a script: its fenced blocks are run in order, in one folder.

- ``sh``: each line is a command. ``xretrieve ...`` runs in this process, anything else in a shell.
- ``python``: run in one namespace per page. A block with ``title="PATH"``, of any language, is a file to write.
- ``text``, directly after a block that was run: what it printed.

A comment above a block says how it is treated: ``<!-- not run: WHY -->`` only parses it, ``<!-- stand-in: WHY -->``
runs it with a tiny trained model in place of the pretrained one that it names, and shows no output.
"""

from __future__ import annotations

import contextlib
import glob
import io
import os
import re
import shlex
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from xretrieve.cli.main import main

ROOT = Path(__file__).resolve().parents[2]
FENCE = re.compile(r'^(?:<!-- ([a-z -]+): .*? -->\n)?```(\w+)(?: title="([^"]+)")?\n(.*?)^```$', re.M | re.S)
PRETRAINED = re.compile(r"open_clip:[\w./-]+")
RUN = ("sh", "python")


@dataclass(frozen=True)
class Block:
    """One fenced block: its language, the file it is (or none), how it is treated, its lines, and where they stand."""

    kind: str
    title: str
    mark: str
    text: str
    span: tuple[int, int]

    @property
    def runs(self) -> bool:
        return self.kind in RUN and not self.title and self.mark != "not run"


def blocks(page: str) -> list[Block]:
    """The fenced blocks of a page in order."""
    return [Block(m[2], m[3] or "", m[1] or "", m[4], m.span(4)) for m in FENCE.finditer(page)]


def lines(block: Block) -> list[str]:
    """The commands of a ``sh`` block, comments left out; a line that ends in a backslash goes on in the next."""
    joined = block.text.replace("\\\n", " ").splitlines()
    return [line for line in joined if line.strip() and not line.lstrip().startswith("#")]


def commands(page: str, program: str = "xretrieve") -> list[list[str]]:
    """The words after ``xretrieve`` of every command of a page, also of those behind a pipe."""
    found = []
    for block in blocks(page):
        for line in lines(block) if block.kind == "sh" else ():
            for part in re.split(r"\s[|&]{1,2}\s", line):
                words = shlex.split(part, comments=True)
                found += [words[1:]] if words[:1] == [program] else []
    return found


class PageError(AssertionError):
    """A block that failed: which page, which lines, and why."""


def run(page: str, name: str, stand_in: str = "") -> list[tuple[Block, str]]:
    """Run a page in the current folder. What each block that runs printed on stdout, in order.

    Args:
        stand_in: the run folder that stands for pretrained models.
    """
    namespace: dict[str, Any] = {"__name__": name}
    told = []
    for block in blocks(page):
        if block.title:
            Path(block.title).parent.mkdir(parents=True, exist_ok=True)
            Path(block.title).write_text(block.text, encoding="utf-8")
        elif block.runs:
            text = PRETRAINED.sub(stand_in, block.text) if block.mark == "stand-in" else block.text
            spot = f"{name}, line {page[: block.span[0]].count(chr(10)) + 1}"
            told.append(
                (block, _python(text, namespace, spot) if block.kind == "python" else _shell(block, text, spot))
            )
    return told


def _python(text: str, namespace: dict[str, Any], spot: str) -> str:
    out = io.StringIO()
    try:
        with contextlib.redirect_stdout(out):
            exec(compile(text, spot, "exec"), namespace)
    except Exception as error:
        raise PageError(f"{spot}: {type(error).__name__}: {error}") from error
    return out.getvalue()


def _shell(block: Block, text: str, spot: str) -> str:
    said = ""
    for line in lines(Block(block.kind, "", "", text, block.span)):
        words = shlex.split(line, comments=True)
        if words[0] == "export":
            key, _, value = words[1].partition("=")
            os.environ[key] = os.path.expanduser(value)
        elif words[0] == "xretrieve" and not {"|", ">", "&&"} & set(words):
            said += _verb([name for word in words[1:] for name in (sorted(glob.glob(word)) or [word])], spot)
        elif words[:2] == ["pip", "install"]:
            said += _install(words[2:], spot)
        else:
            said += _bash(line, spot)
    return said


def _verb(words: list[str], spot: str) -> str:
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        status = main(words)
    if status != 0:
        raise PageError(f"{spot}: xretrieve {shlex.join(words)}: status {status}: {err.getvalue()}")
    return out.getvalue()


def _install(words: list[str], spot: str) -> str:
    """A local package goes into ./site, which is put on the path: the environment stays as it is."""
    site = Path("site").resolve()
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation",
           "--disable-pip-version-check", "--target", str(site)]  # fmt: skip
    done = subprocess.run([*pip, *words], capture_output=True, text=True)
    if done.returncode != 0:
        raise PageError(f"{spot}: pip install {shlex.join(words)}: {done.stderr}")
    sys.path.insert(0, str(site))
    return ""


def _bash(line: str, spot: str) -> str:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(["bash", "-c", line], capture_output=True, text=True, env={**os.environ, "PATH": path})
    if done.returncode != 0:
        raise PageError(f"{spot}: {line}: status {done.returncode}: {done.stderr}")
    return done.stdout


def with_output(page: str, told: list[tuple[Block, str]]) -> str:
    """The page with the ``text`` block after each block that ran holding what that block printed."""
    places = blocks(page)
    for block, said in reversed(told):
        place = places.index(block) + 1
        follows = places[place] if place < len(places) else None
        if follows is not None and is_output(page, block, follows):
            page = page[: follows.span[0]] + tidy(said) + page[follows.span[1] :]
    return page


def is_output(page: str, block: Block, follows: Block) -> bool:
    """Whether a ``text`` block stands directly after a block that is run."""
    between = page[block.span[1] : follows.span[0]]
    return follows.kind == "text" and block.runs and between == "```\n\n```text\n"


def tidy(said: str) -> str:
    """Output without blank lines at its ends and blanks at the ends of its lines."""
    kept = [line.rstrip() for line in said.splitlines()]
    return "\n".join(kept).strip("\n") + "\n"


def masked(text: str) -> str:
    """Output without what another machine may print differently: numbers, the widths of columns and rules."""
    text = re.sub(r"[-+]?\d[\d.,e-]*", "#", text)
    return " ".join(re.sub(r"[─━┄=]+|-{3,}", "-", text).split())
