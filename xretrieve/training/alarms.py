"""What a training says of itself while it runs: a collapsed loss, statistics that processes do not share."""

from __future__ import annotations

from collections.abc import Mapping

from torch import nn

from xretrieve.training.recipe import StageConfig

ALIKE = 0.05  # of the margin: how near positives and hardest negatives lie where all scores are alike


def collapsed(stage: StageConfig, number: int, logged: Mapping[str, float]) -> str:
    """A sentence where the hardest-negative hinge has made all scores alike, '' else.

    The last step then has every pair within the margin, and the hardest negatives as high as the positives: the loss
    stays at the margin, and no gradient tells the pairs apart.

    Args:
        stage: that is trained.
        number: of it, for the key to set.
        logged: numbers of the last step: ``positive``, ``negative`` and the share of ``active`` pairs.
    """
    if stage.loss is None or stage.loss.name != "hinge" or not {"positive", "negative", "active"} <= logged.keys():
        return ""
    options = stage.loss.options
    margin = float(options.get("margin", 0.2))
    if options.get("negatives", "hardest") != "hardest" or options.get("warmup_epochs", 0):
        return ""
    near = abs(logged["negative"] - logged["positive"]) < ALIKE * margin
    if not near or logged["active"] < 0.99:
        return ""
    return (
        f"stage {stage.name!r}: after its first epoch all scores are alike (positives {logged['positive']:.3f}, "
        f"hardest negatives {logged['negative']:.3f}): the hardest-negative loss has collapsed. Set "
        f"stages.{number}.loss.options.warmup_epochs=1 (all negatives first), a lower stages.{number}.lr (now "
        f"{stage.lr:g}) or a larger batch_size"
    )


def norms_apart(model: nn.Module, processes: int) -> str:
    """A sentence where batch norm sees only its own process's share of a batch, '' else."""
    norms = [m for m in model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    learning = any(p.requires_grad for p in model.parameters())
    if processes < 2 or not norms or not learning:
        return ""
    return (
        f"{len(norms)} batch norms take their statistics of each process's own share of the batch (1/{processes}): the "
        "numbers are not those of one device; a batch as many times as large makes each share what one device had"
    )
