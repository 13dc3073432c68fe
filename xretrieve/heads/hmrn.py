"""HMRN: hierarchical matching and reasoning for multi-query image retrieval (Neural Networks 2024, arXiv 2306.14460).

After r sentences an image scores ``0.6 local + 0.3 w_r reason + 0.1 global``: dots of regions and sentences, a graph
over what each sentence sees in the image, and the cosine of two global vectors. All rounds come from one pass.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor, nn

from xretrieve.errors import XRetrieveError
from xretrieve.heads import reasoning
from xretrieve.heads.attention import LOW, affinities, gram_matrix
from xretrieve.heads.base import l2, set_learning
from xretrieve.heads.local import Trace, check_stream
from xretrieve.heads.multi import MultiQueryHead, Rows, Stats, Take, hold_last, unchanged
from xretrieve.heads.region_vector import RegionNorm, RegionVector
from xretrieve.heads.scoring import Items, score_blocks
from xretrieve.heads.sgr import GraphStep
from xretrieve.heads.similarity import GlobalVector, xavier
from xretrieve.tokens import Prepared, Tokens

Direction = Literal["i2t", "t2i"]
SLOPE = 0.1  # of the LeakyReLU on the dots


class HMRN(MultiQueryHead):
    """Hierarchical matching and reasoning over query sets, one direction of the local level.

    Args:
        image_dim, text_dim: F of the image backbone's local tokens, of the text backbone's pooled vector.
        direction: of the local level: ``i2t`` (each region looks at the sentences so far) or ``t2i`` (each sentence at
            the regions).
        dim, sim_dim: D of the joint space, S of the graph's nodes.
        steps: of reasoning, each with its own weights.
        lambda_i2t, lambda_t2i: temperatures; the reasoning takes ``lambda_t2i`` in both directions.
        alpha, beta: weights of the local and of the reasoning level; the global one has the rest.
        weight_horizon: H, the number of rounds trained with: ``w_r = round(r(r+1) / (H(H+1)), 2)``, 1 beyond H. In
            training w is 1.
        region_norm: ``feature`` (any number of regions), ``index`` (published: a channel per region index, at most
            ``regions``), or ``none``.
        dropout: in the global vectors.
        image_project, text_project: a Linear to D; the text's default is to have one only where its width is not D.
        image_norm, text_norm, image_dropout, text_dropout: LayerNorm of, and dropout on, the incoming tokens.
    """

    name = "hmrn"
    block_memory = 24 * 2**20  # measured: smaller blocks are slowed by their number, larger ones leave the caches

    def __init__(
        self, image_dim: int, text_dim: int, direction: Direction = "t2i", dim: int = 256, sim_dim: int = 256,
        steps: int = 3, lambda_i2t: float = 5.0, lambda_t2i: float = 15.0, alpha: float = 0.6, beta: float = 0.3,
        weight_horizon: int = 10, region_norm: RegionNorm = "feature", regions: int = 36, dropout: float = 0.4,
        image_project: bool = True, text_project: bool | None = None, image_norm: bool = False,
        text_norm: bool = False, image_dropout: float = 0.0, text_dropout: float = 0.0,
    ) -> None:  # fmt: skip
        super().__init__({k: v for k, v in locals().items() if k not in ("self", "__class__")})
        check_stream(direction)
        for key, value in (("steps", steps), ("weight_horizon", weight_horizon)):
            if value < 1:
                raise XRetrieveError(f"head 'hmrn': {key} must be at least 1, got {value}")
        if alpha < 0 or beta < 0 or alpha + beta > 1 + 1e-9:
            raise XRetrieveError(f"head 'hmrn': alpha {alpha} and beta {beta} must be shares of 1")
        self.direction, self.alpha, self.beta, self.horizon = direction, alpha, beta, weight_horizon
        self.gamma = 1 - alpha - beta
        self.temperatures = {"i2t": lambda_i2t, "t2i": lambda_t2i}
        self.v_global_w = RegionVector(dim, dropout, region_norm, regions)
        self.t_global_w = GlobalVector(dim, dropout)
        self.sim_tranloc_w = nn.Linear(dim, sim_dim)
        self.sim_tranglo_w = nn.Linear(dim, sim_dim)
        self.ICR_module = nn.ModuleList(GraphStep(sim_dim) for _ in range(steps))
        self.sim_w = nn.Linear(sim_dim, 1)
        for module in (self.sim_tranloc_w, self.sim_tranglo_w, self.ICR_module, self.sim_w):
            xavier(module)
        set_learning(self)

    def constants(self) -> list[nn.Parameter]:
        """The parameters of levels that have no weight; the reasoning reads the global vectors too."""
        reasoning_parts = (self.sim_tranloc_w, self.sim_tranglo_w, self.ICR_module, self.sim_w)
        idle = [] if self.beta else list(reasoning_parts)
        idle += [] if self.beta or self.coarse else [self.v_global_w, self.t_global_w]
        return [parameter for module in idle for parameter in module.parameters()]

    @property
    def coarse(self) -> bool:
        """The global level is the cosine of the coarse vectors, and is trained."""
        return self.gamma > 1e-9

    # one side ----------------------------------------------------------------------------------------------------

    def prepare_gallery(self, tokens: Tokens) -> Prepared:
        """Images: unit vectors of the regions (N,R,D) and the global vector v (N,D)."""
        local = self.image(tokens)
        return Prepared(local, tokens.mask, self.v_global_w(local, tokens.mask))

    def set_vector(self, local: Tensor, mask: Tensor) -> Tensor:
        """u of the full sets. (M,T,D), (M,T) -> (M,D)."""
        return self.t_global_w(local, mask)

    def prefixes(self, sets: Prepared) -> Tensor:
        """u_r of every round (M,T,D): what :meth:`set_vector` gives for the first r sentences, all r at once."""
        pool, q, mask = self.t_global_w, sets.local, sets.mask
        count = mask.cumsum(1)[..., None].clamp(min=1).to(q.dtype)  # (M,T,1)
        near = pool.embedding_local(q)  # (M,T,D), does not depend on the round
        far = pool.embedding_global(q.cumsum(1) / count)  # (M,r,D), of the mean of every prefix
        logits = torch.bmm(far * pool.embedding_common[0].weight, near.mT).float()  # (M,r,T)
        turns = torch.arange(q.shape[1], device=q.device)
        seen = (turns <= turns[:, None]) & mask[:, None]  # (M,r,T)
        return l2(torch.bmm(logits.masked_fill(~seen, LOW).softmax(-1), q))

    def round_weights(self, turns: int, device: torch.device | str | None = None) -> Tensor:
        """w of rounds 1 .. T, (T,) float64."""
        h = self.horizon
        listed = [round(r * (r + 1) / (h * (h + 1)), 2) if r <= h else 1.0 for r in range(1, turns + 1)]
        return torch.tensor(listed, dtype=torch.float64, device=device)

    # pairs -------------------------------------------------------------------------------------------------------

    def fold(self) -> reasoning.Weights:
        """What depends on weights only."""
        return reasoning.fold(self.sim_tranloc_w, self.sim_tranglo_w, self.ICR_module)

    def local_rounds(self, dots: Tensor, texts: Items, images: Items) -> Tensor:
        """The local level of every round from dots (g,N,R,M,T): (g,N,M,T)."""
        # dots lie in [-SLOPE, 1]: exp needs no shift
        weight = (self.temperatures[self.direction] * dots).exp()
        present = None if images.mask is None else images.mask[..., None, None]  # (g,N,R,1,1)
        said = None if texts.mask is None else texts.mask[:, None]  # (g,1,M,T)
        if self.direction == "i2t":  # softmax over the sentences so far: two running sums
            if said is not None:
                weight = weight * said[:, None]
            seen = (weight * dots).cumsum(-1) / weight.cumsum(-1)  # (g,N,R,M,T)
            return seen.mean(2) if present is None else (seen * present).sum(2) / present.sum(2)
        if present is not None:
            weight = weight * present
        seen = (weight * dots).sum(2) / weight.sum(2)  # (g,N,M,T), of a sentence alone
        count = torch.arange(1, dots.shape[-1] + 1, device=dots.device)
        if said is not None:
            seen, count = seen * said, said.cumsum(-1)
        return seen.cumsum(-1) / count

    def block(
        self, texts: Items, images: Items, folded: Any, trace: Trace = None, turns: int = 0, levels: bool = False,
        cheap: bool = False,
    ) -> dict[str, Tensor]:  # fmt: skip
        """Scores of a block of pairs, sets first.

        Args:
            texts: sentences (g,M,T,D); with ``turns`` the prefixes' vectors stand beside them, (g,M,T,2D).
            images: regions (g,N,R,D) and global vectors (g,N,D).
            folded: of :meth:`fold`.
            trace: receives ``dots`` and, per round, the arrays of :func:`reasoning.reason` under ``roundR/NAME``.
            turns: score every round, and name this many; 0 scores the last one only.
            levels: also give ``local``, ``reason`` and ``global`` apart.
            cheap: leave the reasoning out: ``score`` is that of the other two levels.

        Returns:
            ``score`` (g,M,N) or, with ``turns``, (g,M,N,turns), float32.
        """
        sentences = texts.local[..., : self.dim].contiguous()  # (g,M,T,D)
        prefix = texts.local[..., self.dim :].float() if turns else texts.pooled[:, :, None]  # (g,M,T or 1,D)
        dots = self.dots(sentences, images)  # (g,N,R,M,T)
        last, count = dots.shape[-1], prefix.shape[2]
        found = {
            "local": self.local_rounds(dots, texts, images)[..., -count:],  # (g,N,M,T or 1)
            "global": self.global_rounds(prefix, images),
        }
        score = self.alpha * found["local"] + self.gamma * found["global"]
        width = self.beta * self._weights(texts, last)[:, None, :, -count:]  # (g,1,M,T or 1)
        if self.beta and not cheap:
            scales, gram = self._reasoning_inputs(dots, images)
            logits = []
            for place, turn in enumerate(range(last - count + 1, last + 1)):
                own: Trace = None if trace is None else {}
                said = Items(sentences, texts.mask, prefix[:, :, place], {})
                node = reasoning.reason(dots, scales, turn, said, images, gram, folded, own)  # (g,N,M,S)
                logits.append(self.sim_w(node).squeeze(-1).float())  # (g,N,M)
                if trace is not None and own is not None:
                    own |= {"vec": node, "logit": logits[-1]}
                    trace |= {f"round{turn}/{name}": value for name, value in own.items()}
            found["reason"] = torch.sigmoid(torch.stack(logits, -1))  # (g,N,M,T or 1)
            score = score + width * found["reason"]
        if trace is not None:
            trace["dots"] = affinities(images.local, sentences)
        made = {"score": score, **(found if levels else {})}
        return {name: _sets_first(value, turns) for name, value in made.items()}

    def training_block(self, texts: Items, images: Items, folded: Any, turns: int) -> dict[str, Tensor]:
        """``local`` (g,M,N,turns) of every round, ``global`` and ``reason`` (g,M,N) of the full sets."""
        dots = self.dots(texts.local, images)
        made = {
            "local": _sets_first(self.local_rounds(dots, texts, images), turns),
            "global": _sets_first(self.global_rounds(texts.pooled[:, :, None], images), 0),
        }
        if self.beta:
            scales, gram = self._reasoning_inputs(dots, images)
            node = reasoning.reason(dots, scales, dots.shape[-1], texts, images, gram, folded)
            made["reason"] = _sets_first(torch.sigmoid(self.sim_w(node).float()), 0)
        return made

    def _reasoning_inputs(self, dots: Tensor, images: Items) -> tuple[Tensor, Tensor]:
        gram = gram_matrix(images.local.flatten(0, 1)).unflatten(0, images.local.shape[:2])  # (g,N,R,R)
        return reasoning.region_scales(dots, self.temperatures["t2i"]), gram

    def dots(self, sentences: Tensor, images: Items) -> Tensor:
        """LeakyReLU of the dots of all regions and sentences, one product: (g,M,T,D) -> (g,N,R,M,T) float32."""
        return nn.functional.leaky_relu(affinities(images.local, sentences), SLOPE)

    def global_rounds(self, prefix: Tensor, images: Items) -> Tensor:
        """The global level ``v . u_r``, float32 whatever the autocast. (g,M,T,D) -> (g,N,M,T)."""
        with torch.autocast(prefix.device.type, enabled=False):
            return affinities(images.pooled.float()[:, :, None], prefix.float())[:, :, 0]

    def _weights(self, texts: Items, total: int) -> Tensor:
        """w of every set and round (g,M,T); of a short set the last one's goes on. 1 in training."""
        g, m = texts.local.shape[:2]
        if self.training:
            return texts.pooled.new_ones(1, 1, 1).expand(g, m, total)
        table = self.round_weights(total, texts.local.device).to(torch.float32)
        return table.expand(g, m, total) if texts.mask is None else table[texts.mask.cumsum(-1) - 1]

    def pair_bytes(self, sentences: int, regions: int) -> int:
        """Bytes of working arrays per pair, measured; the widest round's nodes and their products rule."""
        wide, nodes = max(self.dim, self.config["sim_dim"]), sentences + 1
        arrays, narrow = (4 + 5 * self.config["steps"], 12) if torch.is_grad_enabled() else (5, 6)
        return 4 * (arrays * nodes * wide + narrow * regions * sentences)

    def run(
        self, queries: Prepared, gallery: Prepared, memory: int | None = None, folded: Any = None, **options: Any
    ) -> dict[str, Tensor]:
        """The pair stage, block by block; ``options`` and the result are those of :meth:`block`, as (M,N,...)."""
        self.check_sides(queries, gallery)
        function = partial(self.block, folded=self.folded() if folded is None else folded, **options)
        return score_blocks(function, queries, gallery, self.pair_bytes, self.budget(memory))

    def score_rounds(
        self, queries: Prepared, gallery: Prepared, memory: int | None = None, levels: bool = False
    ) -> Any:
        """Scores after every round, (T,N,M) float32; with ``levels`` a dict that also has each level's own."""
        self.check_sides(queries, gallery)
        with torch.autocast(queries.device.type, enabled=False):
            beside = torch.cat([queries.local, self.prefixes(queries)], -1)  # (M,T,2D)
        sets = Prepared(beside, queries.mask, queries.pooled)
        made = self.run(sets, gallery, memory, turns=queries.local.shape[1], levels=levels)
        made = {key: value.permute(2, 1, 0).contiguous() for key, value in made.items()}  # (T,N,M)
        return made if levels else made["score"]

    def cheap(self, queries: Prepared, gallery: Prepared, memory: int | None = None) -> tuple[Tensor, Tensor]:
        """Bounds of the last round's scores without the reasoning: ``c`` (M,N) and ``l`` (M,), ``c <= score <= c + l``.

        See :mod:`xretrieve.heads.bound`.
        """
        weights = self.round_weights(queries.mask.shape[1], queries.device).float()
        cheap = self.run(queries, gallery, memory, folded=(), cheap=True)["score"]  # no weight is read
        return cheap, self.beta * weights[queries.mask.sum(1) - 1]

    def glance(self, sets: Prepared, gallery: Prepared, before: Tensor | None = None) -> Tensor:
        """T-I: what the last sentence finds in each image (N,). I-T: the two running sums of each region over the
        sentences so far (N,2,R), of weighted dots and of weights."""
        said = sets.local[0, -1].to(gallery.local.dtype)
        dots = nn.functional.leaky_relu(torch.matmul(gallery.local, said).float(), SLOPE)  # (N,R)
        weight = (self.temperatures[self.direction] * dots).exp()
        if self.direction == "i2t":
            sums = torch.stack([weight * dots, weight], 1)  # (N,2,R)
            return sums if before is None else sums.add_(before)
        weight = weight * gallery.mask
        return (weight * dots).sum(1) / weight.sum(1)

    def from_glances(self, glances: Sequence[Tensor], sets: Prepared, gallery: Prepared) -> tuple[Tensor, float]:
        """As :meth:`cheap`, of one set whose sentences have been seen."""
        if self.direction == "t2i":
            local = torch.stack(list(glances)).mean(0)  # (N,)
        else:
            top, bottom = glances[-1].unbind(1)  # (N,R)
            local = (top / bottom * gallery.mask).sum(1) / gallery.mask.sum(1)
        cheap = self.alpha * local + self.gamma * self.coarse_scores(sets, gallery)[0]
        return cheap, self.beta * float(self.round_weights(len(glances))[-1])

    @torch.no_grad()
    def explain(self, sets: Prepared, gallery: Prepared) -> dict[str, Tensor]:
        """As :meth:`MultiQueryHead.explain`, in the T-I direction whatever the head's own is.

        Also ``local``, ``reason`` and ``global`` (M,N), the three levels without their weights; ``weights`` (M,3),
        those weights in the same order; ``nodes`` (M,N,1+T): how much the global node reads from itself and from each
        sentence in the first step of the reasoning. Later steps say less: without a residual path the nodes of a
        trained model are nearly equal by then, and all are read alike.
        """
        self.check_sides(sets, gallery)
        texts, images = Items.of(sets), Items.of(gallery)
        trace: dict[str, Tensor] = {}
        made = self.block(texts, images, self.fold(), trace, levels=True)
        dots = nn.functional.leaky_relu(trace["dots"], SLOPE)  # (1,N,R,M,T)
        logits = self.temperatures["t2i"] * dots
        if images.mask is not None:
            logits = logits.masked_fill(~images.mask[..., None, None], LOW)
        regions = logits.softmax(2)
        found = {name: value[0] for name, value in made.items()}
        found["regions"] = regions[0].permute(2, 0, 3, 1)  # (M,N,T,R)
        found["sentences"] = (regions * dots)[0].sum(1).transpose(0, 1)  # (M,N,T)
        last = dots.shape[-1]
        width = self._weights(texts, last)[0, :, -1]  # (M,)
        found["weights"] = torch.stack([torch.full_like(width, self.alpha), self.beta * width,
                                        torch.full_like(width, self.gamma)], 1)  # fmt: skip
        if self.beta:
            real = nn.functional.pad(sets.mask, (1, 0), value=True)[None, None]
            weights = reasoning.read_weights(trace[f"round{last}/nodes"], real, self.fold().steps[0])
            found["nodes"] = weights[0].transpose(0, 1)
        return found

    def training_levels(self, sets: Prepared, gallery: Prepared) -> dict[str, Tensor]:
        """``local`` (M,N,T), and ``global`` and ``reason`` (M,N) of the full sets."""
        self.check_sides(sets, gallery)
        function = partial(self.training_block, folded=self.fold(), turns=sets.local.shape[1])
        return score_blocks(function, sets, gallery, self.pair_bytes, self.budget(None))

    def training_loss(
        self, sets: Prepared, gallery: Prepared, take: Take, rows: Rows = unchanged, own: Prepared | None = None
    ) -> tuple[Tensor, Stats]:
        """Local level of every round, reasoning and global level of the full sets, weighted as in the score."""
        made = self.training_levels(sets, gallery)
        parts = [take(local) for local in made["local"].unbind(-1)]
        losses = {"loss_local": torch.stack([loss for loss, _ in parts]).mean(), "loss_global": take(made["global"])[0]}
        total = self.alpha * losses["loss_local"] + self.gamma * losses["loss_global"]
        if self.beta:
            losses["loss_reasoning"] = take(made["reason"])[0]
            total = total + self.beta * losses["loss_reasoning"]
        return total, parts[-1][1] | {name: value.detach() for name, value in losses.items()}


def _sets_first(scores: Tensor, turns: int) -> Tensor:
    """(g,N,M,T) as (g,M,N,turns), the last round repeated where a block of short sets had fewer; (g,M,N) without."""
    scores = scores.transpose(1, 2).float()
    return hold_last(scores, turns) if turns else scores[..., -1]
