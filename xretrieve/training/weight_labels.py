"""Labels that teach the weights of image and text of a composed query; made from the target, no one writes them.

A training signal only: at inference there is no target, and the weights come from the query alone.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from xretrieve.errors import unknown
from xretrieve.heads.composed import cosines

LABELS = ("none", "logprob", "cosine", "grid")
_GRID = sorted((v / 10 for v in range(11)), key=lambda v: (abs(v - 0.5), v))  # in the order of preference among equals


@torch.no_grad()
def weight_labels(
    u: Tensor,
    s: Tensor,
    g: Tensor,
    kind: str = "logprob",
    masked: Tensor | None = None,
    tau: float = 0.05,
    kappa: float = 4.0,
) -> tuple[Tensor, Tensor]:
    """How much of the image and of the text would find the target.

    Args:
        u, s: (B, D), unit vectors of reference images and texts.
        g: (P, D), unit vectors of targets; that of row i is row i.
        kind: ``logprob`` (the log-probability that each modality alone gives the target among g), ``cosine`` (its
            cosine with the target), or ``grid`` (the best of eleven weights).
        masked: (B, P) bool, columns that are left out, the own one never.
        tau: temperature of the softmax over the targets.
        kappa: ``logprob``: temperature of the label; large ones give 1/2.

    Returns:
        Labels (B, 2), image first, rows sum to 1; and (B,) bool, which rows have one: more than one column is left.
    """
    if kind not in LABELS[1:]:
        raise unknown("weight label", kind, LABELS)
    own = torch.eye(len(u), len(g), dtype=torch.bool, device=u.device)
    left = own if masked is None else own | ~masked  # (B,P)
    left = left if masked is not None else torch.ones_like(own)
    image, text = cosines(u, g).double(), cosines(s, g).double()  # (B,P)

    def sure(scores: Tensor) -> Tensor:
        """Log-probability (..., B) of the own column."""
        return (scores / tau).masked_fill(~left, -math.inf).log_softmax(-1).diagonal(dim1=-2, dim2=-1)

    if kind == "logprob":
        label = (torch.stack([sure(image), sure(text)], 1) / kappa).softmax(1)
    elif kind == "cosine":
        label = (torch.stack([image.diagonal(), text.diagonal()], 1) / 0.1).softmax(1)
    else:
        v = image.new_tensor(_GRID)[:, None]  # (V,1)
        inner = (u.double() * s.double()).sum(1)  # (B,)
        lengths = (v**2 * u.double().square().sum(1) + (1 - v) ** 2 * s.double().square().sum(1)
                   + 2 * v * (1 - v) * inner).clamp(min=0).sqrt().clamp(min=1e-12)  # (V,B)  # fmt: skip
        found = sure((v[..., None] * image + (1 - v[..., None]) * text) / lengths[..., None])  # (V,B)
        best = found >= found.amax(0) - 1e-9
        first = best.int().mul(torch.arange(len(_GRID), 0, -1, device=u.device)[:, None]).argmax(0)
        chosen = v[first, 0]
        label = torch.stack([chosen, 1 - chosen], 1)
    return label.to(u.dtype), left.sum(1) > 1


def label_losses(log_weights: Tensor, label: Tensor) -> Tensor:
    """Kullback-Leibler divergence of each row's weights from its label, (B,); 0 log 0 = 0."""
    return (torch.xlogy(label, label) - label * log_weights).sum(1)
