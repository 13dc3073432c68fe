"""`replay` for heads over query sets: HMRN and Drill-down, every round, oriented (rounds, images, sets)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from xretrieve.backbones.sentences import Sentences
from xretrieve.errors import XRetrieveError
from xretrieve.evaluation.metrics import mean_rank, median_rank, recall_at
from xretrieve.heads.drilldown import DrillDown, Mode
from xretrieve.heads.fusion import combine_rounds, ranks_of_all
from xretrieve.heads.hmrn import HMRN
from xretrieve.heads.multi import MultiQueryHead, Take
from xretrieve.heads.scoring import Items
from xretrieve.interop.parts import (
    SIZES,
    build_sentences,
    build_set_head,
    load_state,
    published_names,
    read_array,
    read_options,
    sizes,
)
from xretrieve.tokens import Prepared, Tokens
from xretrieve.training.losses import HardestHinge, InfoNCE

DEFAULTS: dict[str, dict[str, Any]] = {
    "hmrn": {"direction": "t2i", "lambda_i2t": 5.0, "lambda_t2i": 15.0, "alpha": 0.6, "beta": 0.3, "tau": 40.0,
             "steps": 3, "weight_horizon": 10, "region_norm": "index", "end_id": 2, "leaky_slope": 0.1, "eps": 1e-8,
             "bn_eps": 1e-5, "bn_momentum": 0.1},
    "drilldown": {"slots": 3, "temperature": 9.0, "margin": 0.2, "policy_weight": 0.1, "end_id": 2, "eps": 1e-10},
}  # fmt: skip
_FIXED = ("leaky_slope", "eps", "bn_eps", "bn_momentum")  # built in: another value is refused
_OTHER = ("model", "loss_pairs", "dropout", "gradients", *SIZES)
KS = (1, 5, 10)


def replay_sets(
    family: str, state: Mapping[str, Any], inputs: Mapping[str, Any], options: Mapping[str, Any]
) -> dict[str, np.ndarray]:
    """Recompute a model's arrays in float32 on the CPU.

    Args:
        family: ``hmrn`` or ``drilldown``.
        state: parameters and buffers under their published names.
        inputs: ``images`` (N,R,F), ``captions`` (M,T,L) word ids and ``captions_mask`` (M,T,L); optionally ``target``
            (M,), the image of each set, ``region_mask`` (N,R) and ``set_sizes`` (M,).
        options: what is left out has the published value. With ``loss_pairs`` P also the losses on images and sets
            0 .. P - 1 and, unless ``gradients`` is false, their gradients.

    Returns:
        Arrays by name: ``scores`` (T,N,M), ``img_emb``, ``cap_emb`` and the intermediates; with ``target`` the ranks
        and their metrics; ``grad/NAME``, ``train/...`` (HMRN in training mode without dropout), ``fusion/out/...`` and
        ``policy/...`` (Drill-down).
    """
    chosen = read_options(family, options, DEFAULTS[family], _OTHER, [k for k in _FIXED if k in DEFAULTS[family]])
    weights = {key: read_array(value, f"state {key}") for key, value in state.items()}
    widths = sizes(family, weights, "state")
    if chosen.get("region_norm") != "index":
        widths.pop("num_regions", None)  # the BatchNorm there is no channel per region
        chosen.pop("num_regions", None)
    for name, width in widths.items():
        if chosen.get(name, width) != width:
            raise XRetrieveError(f"option {name} is {chosen[name]}, but {SIZES[name][0]} says {width}")
    model = (_HMRN if family == "hmrn" else _DrillDown)(weights, widths, chosen, _Inputs(inputs, widths))
    with torch.no_grad():
        found = model.outputs()
        if model.inputs.target is not None:
            found |= _ranked(found["scores"], model.inputs.target)
    if "loss_pairs" in chosen:
        found |= model.losses()
    return {key: value.detach().numpy() if isinstance(value, Tensor) else value for key, value in found.items()}


class _Inputs:
    """Checked inputs: images with their mask, sentences flat, and the sets they form."""

    def __init__(self, given: Mapping[str, Any], widths: dict[str, int]) -> None:
        for key in ("images", "captions", "captions_mask"):
            if key not in given:
                raise XRetrieveError(
                    f"inputs: no {key!r}; images (N,R,F), captions (M,T,L) and captions_mask (M,T,L) are needed"
                )
        images, ids = read_array(given["images"], "inputs images"), read_array(given["captions"], "inputs captions")
        mask = read_array(given["captions_mask"], "inputs captions_mask").bool()
        if images.ndim != 3 or images.shape[2] != widths["feat_dim"]:
            raise XRetrieveError(f"inputs: images has shape {tuple(images.shape)}, expected (N,R,{widths['feat_dim']})")
        if ids.ndim != 3 or mask.shape != ids.shape or ids.is_floating_point():
            raise XRetrieveError(f"inputs: captions {tuple(ids.shape)} and captions_mask {tuple(mask.shape)} must be "
                                 "(M,T,L), whole numbers and bools")  # fmt: skip
        lengths = mask.sum(-1)  # (M,T)
        if bool((mask != (torch.arange(mask.shape[2]) < lengths[..., None])).any()):
            raise XRetrieveError("inputs: captions_mask must be true on the first words of a sentence and nowhere else")
        real = ids.masked_fill(~mask, 0)
        if int(real.min()) < 0 or int(real.max()) >= widths["vocab_size"]:
            wrong = int(real.max()) if int(real.min()) >= 0 else int(real.min())
            raise XRetrieveError(f"inputs: captions hold word id {wrong}, the vocabulary has {widths['vocab_size']}")
        counts = (lengths > 0).sum(1)  # an empty sentence is an absent one
        if "set_sizes" in given:
            counts = torch.minimum(counts, read_array(given["set_sizes"], "inputs set_sizes").long())
        said = torch.arange(ids.shape[1]) < counts[:, None]  # (M,T)
        if bool((counts < 1).any()) or bool((lengths[said] < 1).any()):
            raise XRetrieveError("inputs: every query set needs a sentence, and no gap between its sentences")
        self.said, self.sizes = said, counts
        self.words = {"ids": real.flatten(0, 1).long(), "lengths": lengths.flatten().clamp(min=1)}
        region_mask = given.get("region_mask")
        present = None if region_mask is None else read_array(region_mask, "inputs region_mask").bool()
        self.images = Tokens.from_local(images.float(), present)
        target = given.get("target")
        self.target = None if target is None else read_array(target, "inputs target").long()


class _Model:
    """One state with its inputs; the parts are built anew for each pass."""

    def __init__(
        self, weights: dict[str, Tensor], widths: dict[str, int], options: dict[str, Any], inputs: _Inputs
    ) -> None:
        self.weights, self.widths, self.options, self.inputs = weights, widths, options, inputs

    def filled(self, family: str, **own: Any) -> tuple[Any, Sentences]:
        """Head and text encoder in evaluation mode."""
        head, words = build_set_head(family, self.widths, **own), build_sentences(self.widths, family)
        load_state(head, words, self.weights, "state")
        return head.eval(), words.eval()

    def sides(
        self, head: MultiQueryHead, words: Sentences, first: int | None = None
    ) -> tuple[Prepared, Prepared, Tensor]:
        """Sets, images, and the vectors of all sentences (M,T,D); of the first sets and images only where asked."""
        said, counts = self.inputs.said[:first], self.inputs.sizes[:first]
        texts = head.prepare_queries(words({k: v[: said.numel()] for k, v in self.inputs.words.items()}))
        sets = head.combine_sets(texts[said.flatten().nonzero()[:, 0]], counts)
        sets = sets.pad_to(said.shape[1])  # rounds that no set has
        return sets, head.prepare_gallery(self.inputs.images[:first]), texts.pooled.view(*said.shape, -1)

    def square(self, head: MultiQueryHead, words: Sentences) -> tuple[Prepared, Prepared]:
        """Sets and images of the losses: the first P of each."""
        return self.sides(head, words, int(self.options["loss_pairs"]))[:2]

    def gradients(self, head: MultiQueryHead, words: Sentences, loss: Tensor, prefix: str) -> dict[str, Any]:
        """``grad/NAME`` of every parameter and their norm; nothing where they are not wanted."""
        if not self.options.get("gradients", True):
            return {}
        loss.backward()
        found = {}
        for key, value in published_names(head, words).items():
            if isinstance(value, torch.nn.Parameter):
                found[key] = torch.zeros_like(value) if value.grad is None else value.grad
        norm = torch.stack([g.double().square().sum() for g in found.values()]).sum().sqrt()
        return {f"{prefix}grad/{key}": value for key, value in found.items()} | {"grad_norm": norm}


class _HMRN(_Model):
    def build(self) -> tuple[HMRN, Sentences]:
        o = self.options
        named = "direction lambda_i2t lambda_t2i alpha beta steps weight_horizon region_norm"
        own = {key: o[key] for key in named.split()} | {"dropout": 0.0}
        if "num_regions" in self.widths and o["region_norm"] == "index":
            own["regions"] = self.widths["num_regions"]
        return self.filled("hmrn", **own)

    def outputs(self) -> dict[str, Any]:
        head, words = self.build()
        sets, images, sentences = self.sides(head, words)
        made = head.score_rounds(sets, images, levels=True)
        found: dict[str, Any] = {"scores": made["score"], "local_rounds": made["local"],
                                 "global_rounds": made["global"], "reasoning_rounds": made["reason"]}  # fmt: skip
        prefixes = head.prefixes(sets)  # (M,T,D)
        found |= {"img_emb": images.local, "cap_emb": sentences, "img_glo": images.pooled}
        found |= {"cap_glo": prefixes.transpose(0, 1), "round_weights": head.round_weights(sets.mask.shape[1])}
        end = torch.tensor([int(self.options["end_id"])])
        found["backward_half"] = words.backward_half(words.embed(end))[0]
        trace: dict[str, Tensor] = {}
        beside = Prepared(torch.cat([sets.local, prefixes], -1), sets.mask, sets.pooled)
        head.block(Items.of(beside), Items.of(images), head.fold(), trace, turns=sets.mask.shape[1])
        found["dots"] = trace.pop("dots")[0].transpose(1, 2)  # (N,M,R,T)
        return found | {name: value[0] for name, value in trace.items()}

    def losses(self) -> dict[str, Any]:
        loss = InfoNCE(1 / float(self.options["tau"]), False, directions="sum", mask_duplicates=False)
        found: dict[str, Any] = {}
        for prefix in ("", "train/"):
            head, words = self.build()
            pairs = int(self.options["loss_pairs"])
            if prefix:
                if min(pairs, len(self.inputs.images)) < 2:
                    break  # statistics of one image
                head.train()
            sets, images = self.square(head, words)
            made = head.training_levels(sets, images)
            parts = [loss(local)[0] for local in made["local"].unbind(-1)]
            found |= {f"{prefix}loss_local": torch.stack(parts)}
            found |= {f"{prefix}loss_{key}": loss(made[name])[0] for key, name in
                      (("global", "global"), ("reasoning", "reason"))}  # fmt: skip
            if prefix:
                found["train/local_rounds"] = made["local"].permute(2, 1, 0)
                found |= {"train/global": made["global"].T, "train/reasoning": made["reason"].T}
                buffers = {f"sim_enc.{name}" for name, _ in head.named_buffers()}
                after = {k: v.clone() for k, v in published_names(head, words).items() if k in buffers}
                found |= {f"train/state_after/{key}": value for key, value in after.items()}
                head.load_state_dict(self.build()[0].state_dict())  # once more, for the loss as it is trained
                sets, images = self.square(head, words)
            total, _ = head.training_loss(sets, images, loss)
            found[f"{prefix}loss"] = total
            grads = self.gradients(head, words, total, prefix)
            found |= {f"{prefix}grad_norm" if key == "grad_norm" else key: value for key, value in grads.items()}
        return found


class _DrillDown(_Model):
    def build(self, mode: Mode = "supervised") -> tuple[DrillDown, Sentences]:
        own = {key: self.options[key] for key in ("slots", "temperature", "policy_weight")}
        return self.filled("drilldown", mode=mode, rollout="greedy", **own)

    def outputs(self) -> dict[str, Any]:
        head, words = self.build()
        sets, images, sentences = self.sides(head, words)
        written = head.logits(sets)[0]
        found: dict[str, Any] = {"img_emb": images.local, "cap_emb": sentences, "slots": written.slots}
        found["scores"] = head.score_rounds(sets, images)
        found["slot_vectors"] = _slots(head.looking(sets).local, written.slots, sets.mask, head.count)
        head.set_mode("policy")
        written, logits = head.logits(sets)
        found |= {"policy/out/slots": written.slots, "policy/out/logits": logits[:, head.count :]}
        found["policy/out/scores"] = head.score_rounds(sets, images)
        head.set_mode("sentences")
        looks = head.run(sets, images, turns=sets.mask.shape[1], looks=True)["look"]  # (M,N,T)
        found["fusion/out/query_scores"] = looks.permute(2, 1, 0)
        found["fusion/out/mean_scores"] = head.score_rounds(sets, images)
        alone = ranks_of_all(looks.transpose(1, 2)[sets.mask]).double()  # (S,N), halves: exact sums
        ranks = combine_rounds(alone, self.inputs.sizes, "mean_similarity")
        if (more := sets.mask.shape[1] - len(ranks)) > 0:
            ranks = torch.cat([ranks, ranks[-1:].expand(more, -1, -1)])
        found["fusion/out/mean_ranks"] = ranks
        if self.inputs.target is not None:
            found["fusion/out/ranks"] = _ranked(-ranks, self.inputs.target)["ranks"]
        return found

    def losses(self) -> dict[str, Any]:
        hinge = HardestHinge(float(self.options["margin"]), mask_duplicates=False)
        head, words = self.build()
        sets, images = self.square(head, words)
        turns: list[Tensor] = []

        def take(matrix: Tensor) -> Any:
            made = hinge(matrix)
            turns.append(made[0])
            return made

        total, _ = head.training_loss(sets, images, take)
        found: dict[str, Any] = {"loss": total, "loss_turns": torch.stack(turns)}
        found |= self.gradients(head, words, total, "")
        return found | (self.policy_losses(hinge) if sets.mask.shape[1] > head.count else {})

    def policy_losses(self, take: Take) -> dict[str, Any]:
        head, words = self.build("policy")
        sets, images = self.square(head, words)
        trace: dict[str, Tensor] = {}
        written, _ = head.rollouts(sets, images, trace)
        total, stats = head.training_loss(sets, images, take)
        found = {"loss": total, "loss_hinge": stats["loss_hinge"], "loss_choice": stats["loss_choice"]}
        found |= {"slots": written.slots, "rewards": trace["rewards"], "logits": trace["logits"]}
        named = {f"policy/train/{key}": value for key, value in found.items()}
        grads = self.gradients(head, words, total, "policy/")
        return named | {"policy/grad_norm" if key == "grad_norm" else key: value for key, value in grads.items()}


def _slots(unit: Tensor, slots: Tensor, mask: Tensor, count: int) -> Tensor:
    """Unit slots after every round (M,T,K,d), empty ones zero, from what each round wrote (M,T,d)."""
    now, rounds = unit.new_zeros(len(unit), count, unit.shape[-1]), []
    for turn in range(unit.shape[1]):
        here = (torch.arange(count) == slots[:, turn, None]) & mask[:, turn, None]  # (M,K)
        now = torch.where(here[..., None], unit[:, turn, None], now)
        rounds.append(now)
    return torch.stack(rounds, 1)


def _ranked(scores: Tensor, target: Tensor) -> dict[str, Any]:
    """Expected 0-based ranks (T,M) of the right images, and what is reported of them."""
    right = scores.gather(1, target.expand(len(scores), 1, -1))  # (T,1,M)
    ranks = ((scores > right).sum(1) + ((scores == right).sum(1) - 1) / 2).double().numpy()
    rounds = list(ranks)
    return {
        "ranks": ranks,
        "recall": np.array([[recall_at(now, k) for k in KS] for now in rounds]),
        "mean_rank": np.array([mean_rank(now) for now in rounds]),
        "median_rank": np.array([median_rank(now) for now in rounds]),
    }
