"""Drill-down's memory: K slots, each rewritten by a gated cell, and who chooses the slot.

Source: Drill-down (Tan et al., NeurIPS 2019). Slots are raw vectors (..., K, d), zero while empty.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn

from xretrieve.heads.attention import LOW

Choose = Callable[[Tensor, int], Tensor]  # (slots (B,K,d), round) -> the slot to write (B,)


class SlotCell(nn.Module):
    """``x' = (1 - z) n + z x``: what a slot becomes when a sentence is written into it."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.l1, self.l2, self.l3, self.l4, self.l5, self.l6 = (nn.Linear(dim, dim) for _ in range(6))

    def forward(self, q: Tensor, x: Tensor) -> Tensor:
        """Sentences and slots (..., d) -> (..., d)."""
        reset = torch.sigmoid(self.l1(q) + self.l2(x))
        update = torch.sigmoid(self.l3(q) + self.l4(x))
        new = torch.tanh(self.l5(q) + reset * self.l6(x))
        return (1 - update) * new + update * x


class SlotPolicy(nn.Sequential):
    """Scores each slot for a sentence, from both as they are before the writing."""

    def __init__(self, dim: int) -> None:
        layers = [nn.Linear(2 * dim, dim), nn.ReLU(), nn.Linear(dim, dim), nn.ReLU(), nn.Linear(dim, 1), nn.ReLU()]
        super().__init__(*layers)

    def forward(self, q: Tensor, slots: Tensor) -> Tensor:
        """Logits (..., K) of q (..., d) and slots (..., K, d); both are detached: its loss trains itself only."""
        q = q.detach()[..., None, :].expand(slots.shape)
        return super().forward(torch.cat([q, slots.detach()], -1)).squeeze(-1)


class Written(NamedTuple):
    """Sets after all rounds: ``vectors`` (M,T,d), the raw slot that each round wrote, and which slot (M,T) it was."""

    vectors: Tensor
    slots: Tensor


def write(cell: SlotCell, slots: Tensor, q: Tensor, slot: Tensor) -> tuple[Tensor, Tensor]:
    """One sentence into one slot. slots (...,K,d), q (...,d), slot (...) -> the slots after it, and the one written."""
    place = slot[..., None, None].expand(*slot.shape, 1, slots.shape[-1])
    new = cell(q, slots.gather(-2, place).squeeze(-2))  # (...,d)
    return slots.scatter(-2, place, new[..., None, :]), new


def walk(cell: SlotCell, sentences: Tensor, mask: Tensor, count: int, choose: Choose) -> Written:
    """All rounds of M sets. sentences (M,T,d), mask (M,T); absent sentences are not written."""
    slots = sentences.new_zeros(len(sentences), count, sentences.shape[-1])  # (M,K,d)
    vectors, chosen = [], []
    for turn in range(sentences.shape[1]):
        slot = choose(slots, turn)
        after, new = write(cell, slots, sentences[:, turn], slot)
        slots = torch.where(mask[:, turn, None, None], after, slots)
        vectors.append(new)
        chosen.append(slot)
    return Written(torch.stack(vectors, 1), torch.stack(chosen, 1))


def mean_of_written(slots: Tensor, mask: Tensor) -> Tensor:
    """Weights (M,T,T): row r has the mean over the slots written so far, each as its last writing left it.

    slots (M,T), mask (M,T). An empty slot counts nowhere; rounds without a sentence repeat the round before.
    """
    turns = torch.arange(slots.shape[1], device=slots.device)
    said = (turns <= turns[:, None]) & mask[:, None]  # (M,r,t)
    same = (slots[:, :, None] == slots[:, None]) & (turns[:, None] < turns)  # (M,t,later)
    rewritten = (same[:, None] & said[:, :, None]).any(-1)  # (M,r,t), by a later sentence up to r
    standing = (said & ~rewritten).float()
    return standing / standing.sum(-1, keepdim=True)


def look(slots: Tensor, regions: Tensor, mask: Tensor, temperature: float) -> Tensor:
    """What each raw slot finds in its own image, ``sum_n softmax(temperature s)_n s_n``, mean over all K slots.

    slots (B,...,K,d), regions (B,R,d), mask (B,R) -> (B,...).
    """
    dots = torch.einsum("b...kd,brd->b...kr", slots, regions).float()  # a mask of LOW does not fit bf16
    real = mask.view(len(mask), *[1] * (dots.ndim - 2), -1)
    return ((temperature * dots).masked_fill(~real, LOW).softmax(-1) * dots).sum(-1).mean(-1)


@torch.no_grad()
def rollout_gains(
    cell: SlotCell, policy: SlotPolicy, slots: Tensor, sentences: Tensor, mask: Tensor, turn: int,
    similarity: Callable[[Tensor], Tensor], greedy: bool,
) -> Tensor:  # fmt: skip
    """Gain (B,K) of writing sentence ``turn`` into each slot, and what follows wherever the policy puts it.

    Args:
        cell, policy: what writes and what chooses.
        slots: (B,K,d) before the round.
        sentences, mask: (B,T,d) and (B,T).
        turn: t.
        similarity: of slots (B,K,K,d) and the set's own image, (B,K).
        greedy: later slots are the policy's best; otherwise they are drawn from its softmax.

    Returns:
        The sum over rounds t .. T - 1 of how much more similar the slots are than before round t.
    """
    b, count, d = slots.shape
    tried = slots[:, None].expand(b, count, count, d)  # a copy per candidate
    before = similarity(tried)  # (B,K)
    slot = torch.arange(count, device=slots.device).expand(b, count)
    gain = torch.zeros_like(before)
    for later in range(turn, sentences.shape[1]):
        q, real = sentences[:, None, later].expand(b, count, d), mask[:, later, None]
        if later > turn:
            logits = policy(q, tried)  # (B,K,K)
            drawn = logits if greedy else logits - torch.empty_like(logits).exponential_().log()  # Gumbel's maximum
            slot = drawn.argmax(-1)
        tried = torch.where(real[..., None, None], write(cell, tried, q, slot)[0], tried)
        gain = gain + (similarity(tried) - before) * real
    return gain
