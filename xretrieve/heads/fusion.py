"""Simple ways from the scores of single sentences to those of a query set after each round.

They need no training and no head of their own. Arrays of pairs are (T, N, M): rounds, images, query sets. A set of
fewer sentences than T repeats its last round.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from xretrieve.errors import unknown

COMBINE = ("head", "mean_similarity", "rank_fusion", "paragraph")
JOINT = ";"  # between the sentences of a paragraph, as in Drill-down's code


def check_combine(combine: str) -> str:
    """The name, or an error that names the nearest one; an empty name is ``head``."""
    if combine and combine not in COMBINE:
        raise unknown("way to combine sentences", combine, COMBINE)
    return combine or "head"


def combine_rounds(alone: Tensor, sizes: Sequence[int] | Tensor, combine: str) -> Tensor:
    """Scores (T, N, M) after each round.

    Args:
        alone: (S, N) scores of every sentence (with ``paragraph``: of every prefix joined into one text) with every
            image, set after set, S the sum of ``sizes``.
        sizes: (M,) sentences of each set.
        combine: ``mean_similarity`` (mean of the sentences' scores), ``rank_fusion`` (minus the mean of the ranks that
            the sentences give an image) or ``paragraph`` (each prefix has its own score).

    >>> combine_rounds(torch.tensor([[1.0], [3.0], [2.0]]), [2, 1], "mean_similarity").squeeze(1).tolist()
    [[1.0, 2.0], [2.0, 2.0]]
    """
    check_combine(combine)
    if combine == "rank_fusion":
        alone = -ranks_of_all(alone)
    sizes = torch.as_tensor(sizes, device=alone.device)
    place = torch.arange(int(sizes.max()), device=alone.device)[:, None]  # (T,1)
    real = place < sizes  # (T,M)
    start = sizes.cumsum(0) - sizes
    rows = start + torch.minimum(place, sizes - 1)  # (T,M), a short set's last sentence again and again
    scores = alone[rows].transpose(1, 2)  # (T,N,M)
    if combine == "paragraph":
        return scores
    said = torch.minimum(place + 1, sizes)[:, None]  # (T,1,M)
    return (scores * real[:, None]).cumsum(0) / said


def ranks_of_all(scores: Tensor) -> Tensor:
    """0-based expected rank of every image for every row: #greater + half of #equal among the others. (S, N).

    >>> ranks_of_all(torch.tensor([[0.5, 0.9, 0.5, 0.1]])).tolist()
    [[1.5, 0.0, 1.5, 3.0]]
    """
    ordered = scores.sort(dim=1).values.contiguous()
    below = torch.searchsorted(ordered, scores.contiguous(), right=False)  # scores that are smaller
    up_to = torch.searchsorted(ordered, scores.contiguous(), right=True)
    return (scores.shape[1] - up_to) + (up_to - below - 1) / 2


def paragraphs(sentences: Sequence[str]) -> list[str]:
    """Every prefix of a set joined into one text.

    >>> paragraphs(["a dog", "snow"])
    ['a dog', 'a dog;snow']
    """
    return [JOINT.join(sentences[: n + 1]) for n in range(len(sentences))]
