"""Drill-down: a query set is kept in a few slots, each sentence rewrites one (Tan et al., NeurIPS 2019).

After every round an image scores the mean of what the written slots find among its regions. A round changes one slot,
so all rounds of a set cost one look per sentence: later rounds only choose which looks are averaged.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor, nn

from xretrieve.errors import XRetrieveError, unknown
from xretrieve.heads.attention import LOW, affinities
from xretrieve.heads.base import l2, set_learning
from xretrieve.heads.local import Trace
from xretrieve.heads.multi import MultiQueryHead, Rows, Stats, Take, hold_last, unchanged
from xretrieve.heads.scoring import Items, score_blocks
from xretrieve.heads.similarity import xavier
from xretrieve.heads.slots import SlotCell, SlotPolicy, Written, look, mean_of_written, rollout_gains, walk
from xretrieve.tokens import Prepared, Tokens
from xretrieve.utils.tracing import all_true

Mode = Literal["supervised", "policy", "sentences"]
MODES = ("supervised", "policy", "sentences")
EPS = 1e-10  # of the unit slots


class DrillDown(MultiQueryHead):
    """Slots written sentence by sentence.

    Args:
        image_dim, text_dim: F of the image backbone's local tokens, of the text backbone's pooled vector.
        dim: d of regions, sentences and slots.
        slots: K.
        mode: who chooses the slot of round t: ``supervised`` takes t mod K; ``policy`` fills the K slots in order,
            then asks the policy (trained by rollouts, starting from a supervised model); ``sentences`` has no slots:
            the mean of what each sentence finds alone, trained on each sentence alone.
        temperature: of the softmax over the regions.
        policy_weight: of the policy's loss.
        rollout: how a rollout goes on after its first slot: ``sample`` draws from the policy, ``greedy`` takes its
            best.
        image_project, text_project: a Linear to d; the text's default is to have one only where its width is not d.
        image_norm, text_norm, image_dropout, text_dropout: LayerNorm of, and dropout on, the incoming tokens.
    """

    name = "drilldown"

    def __init__(
        self, image_dim: int, text_dim: int, dim: int = 128, slots: int = 3, mode: Mode = "supervised",
        temperature: float = 9.0, policy_weight: float = 0.1, rollout: Literal["sample", "greedy"] = "sample",
        image_project: bool = True, text_project: bool | None = None, image_norm: bool = False,
        text_norm: bool = False, image_dropout: float = 0.0, text_dropout: float = 0.0,
    ) -> None:  # fmt: skip
        super().__init__({k: v for k, v in locals().items() if k not in ("self", "__class__")})
        if slots < 1:
            raise XRetrieveError(f"head 'drilldown': slots must be at least 1, got {slots}")
        if rollout not in ("sample", "greedy"):
            raise unknown("rollout", str(rollout), ("sample", "greedy"))
        self.count, self.temperature, self.policy_weight, self.rollout = slots, temperature, policy_weight, rollout
        self.updater, self.policy = SlotCell(dim), SlotPolicy(dim)
        for module in (self.updater, self.policy):
            xavier(module)
        self.set_mode(mode)

    def set_mode(self, mode: Mode) -> None:
        """Change how slots are chosen, as fine-tuning does; what then takes no part gets no gradient."""
        if mode not in MODES:
            raise unknown("mode", str(mode), MODES)
        self.mode = self.config["mode"] = mode
        set_learning(self)

    def constants(self) -> list[nn.Parameter]:
        """The parameters that take no part in the mode."""
        idle: list[nn.Module] = {"supervised": [self.policy], "policy": [], "sentences": [self.policy, self.updater]}[
            self.mode
        ]
        return [parameter for module in idle for parameter in module.parameters()]

    # one side ----------------------------------------------------------------------------------------------------

    def sentences(self, pooled: Tensor) -> Tensor:
        """Sentence vectors, not normalised. (N,F) -> (N,d)."""
        return self.text.fc(self.text.drop(self.text.norm(pooled))).float()

    def prepare_gallery(self, tokens: Tokens) -> Prepared:
        """Images: unit vectors of the regions (N,R,d); the coarse vector is their mean."""
        local = self.image(tokens)
        if not all_true(tokens.mask.any(1)):
            row = int((~tokens.mask.any(1)).nonzero()[0])
            raise XRetrieveError(f"image {row} of the batch has no region at all; leave it out")
        return Prepared.from_local(local, tokens.mask)

    def set_vector(self, local: Tensor, mask: Tensor) -> Tensor:
        """Mean of the sentences, in no trained space. (M,T,d), (M,T) -> (M,d)."""
        return local.sum(1) / mask.sum(1, keepdim=True)

    def logits(self, sets: Prepared) -> tuple[Written, Tensor]:
        """The writing at test time, and the policy's logits (M,T,K) before every round."""
        seen: list[Tensor] = []

        def choose(slots: Tensor, turn: int) -> Tensor:
            if self.mode == "policy":
                seen.append(self.policy(sets.local[:, turn], slots))  # (M,K)
            if self.mode == "policy" and turn >= self.count:
                return seen[-1].argmax(-1)  # the lowest of equal ones
            return slots.new_full((len(slots),), turn % self.count, dtype=torch.long)

        written = walk(self.updater, sets.local, sets.mask, self.count, choose)
        return written, torch.stack(seen, 1) if seen else sets.local.new_zeros(*sets.mask.shape, self.count)

    def looking(self, sets: Prepared, written: Written | None = None) -> Prepared:
        """What looks at images: the unit vectors each round wrote (M,T,d), and in ``extra`` what each round averages.

        written: other slots than those of test time.
        """
        if self.mode == "sentences":
            vectors = sets.local
            chosen = torch.arange(vectors.shape[1], device=vectors.device).expand(vectors.shape[:2])
        else:
            vectors, chosen = written or self.logits(sets)[0]
        unit = l2(vectors, EPS).masked_fill(~sets.mask[..., None], 0)
        return Prepared(unit, sets.mask, sets.pooled, {"mean": mean_of_written(chosen, sets.mask)})

    # pairs -------------------------------------------------------------------------------------------------------

    def fold(self) -> None:
        """Nothing depends on weights only."""

    def block(
        self, texts: Items, images: Items, folded: Any = None, trace: Trace = None, turns: int = 0, looks: bool = False
    ) -> dict[str, Tensor]:
        """Scores of a block of pairs, sets first.

        Args:
            texts: of :meth:`looking`, or raw sentences (g,M,T,d).
            images: regions (g,N,R,d).
            folded, trace: not used.
            turns: score every round, and name this many; 0 scores the last one only.
            looks: also give what every written vector finds by itself, ``look`` (g,M,N,turns).

        Returns:
            ``score`` (g,M,N) or, with ``turns``, (g,M,N,turns), float32.
        """
        if "mean" not in texts.extra:
            texts = self._looking(texts)
        dots = affinities(images.local, texts.local)  # (g,N,R,M,T)
        weight = (self.temperature * dots).exp()  # dots lie in [-1, 1]: exp needs no shift
        if images.mask is not None:
            weight = weight * images.mask[..., None, None]
        found = ((weight * dots).sum(2) / weight.sum(2)).transpose(1, 2)  # (g,M,N,T)
        mean = texts.extra["mean"]  # (g,M,r,T)
        with torch.autocast(found.device.type, enabled=False):
            score = torch.matmul(found, mean.mT.to(found.dtype))  # (g,M,N,r)
        made = {"score": hold_last(score, turns) if turns else score[..., -1]}
        if looks:  # a short set's last look goes on
            held = found if texts.mask is None else found.gather(-1, _last(texts.mask, found))
            made["look"] = hold_last(held, turns)
        return made

    def _looking(self, texts: Items) -> Items:
        g, m, t, _ = texts.local.shape
        mask = texts.local.new_ones(g, m, t, dtype=torch.bool) if texts.mask is None else texts.mask
        made = self.looking(Prepared(texts.local.float().flatten(0, 1), mask.flatten(0, 1), texts.pooled.flatten(0, 1)))
        local, mean = made.local.to(texts.local.dtype), made.extra["mean"]
        return Items(local.view(g, m, t, -1), texts.mask, texts.pooled, {"mean": mean.view(g, m, t, t)})

    def pair_bytes(self, sentences: int, regions: int) -> int:
        """Bytes of working arrays per pair: the dots, their weights and products."""
        return 4 * regions * sentences * (8 if torch.is_grad_enabled() else 4)

    def run(
        self, queries: Prepared, gallery: Prepared, memory: int | None = None, folded: Any = None, **options: Any
    ) -> dict[str, Tensor]:
        """The pair stage, block by block; ``options`` and the result are those of :meth:`block`, as (M,N,...)."""
        self.check_sides(queries, gallery)
        sets = queries if "mean" in queries.extra else self.looking(queries)
        return score_blocks(partial(self.block, **options), sets, gallery, self.pair_bytes, self.budget(memory))

    def score_rounds(self, queries: Prepared, gallery: Prepared, memory: int | None = None) -> Tensor:
        """Scores after every round, (T,N,M) float32."""
        made = self.run(queries, gallery, memory, turns=queries.local.shape[1])
        return made["score"].permute(2, 1, 0).contiguous()

    def glance(self, sets: Prepared, gallery: Prepared, before: Tensor | None = None) -> Tensor:
        """What the slot that the last sentence wrote finds in each image (N,)."""
        slot = self.looking(sets).local[0, -1].to(gallery.local.dtype)
        dots = torch.matmul(gallery.local, slot).float()  # (N,R)
        weight = (self.temperature * dots).exp() * gallery.mask
        return (weight * dots).sum(1) / weight.sum(1)

    def from_glances(self, glances: Sequence[Tensor], sets: Prepared, gallery: Prepared) -> tuple[Tensor, float]:
        """The whole score (N,), and 0: nothing is left to add."""
        mean = self.looking(sets).extra["mean"][0, -1]  # (T,)
        return mean @ torch.stack(list(glances)), 0.0

    @torch.no_grad()
    def explain(self, sets: Prepared, gallery: Prepared) -> dict[str, Tensor]:
        """As :meth:`MultiQueryHead.explain`; a sentence looks with the slot that it wrote. Also ``slots`` (M,T), which
        slot that was, and ``mean`` (M,T), the share of each sentence's slot in the score."""
        self.check_sides(sets, gallery)
        written = None if self.mode == "sentences" else self.logits(sets)[0]
        looking = self.looking(sets, written)
        dots = torch.einsum("mtd,nrd->mntr", looking.local, gallery.local)
        regions = (self.temperature * dots).masked_fill(~gallery.mask[:, None], LOW).softmax(-1)
        sentences, mean = (regions * dots).sum(-1), looking.extra["mean"][:, -1]
        found = {"regions": regions, "sentences": sentences, "score": torch.einsum("mnt,mt->mn", sentences, mean)}
        turns = torch.arange(dots.shape[2], device=dots.device).expand(len(sets), -1)
        return found | {"slots": turns if written is None else written.slots, "mean": mean}

    # training ----------------------------------------------------------------------------------------------------

    def training_loss(
        self, sets: Prepared, gallery: Prepared, take: Take, rows: Rows = unchanged, own: Prepared | None = None
    ) -> tuple[Tensor, Stats]:
        """Mean over the rounds of the loss after each, or of each sentence alone in mode ``sentences``; in mode
        ``policy`` the slots come from rollouts, and the policy learns to choose as they do."""
        self.check_sides(sets, gallery)
        turns = sets.local.shape[1]
        if self.mode == "policy":
            written, choice = self.rollouts(sets, gallery if own is None else own)
            made = self.run(self.looking(sets, written), gallery, turns=turns)
        else:
            made, choice = self.run(sets, gallery, turns=turns, looks=True), None
        scores = made["look" if self.mode == "sentences" else "score"]
        parts = [take(one) for one in scores.unbind(-1)]
        total = torch.stack([loss for loss, _ in parts]).mean()
        stats = parts[-1][1]
        if choice is not None:
            chosen = rows(choice).sum()
            stats = stats | {"loss_hinge": total.detach(), "loss_choice": chosen.detach()}
            total = total + self.policy_weight * chosen
        return total, stats

    def rollouts(self, sets: Prepared, own: Prepared, trace: Trace = None) -> tuple[Written, Tensor]:
        """Slots chosen by what follows from each choice, and the policy's cross-entropy against them, (B,) per set.

        Args:
            sets: B sets.
            own: their images (n; set i of each n sets belongs to image i).
            trace: receives ``rewards`` and ``logits`` (B,T,K); rewards of rounds that need none are then made too.
        """
        q, mask, count = sets.local, sets.mask, self.count
        turns = q.shape[1]
        if turns <= count:
            raise XRetrieveError(f"mode policy learns from rounds after the first {count} (slots); sets have {turns}")
        sides = [side.repeat(len(q) // len(own), *[1] * (side.ndim - 1)) for side in (own.local.detach(), own.mask)]
        rewards, logits, labels = [], [], []

        def choose(slots: Tensor, turn: int) -> Tensor:
            logits.append(self.policy(q[:, turn], slots))
            slot = torch.full((len(q),), turn % count, dtype=torch.long, device=q.device)
            if turn >= count or trace is not None:
                similar = partial(look, regions=sides[0], mask=sides[1], temperature=self.temperature)
                greedy = self.rollout == "greedy"
                rewards.append(rollout_gains(self.updater, self.policy, slots, q, mask, turn, similar, greedy))
            if turn >= count:
                slot = rewards[-1].argmax(-1)  # the lowest of equal ones
                labels.append(slot)
            return slot

        written = walk(self.updater, q, mask, count, choose)
        if trace is not None:
            trace |= {"rewards": torch.stack(rewards, 1), "logits": torch.stack(logits, 1)}
        asked, real = torch.stack(logits[count:], 1), mask[:, count:]  # (B,T-K,K)
        entropy = nn.functional.cross_entropy(asked.mT.float(), torch.stack(labels, 1), reduction="none")  # (B,T-K)
        return written, (entropy * real).sum(1) / real.sum(1).clamp(min=1)


def _last(mask: Tensor, found: Tensor) -> Tensor:
    """Which sentence counts in each round: mask (g,M,T) -> places (g,M,N,T) for ``found`` of that shape."""
    return (mask.cumsum(-1) - 1)[:, :, None].expand(found.shape)
