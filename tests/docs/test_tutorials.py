"""The tutorials are scripts: every block of theirs runs, offline, and prints what the page shows.

``python -m tests.docs.test_tutorials [PAGE ...]`` runs them and writes what they print into the pages.
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tests.docs.pages import ROOT, Block, blocks, is_output, masked, run, tidy, with_output
from tests.interop.test_checkpoints import VOCABULARY, published

PAGES = [ROOT / "docs/first_steps.md", *sorted((ROOT / "docs/tutorials").glob("*.md"))]
SCREEN = {"COLUMNS": "100", "NO_COLOR": "1", "TERM": "dumb", "HF_HUB_OFFLINE": "1"}
TINY = [
    "image_text/scenes-dual", "dataset.options={train: 12, val: 6, test: 6, size: 48}", "image.options.size=32",
    "stages.0.epochs=1", "stages.0.eval_every=1", "stages.0.batch_size=12", "expect={}",
]  # fmt: skip


def belongings() -> None:
    """What a reader has in the current folder: photos, and a downloaded checkpoint (here a tiny one) with its words."""
    Path("photos").mkdir()
    rng = np.random.default_rng(0)
    for name in ("beach.jpg", *(f"{i}.jpg" for i in range(11))):
        Image.fromarray(rng.integers(0, 255, (48, 64, 3), dtype=np.uint8)).save(Path("photos", name))
    torch.save(published("sgr")[0], "SGR_f30k.pth.tar")
    VOCABULARY.save(Path("f30k_precomp_vocab.json"))


def stand_in(folder: Path) -> str:
    """A tiny trained run that stands for a pretrained model."""
    import xretrieve as xr

    if not folder.exists():
        xr.train(TINY[0], out=folder, progress=False, overrides=TINY[1:])
    return str(folder)


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the pages have in common: the cache with the drawn pictures, and the stand-in."""
    return tmp_path_factory.mktemp("shared")


@pytest.fixture(autouse=True)
def _alone(shared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """An empty folder, and nothing left behind on the path or in the environment."""
    for key, value in {**SCREEN, "XRETRIEVE_CACHE": str(shared / "cache")}.items():
        monkeypatch.setenv(key, value)
    monkeypatch.delenv("XRETRIEVE_DATA", raising=False)
    monkeypatch.chdir(tmp_path)
    path, environment, modules = list(sys.path), dict(os.environ), set(sys.modules)
    yield
    sys.path[:] = path
    for key in set(os.environ) - set(environment):
        del os.environ[key]
    for name in set(sys.modules) - modules:
        if str(getattr(sys.modules[name], "__file__", "")).startswith(str(tmp_path)):
            del sys.modules[name]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_a_tutorial_runs_and_prints_what_it_shows(page: Path, shared: Path) -> None:
    text = page.read_text(encoding="utf-8")
    model = stand_in(shared / "stand-in") if "<!-- stand-in" in text else ""
    belongings()
    told = run(text, page.relative_to(ROOT).as_posix(), model)
    assert told
    for block, shown, said in shows(text, told):
        assert masked(shown) == masked(tidy(said)), f"{page.name}: {block.text}prints\n{said}"


def shows(text: str, told: list[tuple[Block, str]]) -> list[tuple[Block, str, str]]:
    """Each block whose output the page shows: the block, what the page shows, what it printed."""
    places = blocks(text)
    after = dict(zip(places, [*places[1:], None], strict=True))
    return [(b, after[b].text, said) for b, said in told if after[b] is not None and is_output(text, b, after[b])]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_a_tutorial_shows_only_what_was_printed(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    places = blocks(text)
    for block, follows in zip(places, places[1:], strict=False):
        if follows.kind == "text":
            assert is_output(text, block, follows) and block.mark == "", f"{page.name}: nothing printed {follows.text}"


def rewrite(pages: list[Path]) -> None:
    """Run pages and write what they print into them."""
    home, scratch = Path.cwd(), Path(tempfile.mkdtemp())
    os.environ.update({**SCREEN, "XRETRIEVE_CACHE": os.environ.get("XRETRIEVE_CACHE", str(scratch / "cache"))})
    for page in pages:
        text = page.read_text(encoding="utf-8")
        folder = scratch / page.stem
        folder.mkdir()
        os.chdir(folder)
        belongings()
        model = stand_in(scratch / "stand-in") if "<!-- stand-in" in text else ""
        page.write_text(with_output(text, run(text, page.stem, model)), encoding="utf-8")
        os.chdir(home)


if __name__ == "__main__":
    rewrite([Path(name).resolve() for name in sys.argv[1:]] or PAGES)
