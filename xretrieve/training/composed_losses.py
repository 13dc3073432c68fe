"""Losses on composed queries: cross-entropy that knows duplicates, and the soft triplet of TIRG.

Both are found by name (:func:`xretrieve.training.create_loss`); they take logits, so the scale is the head's.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor, nn

from xretrieve.errors import XRetrieveError, unknown
from xretrieve.training.losses import PairLoss, Stats

DUPLICATES = ("mask", "positive", "ignore")
MATCH = ("q2g", "symmetric")


def match_loss(logits: Tensor, duplicates: Tensor | None = None, how: str = "ignore") -> Tensor:
    """Cross-entropy of each query with its target among the batch's targets, a mean over the rows ().

    Args:
        logits: (B, P), P >= B; the target of row i is column i.
        duplicates: (B, P) bool, further true answers; the diagonal does not count.
        how: ``mask`` leaves them out of the softmax, ``positive`` counts them as hits, ``ignore`` as wrong answers.

    >>> round(match_loss(torch.zeros(2, 2)).item(), 4)
    0.6931
    """
    if how not in DUPLICATES:
        raise unknown("match option duplicates =", str(how), DUPLICATES)
    own = logits.diagonal()  # (B,)
    if duplicates is None or how == "ignore":
        return (logits.logsumexp(1) - own).mean()
    same = duplicates & ~torch.eye(*logits.shape, dtype=torch.bool, device=logits.device)
    if how == "mask":
        return (logits.masked_fill(same, -math.inf).logsumexp(1) - own).mean()
    hits = torch.eye(*logits.shape, dtype=torch.bool, device=logits.device) | same
    return (logits.logsumexp(1) - logits.masked_fill(~hits, -math.inf).logsumexp(1)).mean()


class Match(PairLoss):
    """:func:`match_loss` of queries against targets.

    Args:
        match: ``q2g``, or ``symmetric``: the mean with the loss of targets against queries.
        duplicates: what is done with further true answers, see :func:`match_loss`.
    """

    def __init__(
        self, match: Literal["q2g", "symmetric"] = "q2g", duplicates: Literal["mask", "positive", "ignore"] = "mask"
    ) -> None:
        super().__init__(duplicates == "mask")
        if match not in MATCH:
            raise unknown("match option match =", str(match), MATCH)
        if duplicates not in DUPLICATES:
            raise unknown("match option duplicates =", str(duplicates), DUPLICATES)
        self.match, self.how = match, duplicates

    def forward(
        self, scores: Tensor, positives: Tensor | None = None, duplicates: Tensor | None = None
    ) -> tuple[Tensor, Stats]:
        """The loss () and the numbers to log. scores (B,P) are logits, duplicates (B,P) bool; row i has column i."""
        if positives is not None:
            raise XRetrieveError("loss 'match' takes the target of row i from column i, not from positives")
        if len(scores) > scores.shape[1]:
            raise XRetrieveError(f"loss: {len(scores)} queries but {scores.shape[1]} targets; row i has column i")
        loss = match_loss(scores, duplicates, self.how)
        if self.match == "symmetric":
            square = scores[:, : len(scores)]
            back = None if duplicates is None else duplicates[:, : len(scores)].T
            loss = (loss + match_loss(square.T, back, self.how)) / 2
        cells, others = self.cells(scores, None, duplicates)
        return loss, self.stats(scores, cells, others)


class SoftTriplet(nn.Module):
    """TIRG's soft triplet over all triplets of the batch: mean of log(1 + exp(d_ab - d_an)).

    The points are the queries and the targets; a and b are a query and its target in either order, n is any other
    point. The published code draws three n for each a.
    """

    def set_epoch(self, epoch: int) -> None:
        """The same in every epoch."""

    def of(self, query: Tensor, target: Tensor, duplicates: Tensor | None = None) -> tuple[Tensor, Stats]:
        """The loss () and the numbers to log.

        Args:
            query, target: (B, D), scaled as the head scales them.
            duplicates: (B, B) bool, pairs of rows that must not be each other's n.
        """
        count = len(query)
        points = torch.cat([query, target]).float()  # (2B,D)
        squares = points.square().sum(1)
        distances = (squares[:, None] + squares - 2 * points @ points.T).clamp(min=0)  # (2B,2B)
        label = torch.arange(count, device=query.device).repeat(2)
        other = label[:, None] != label
        if duplicates is not None:
            same = duplicates | duplicates.T
            other = other & ~same.repeat(2, 2)
        partner = torch.arange(2 * count, device=query.device).roll(count)
        near = distances.gather(1, partner[:, None])  # (2B,1)
        terms = torch.nn.functional.softplus(near - distances)[other]
        loss = terms.mean() if len(terms) else 0 * points.sum()
        with torch.no_grad():
            far = distances[other].mean() if len(terms) else points.new_zeros(())
            return loss, {"positive": -near.mean(), "negative": -far}
