"""What one training step runs: encode, hide tokens, prepare, score the block, loss. One forward call, for DDP."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from xretrieve.heads.abilities import GroupLosses
from xretrieve.heads.base import Head
from xretrieve.tokens import Prepared, Tokens
from xretrieve.training.losses import PairLoss, Stats


def hide_tokens(tokens: Tokens, share: float) -> Tokens:
    """Take each real local token out of the mask with probability ``share``; at least one stays.

    The pooled vector is left as it is. Random numbers come from torch's global generator.
    """
    if not share or not tokens.local.shape[1]:
        return tokens
    draw = torch.rand(tokens.mask.shape, device=tokens.device).masked_fill(~tokens.mask, -1)  # (N,L)
    stays = (draw >= share).scatter(1, draw.argmax(1, keepdim=True), True)
    return type(tokens)(tokens.local, tokens.mask & stays, tokens.pooled)


class _GatherRows(torch.autograd.Function):
    """All-gather whose backward pass sums the gradient over the processes and keeps the own rows.

    Written out because torch.distributed.nn's all_gather (what Fabric's ``sync_grads=True`` calls) returned wrong
    gradients with gloo on torch 2.15: the test of two processes against one caught it.
    """

    @staticmethod
    def forward(ctx: Any, part: Tensor) -> Tensor:
        ctx.rows = len(part)
        return _join(part)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        total = gradient.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(total)
        start = dist.get_rank() * ctx.rows
        return total[start : start + ctx.rows]


def _join(part: Tensor) -> Tensor:
    parts = [torch.empty_like(part, memory_format=torch.contiguous_format) for _ in range(dist.get_world_size())]
    dist.all_gather(parts, part.contiguous())
    return torch.cat(parts)


class Gather:
    """Join what the processes computed, with gradients, so that the negatives are those of the whole batch.

    The backward pass sums the gradient over the processes and DDP averages the parameters' gradients, so 2 x 64 items
    give the loss and the gradient of 1 x 128.
    """

    def __init__(self, world: int = 1) -> None:
        self.world = world

    def rows(self, part: Tensor) -> Tensor:
        """(n, ...) of each process to (world * n, ...)."""
        return part if self.world == 1 else _GatherRows.apply(part)

    def tokens(self, part: Prepared) -> Prepared:
        """The same for tokens, padded to the longest."""
        if self.world == 1:
            return part
        lengths = _join(torch.tensor([part.local.shape[1]], device=part.device))
        part = part.pad_to(int(lengths.max()))
        mask = _join(part.mask.to(torch.uint8)).bool()
        extra = {name: self.rows(values) for name, values in part.extra.items()}
        return type(part)(self.rows(part.local), mask, self.rows(part.pooled), extra)


class Trainee(nn.Module):
    """The parts that take part in the step.

    Args:
        head: the head.
        loss: one of :mod:`xretrieve.training.losses`; None leaves the pair stage out, for ``coarse_loss`` alone.
        image: image backbone when it learns; None when its tokens come from the cache.
        text: text backbone, the same.
        gather: joins the processes' parts.
        coarse_loss: a second loss, on the cosines of the coarse vectors.
        coarse_weight: factor on it.
        group: score pairs only within groups of this many items of a block, 0 for all pairs; the coarse loss always
            reads the whole block.

    A head may define ``training_scores(queries, gallery) -> dict[str, Tensor]``: the loss is then the sum over these
    matrices (auxiliary streams, probabilities instead of logits), weighted by ``head.loss_weights``; otherwise it is
    taken on ``head.score``.
    """

    def __init__(
        self,
        head: Head,
        loss: PairLoss | None,
        image: nn.Module | None = None,
        text: nn.Module | None = None,
        gather: Gather | None = None,
        coarse_loss: PairLoss | None = None,
        coarse_weight: float = 1.0,
        group: int = 0,
    ) -> None:
        super().__init__()
        self.head, self.loss, self.image, self.text = head, loss, image, text
        self.gather = gather or Gather()
        self.coarse_loss, self.coarse_weight, self.group = coarse_loss, coarse_weight, group

    def set_epoch(self, epoch: int) -> None:
        """Tell the losses which epoch of the stage it is (from 0)."""
        for loss in (self.loss, self.coarse_loss):
            if loss is not None:
                loss.set_epoch(epoch)

    def forward(
        self, images: Any, texts: Any, duplicates: Tensor, hide: tuple[float, float] = (0.0, 0.0)
    ) -> tuple[Tensor, Stats]:
        """Loss () and numbers to log of one block.

        Args:
            images: tokens of this process's n images, or a prepared batch for the image backbone.
            texts: the same for K n captions: K sets, caption i of each set belongs to image i.
            duplicates: (K, P, P) bool over the whole batch, true pairs that must not be negatives.
            hide: shares of image and text tokens to hide.
        """
        image_tokens = images if isinstance(images, Tokens) else self.image(images)
        text_tokens = texts if isinstance(texts, Tokens) else self.text(texts)
        gallery = self.head.prepare_gallery(hide_tokens(image_tokens, hide[0]))
        queries = self.head.prepare_queries(hide_tokens(text_tokens, hide[1]))
        everyone = self.gather.tokens(gallery)
        total = torch.zeros((), device=gallery.device)
        logged: dict[str, Tensor] = {}
        if self.loss is None:
            pass
        elif self.group and len(gallery) % self.group == 0 and (own := self.head.group_losses) is not None:
            total, logged = self._grouped(own, queries, gallery, duplicates)
        else:
            total, logged = self._pairs(queries, everyone, duplicates)
        if self.coarse_loss is not None:
            scores = self.head.coarse_scores(queries, everyone)
            loss, stats = self._taken(self.coarse_loss, scores, duplicates)
            total, logged = total + self.coarse_weight * loss, logged or stats
            logged["coarse_loss"] = loss.detach()
        return total, logged

    def _pairs(self, queries: Prepared, gallery: Prepared, duplicates: Tensor) -> tuple[Tensor, Stats]:
        """The head's losses on all pairs of (K n) queries and (P) gallery items."""
        if self.head.pair_losses is not None:
            matrices = self.head.pair_losses.training_scores(queries, gallery)
        else:
            matrices = {"score": self.head.score(queries, gallery)}
        return self._sum(matrices, duplicates, self.gather)

    def _grouped(
        self, head: GroupLosses, queries: Prepared, gallery: Prepared, duplicates: Tensor
    ) -> tuple[Tensor, Stats]:
        """The mean of the groups' losses. Groups stay within a process; DDP's mean over processes is their mean."""
        n, k, alone = len(gallery), len(duplicates), Gather()
        first = dist.get_rank() * n if self.gather.world > 1 else 0
        items = torch.arange(n, device=gallery.device).view(-1, self.group)  # (groups,group)
        sets = torch.arange(k, device=gallery.device)[:, None] * n
        rows = (sets + items[:, None]).flatten()  # group after group, in each the K sets of its captions
        matrices = head.matrices(head.run_groups(queries[rows], gallery, len(items)))
        losses, logged = [], {}
        for i, members in enumerate(items + first):
            own = {name: scores[i] for name, scores in matrices.items()}  # (K group,group)
            loss, stats = self._sum(own, duplicates[:, members][:, :, members], alone)
            losses.append(loss)
            logged = logged or stats
        return torch.stack(losses).mean(), logged

    def _sum(self, matrices: dict[str, Tensor], duplicates: Tensor, gather: Gather) -> tuple[Tensor, Stats]:
        """The weighted sum of the losses on a head's matrices, and the numbers of the one that ranks."""
        total, logged = None, {}
        for name, scores in matrices.items():
            loss, stats = self._taken(self.loss, scores, duplicates, gather)
            loss = self.head.loss_weights.get(name, 1.0) * loss
            total = loss if total is None else total + loss
            logged = logged or stats
        return total, logged

    def _taken(
        self, loss: PairLoss, scores: Tensor, duplicates: Tensor, gather: Gather | None = None
    ) -> tuple[Tensor, Stats]:
        """A loss on the K blocks (n,P) of a matrix, their mean, and the numbers of the first block."""
        blocks = zip(scores.float().chunk(len(duplicates)), duplicates, strict=True)
        rows = (gather or self.gather).rows
        found = [loss(rows(block), duplicates=same) for block, same in blocks]
        return torch.stack([value for value, _ in found]).mean(), found[0][1]
