"""Losses over one score matrix of a batch.

InfoNCE and the hardest-negative hinge of VSE++ take ``scores (Q, G)``, one row per caption and one column per image of
the batch; by default the pair of row i is column i, and columns past Q are extra negatives. Both directions count:
captions rank images, images rank captions. Composed queries have cross-entropy that knows duplicates, and the soft
triplet of TIRG; these take logits, so the scale is the head's.

Sources: InfoNCE as in CLIP (arXiv 2103.00020); hinge as in VSE++ (arXiv 1707.05612) and SCAN (arXiv 1803.08024).
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

from xretrieve.errors import XRetrieveError, unknown

Stats = dict[str, Tensor]
DUPLICATES = ("mask", "positive", "ignore")
MATCH = ("q2g", "symmetric")


def find_duplicates(owners: Sequence[Any], texts: Sequence[str]) -> Tensor:
    """Which cells of a square batch are false negatives: (P, P) bool, False on the diagonal.

    Args:
        owners: (P,) what names the image of each item (row number or id).
        texts: (P,) the captions; equal after lower-casing and stripping counts as the same.

    >>> find_duplicates([4, 7, 4], ["a dog", "A dog ", "a cat"]).int().tolist()
    [[0, 1, 1], [1, 0, 0], [1, 0, 0]]
    """
    image_of = torch.tensor(_numbers(owners))
    text_of = torch.tensor(_numbers([t.lower().strip() for t in texts]))
    same = (image_of[:, None] == image_of[None]) | (text_of[:, None] == text_of[None])
    return same.fill_diagonal_(False)


def _numbers(keys: Sequence[Any]) -> list[int]:
    seen: dict[Any, int] = {}
    return [seen.setdefault(key, len(seen)) for key in keys]


class PairLoss(nn.Module):
    """What the losses share: which cells are positive, which are negative, and the numbers to log.

    Args:
        mask_duplicates: leave the cells given as ``duplicates`` out of the negatives.
    """

    def __init__(self, mask_duplicates: bool = True) -> None:
        super().__init__()
        self.mask_duplicates = mask_duplicates
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Tell the loss which epoch of its stage it is in (from 0); warm-up needs it."""
        self.epoch = epoch

    def cells(self, scores: Tensor, positives: Tensor | None, duplicates: Tensor | None) -> tuple[Tensor, Tensor]:
        """The positive and the negative cells, (Q, G) bool each; default positives: column i for row i."""
        q, g = scores.shape
        if positives is None:
            if q > g:
                raise XRetrieveError(f"loss: {q} captions but {g} images; row i needs its image in column i")
            positives = torch.eye(q, g, dtype=torch.bool, device=scores.device)
        negatives = ~positives
        if duplicates is not None and self.mask_duplicates:
            negatives = negatives & ~duplicates.to(scores.device)
        return positives, negatives

    @staticmethod
    def stats(scores: Tensor, positives: Tensor, negatives: Tensor) -> Stats:
        """Mean score of the positives and of each caption's hardest negative (0 when there is none)."""
        with torch.no_grad():
            hardest = scores.masked_fill(~negatives, -math.inf).amax(1)
            hardest = hardest[negatives.any(1)]
            mean = hardest.mean() if len(hardest) else scores.new_zeros(())
            return {"positive": scores[positives].mean(), "negative": mean}


class InfoNCE(PairLoss):
    """Softmax cross-entropy of each pair among the batch's negatives, mean of the two directions.

    Args:
        temperature: start value; the scores are divided by it.
        learnable: learn it (as its inverse in log, like CLIP).
        max_scale: largest 1 / temperature; the parameter is held at or below it.
        symmetric: also let the images rank the captions.
        directions: their losses are averaged (``mean``) or added up (``sum``, as HMRN does).
        label_smoothing: share of the target spread evenly over the pair's own positive and its negatives.
        mask_duplicates: see :class:`PairLoss`.

    >>> loss, stats = InfoNCE(temperature=1.0)(torch.zeros(2, 2))
    >>> round(loss.item(), 4)
    0.6931
    """

    def __init__(
        self,
        temperature: float = 0.07,
        learnable: bool = True,
        max_scale: float = 100.0,
        symmetric: bool = True,
        directions: str = "mean",
        label_smoothing: float = 0.0,
        mask_duplicates: bool = True,
    ) -> None:
        super().__init__(mask_duplicates)
        if temperature <= 0 or max_scale <= 0:
            raise XRetrieveError(
                f"infonce: temperature and max_scale must be above 0, got {temperature} and {max_scale}"
            )
        if not 0 <= label_smoothing < 1:
            raise XRetrieveError(f"infonce: label_smoothing must lie in [0, 1), got {label_smoothing}")
        if directions not in ("mean", "sum"):
            raise unknown("infonce option directions =", str(directions), ["mean", "sum"])
        start = torch.tensor(min(math.log(1 / temperature), math.log(max_scale)))
        self.log_scale = nn.Parameter(start, requires_grad=learnable)
        self.max_scale, self.symmetric, self.label_smoothing = max_scale, symmetric, label_smoothing
        self.share = 0.5 if directions == "mean" else 1.0

    def forward(
        self, scores: Tensor, positives: Tensor | None = None, duplicates: Tensor | None = None
    ) -> tuple[Tensor, Stats]:
        """The loss () and the numbers to log. scores (Q,G), positives and duplicates (Q,G) bool."""
        positives, negatives = self.cells(scores, positives, duplicates)
        with torch.no_grad():  # not inside the graph: a clamp there would stop the gradient at the limit for good
            self.log_scale.clamp_(max=math.log(self.max_scale))
        logits = scores * self.log_scale.exp().to(scores.dtype)
        loss = self._one_way(logits, positives, negatives)
        if self.symmetric:
            loss = (loss + self._one_way(logits.T, positives.T, negatives.T)) * self.share
        return loss, {**self.stats(scores, positives, negatives), "scale": self.log_scale.detach().exp()}

    def _one_way(self, logits: Tensor, positives: Tensor, negatives: Tensor) -> Tensor:
        row, column = positives.nonzero(as_tuple=True)  # K pairs
        own = logits[row, column]  # (K,)
        others = logits[row].masked_fill(~negatives[row], -math.inf)  # (K,G)
        total = torch.logsumexp(torch.cat([own[:, None], others], 1), 1)  # (K,)
        loss = total - own
        if self.label_smoothing:
            count = 1 + negatives[row].sum(1)
            mean = (own + others.masked_fill(~negatives[row], 0).sum(1)) / count
            loss = (1 - self.label_smoothing) * loss + self.label_smoothing * (total - mean)
        return loss.mean()


