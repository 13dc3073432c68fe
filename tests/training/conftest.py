"""A tiny learnable data set in the precomp layout: no picture is decoded, a run takes a second or two."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from xretrieve.training.recipe import BackboneConfig, DatasetConfig, HeadConfig, LossConfig, Recipe, StageConfig

WORDS = "dog cat tree car house boat bird fish red blue green big small old new wet".split()
WIDTH = 12


def write_split(folder: Path, split: str, images: int, rng: np.random.Generator, vectors: np.ndarray) -> None:
    """Each region of an image shows one of its words; each caption says three of its four words."""
    chosen = np.stack([rng.permutation(len(WORDS))[:4] for _ in range(images)])  # (N,4)
    regions = vectors[chosen] + 0.3 * rng.standard_normal((images, 4, WIDTH))
    np.save(folder / f"{split}_ims.npy", regions.astype(np.float32))
    captions = [" ".join(WORDS[w] for w in rng.permutation(row)[:3]) for row in chosen for _ in range(5)]
    (folder / f"{split}_caps.txt").write_text("\n".join(captions) + "\n", encoding="utf-8")
    (folder / f"{split}_ids.txt").write_text("\n".join(f"{split}{i}" for i in range(images)) + "\n", encoding="utf-8")


@pytest.fixture
def precomp(tmp_path: Path) -> Path:
    """A data root with f30k_precomp: 32 / 12 / 12 images."""
    folder = tmp_path / "data" / "f30k_precomp"
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    vectors = rng.standard_normal((len(WORDS), WIDTH))
    for split, images in (("train", 32), ("dev", 12), ("test", 12)):
        write_split(folder, split, images, rng, vectors)
    return tmp_path / "data"


@pytest.fixture
def tiny(make_recipe: Callable[..., Recipe]) -> Recipe:
    """Regions, words with dropout, a dual head; 10 steps an epoch."""
    return make_recipe()


@pytest.fixture
def make_recipe(precomp: Path) -> Callable[..., Recipe]:
    """The recipe of the tests; keywords change its one stage."""
    return lambda **stage: _recipe(precomp, **stage)


def _recipe(root: Path, **stage: Any) -> Recipe:
    base: dict[str, Any] = {
        "epochs": 2,
        "batch_size": 16,
        "lr": 0.01,
        "clip": 2.0,
        "token_dropout": 0.2,
        "word_dropout": 0.1,
    }
    return Recipe(
        name="tests/tiny",
        dataset=DatasetConfig("flickr30k", root=str(root), layout="precomp"),
        image=BackboneConfig("regions", frozen=True, options={"dim": WIDTH}),
        text=BackboneConfig("words", options={"min_count": 1, "word_dim": 16, "dim": 16, "dropout": 0.2}),
        head=HeadConfig("dual", {"dim": 16, "image_pool": "mean"}),
        stages=[StageConfig(**{"loss": LossConfig("infonce"), **base, **stage})],
        protocol="full",
    )
