"""A tiny recipe for composed queries on a few small scenes, with both kinds of stage."""

from __future__ import annotations

from typing import Any

from xretrieve.training.recipe import (
    BackboneConfig,
    CompositionConfig,
    DatasetConfig,
    DomainConfig,
    HeadConfig,
    LossConfig,
    Recipe,
    StageConfig,
)

SCENES = {"train": 40, "val": 12, "test": 12, "size": 48}


def tiny_composed(
    head: str = "progressive", options: dict[str, Any] | None = None, frozen: bool = True, seed: int = 0,
    domain: dict[str, Any] | None = None, composition: dict[str, Any] | None = None, loss: str = "match",
    **stage: Any,
) -> Recipe:  # fmt: skip
    """Two stages of one and two epochs; ``stage`` sets keys of both."""
    base: dict[str, Any] = {"batch_size": 12, "lr": 0.01, **stage}
    first = StageConfig(LossConfig("match", {"match": "symmetric"}), 1, name="domain", batching="images",
                        domain=DomainConfig(**(domain or {})), **base)  # fmt: skip
    second = StageConfig(LossConfig(loss), 2, name="composition",
                         composition=CompositionConfig(**(composition or {})), **base)  # fmt: skip
    image = {"pretrained": False, "size": 32, "mean": 0.5, "std": 0.5}
    return Recipe(
        name="tests/composed",
        task="composed",
        dataset=DatasetConfig("scenes", options=SCENES),
        image=BackboneConfig("timm:test_resnet", frozen=frozen, options=image),
        text=BackboneConfig("words", options={"min_count": 1, "word_dim": 8, "dim": 8, "dropout": 0.1}),
        head=HeadConfig(head, {"dim": 8, **(options or {})}),
        stages=[first, second],
        protocol="scenes/split/removed/each",
        seed=seed,
    )