class HardestHinge(PairLoss):
    """``[margin + negative - positive]+`` of the hardest negative, both directions, summed over the batch.

    A row without a negative contributes 0; a batch of one pair gives 0.

    Args:
        margin: how far a positive must lie above its negatives, in units of the score.
        warmup_epochs: epochs that sum over all negatives first; the hardest one alone can collapse from a random start.
        negatives: ``hardest``, or ``all`` to sum over every negative in every epoch.
        reduction: ``sum`` over the pairs (published learning rates and clipping are tuned for it) or ``mean``.
        mask_duplicates: see :class:`PairLoss`.

    >>> loss, stats = HardestHinge(margin=0.2)(torch.tensor([[0.9, 0.8], [0.1, 0.9]]))
    >>> round(loss.item(), 4), stats["active"].item()
    (0.2, 0.5)
    """

    def __init__(
        self,
        margin: float = 0.2,
        warmup_epochs: int = 0,
        negatives: str = "hardest",
        reduction: str = "sum",
        mask_duplicates: bool = True,
    ) -> None:
        super().__init__(mask_duplicates)
        if negatives not in ("hardest", "all"):
            raise unknown("hinge option negatives =", str(negatives), ["hardest", "all"])
        if reduction not in ("sum", "mean"):
            raise unknown("hinge option reduction =", str(reduction), ["sum", "mean"])
        if margin < 0 or warmup_epochs < 0:
            raise XRetrieveError(
                f"hinge: margin and warmup_epochs must not be negative, got {margin} and {warmup_epochs}"
            )
        self.margin, self.warmup_epochs, self.reduction, self.kind = margin, warmup_epochs, reduction, negatives

    def forward(
        self, scores: Tensor, positives: Tensor | None = None, duplicates: Tensor | None = None
    ) -> tuple[Tensor, Stats]:
        """The loss () and the numbers to log. scores (Q,G), positives and duplicates (Q,G) bool."""
        positives, negatives = self.cells(scores, positives, duplicates)
        costs = torch.cat(
            [self._one_way(scores, positives, negatives), self._one_way(scores.T, positives.T, negatives.T)]
        )
        loss = costs.sum() if self.reduction == "sum" else costs.mean()
        active = (costs.detach() > 0).to(scores.dtype).mean()
        return loss, {**self.stats(scores, positives, negatives), "active": active}

    def _one_way(self, scores: Tensor, positives: Tensor, negatives: Tensor) -> Tensor:
        row, column = positives.nonzero(as_tuple=True)  # K pairs
        own = scores[row, column]  # (K,)
        hinge = (self.margin + scores[row] - own[:, None]).clamp(min=0)  # (K,G)
        hinge = hinge.masked_fill(~negatives[row], 0)
        summed = self.kind == "all" or self.epoch < self.warmup_epochs
        return hinge.sum(1) if summed else hinge.amax(1)  # (K,)


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


_LOSSES: dict[str, type[PairLoss]] = {"infonce": InfoNCE, "hinge": HardestHinge}
_COMPOSED: dict[str, type[Any]] = {"match": Match, "soft_triplet": SoftTriplet}


def _losses(task: str) -> dict[str, type[Any]]:
    return dict(_COMPOSED) if task == "composed" else dict(_LOSSES) if task else {**_LOSSES, **_COMPOSED}


def list_losses(task: str = "") -> list[str]:
    """Names that :func:`create_loss` knows, of one task or of all.

    >>> list_losses("image_text")
    ['hinge', 'infonce']
    """
    return sorted(_losses(task))


def create_loss(name: str, **options: Any) -> Any:
    """Build a loss by name; an unknown name or option is an error that names the nearest one.

    >>> create_loss("hinge", margin=0.1).margin
    0.1
    """
    known = _losses("")
    if name not in known:
        raise unknown("loss", name, known)
    taken = inspect.signature(known[name]).parameters.values()
    allowed = [p.name for p in taken if p.kind is p.POSITIONAL_OR_KEYWORD]
    for key in options:
        if key not in allowed:
            raise unknown(f"option of loss {name!r}:", key, allowed)
    return known[name](**options)
