"""TSHSR: a two-stream hierarchical similarity reasoner (after Chen, Wang, Wang, Kwong, arXiv 2203.05349).

The abstract of that paper fixes two ideas: a hierarchical module that extracts context by itself and uses it together
with the local interactions, and a network of two streams trained end to end, from image to text and from text to
image. Every equation in between is this project's own reading of the abstract; no result is a reproduction of the
paper's tables. Without context, a stream is exactly SGR.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import reduce
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import logsigmoid

from xretrieve.errors import XRetrieveError, unknown
from xretrieve.heads.graph import reason, step
from xretrieve.heads.hierarchy import Context, Gate, Level
from xretrieve.heads.local import STREAMS, TEMPERATURES
from xretrieve.heads.precise import Affine, full
from xretrieve.heads.saf import Filtration, SafNorm, pack, run_with_moments
from xretrieve.heads.scoring import Items
from xretrieve.heads.similarity import RegionNorm, xavier
from xretrieve.heads.streams import StreamHead, Trace, TrainOn, captions_first
from xretrieve.tokens import Prepared


def fuse_logits(*logits: Tensor) -> Tensor:
    """The exact logit of the mean of some probabilities ``sigmoid(logit)``; it does not saturate, so it ranks.

    >>> fuse_logits(torch.tensor(30.0), torch.tensor(30.0)).item()
    30.0
    """
    positive = reduce(torch.logaddexp, [logsigmoid(x) for x in logits])
    return positive - reduce(torch.logaddexp, [logsigmoid(-x) for x in logits])


def _mean_logit(a: Tensor, b: Tensor) -> Tensor:
    return (a + b) / 2


class Reasoner(nn.Module):
    """One stream: local projection, levels, readout, logit.

    Args:
        dim, sim_dim: D, S.
        clusters: contexts of each level.
        context, gate: see :class:`xretrieve.heads.hierarchy.Level`.
        readout: the ``global`` node, or ``saf`` filtration over the last level's nodes.
        saf_norm: see :class:`xretrieve.heads.saf.Filtration`.
        logit: give this stream a logit of its own (the mean fusion does).
    """

    def __init__(
        self, dim: int, sim_dim: int, clusters: Sequence[int], context: Context, gate: Gate, readout: str,
        saf_norm: SafNorm, logit: bool,
    ) -> None:  # fmt: skip
        super().__init__()
        self.sim_tranloc_w = nn.Linear(dim, sim_dim)
        self.levels = nn.ModuleList(Level(sim_dim, m, context, gate) for m in clusters)
        self.SAF_module = Filtration(sim_dim, saf_norm) if readout == "saf" else None
        self.sim_eval_w = nn.Linear(sim_dim, 1) if logit else None
        xavier(self)


class TSHSR(StreamHead):
    """Two streams of hierarchical similarity reasoning in one network.

    Args:
        image_dim, text_dim: F of the two backbones' local tokens.
        streams: ``both``, or one of ``t2i`` (a node per word) and ``i2t`` (a node per region).
        context: ``cluster`` (learned pooling of the nodes), ``mean`` (one context, the mean node) or ``none`` (SGR).
        levels: K, steps of reasoning.
        clusters: contexts of each level, K numbers; default 2^(K-1), ..., 2, 1.
        fusion: ``mean`` of the streams' probabilities, ``logit``: mean of their logits (for training on logits, whose
            zero is arbitrary), or ``concat`` of their vectors before one logit.
        gate: ``vector`` (one number per channel) or ``scalar`` (one per node) between local and context.
        readout: the ``global`` node, or ``saf`` (filtration over the last level's nodes).
        aux_streams: with mean fusion, train each stream on its own score as well.
        aux_weight: of each of these two losses; the fused score's weighs 1.
        lambda_t2i, lambda_i2t: temperatures of the cross-attention.
        saf_norm: for ``readout="saf"``, see :class:`xretrieve.heads.saf.Filtration`.
        dim, sim_dim, region_norm, regions, dropout, image_project, text_project: as in
            :class:`xretrieve.heads.sgr.SGR`.
        image_norm, text_norm, image_dropout, text_dropout, train_on, coarse: the same.
        residual, use_pooled, text_hidden: the same.

    Scores are logits (with mean fusion the exact logit of the mean probability).
    """

    name = "tshsr"

    def __init__(
        self, image_dim: int, text_dim: int, streams: Literal["both", "t2i", "i2t"] = "both",
        context: Context = "cluster", levels: int = 3, clusters: Sequence[int] | None = None,
        fusion: Literal["mean", "logit", "concat"] = "mean", gate: Gate = "vector",
        readout: Literal["global", "saf"] = "global",
        aux_streams: bool = True, aux_weight: float = 1.0, lambda_t2i: float = TEMPERATURES["t2i"],
        lambda_i2t: float = TEMPERATURES["i2t"], saf_norm: SafNorm = "caption", dim: int = 1024, sim_dim: int = 256,
        region_norm: RegionNorm = "none", regions: int = 36, dropout: float = 0.4, image_project: bool = True,
        text_project: bool | None = None, image_norm: bool = False, text_norm: bool = False,
        image_dropout: float = 0.0, text_dropout: float = 0.0, train_on: TrainOn = "probability", coarse: bool = False,
        residual: float | None = None,
        use_pooled: bool = False, text_hidden: int = 0,
    ) -> None:  # fmt: skip
        super().__init__({k: v for k, v in locals().items() if k not in ("self", "__class__")})
        for key, value, known in (("streams", streams, ("both", *STREAMS)),
                                  ("fusion", fusion, ("mean", "logit", "concat")),
                                  ("readout", readout, ("global", "saf"))):  # fmt: skip
            if value not in known:
                raise unknown(key, str(value), known)
        if levels < 1:
            raise XRetrieveError(f"head 'tshsr': levels must be at least 1, got {levels}")
        counts = [2 ** (levels - 1 - k) for k in range(levels)] if clusters is None else [int(m) for m in clusters]
        if len(counts) != levels or min(counts) < 1:
            raise XRetrieveError(
                f"head 'tshsr': clusters needs {levels} numbers of at least 1, one per level, got {counts}"
            )
        if not 0 <= aux_weight < math.inf:
            raise XRetrieveError(f"head 'tshsr': aux_weight must be 0 or more, got {aux_weight}")
        self.config["clusters"] = counts
        self.streams = STREAMS if streams == "both" else (streams,)
        self.temperatures = {"t2i": lambda_t2i, "i2t": lambda_i2t}
        self.concat = len(self.streams) == 2 and fusion == "concat"
        self.aux_streams = aux_streams
        self.loss_weights = dict.fromkeys(STREAMS, aux_weight)
        self.steps, self.node_arrays_grad = levels, 7 + levels * (3 if context == "none" else 4)
        for stream in self.streams:
            reasoner = Reasoner(dim, sim_dim, counts, context, gate, readout, saf_norm, not self.concat)
            self.add_module(stream, reasoner)
        if self.concat:
            self.sim_eval_w = nn.Linear(2 * sim_dim, 1)
            self.read_out(self.sim_eval_w)
        else:
            self.read_out(*(self.reasoner(stream).sim_eval_w for stream in self.streams))

    def reasoner(self, stream: str) -> Reasoner:
        """The weights of one stream."""
        return getattr(self, stream)

    @property
    def whole_rows(self) -> bool:
        """SAF readout: a caption's statistics run over all images."""
        return self.config["readout"] == "saf"

    def fold(self) -> dict[str, Any]:
        """Projections and merged weights of every level of every stream."""
        made = super().fold()
        for stream in self.streams:
            own = self.reasoner(stream)
            made |= {stream: Affine(own.sim_tranloc_w), f"{stream}_levels": [level.weights() for level in own.levels]}
        return made

    def pairs(self, texts: Items, images: Items, folded: Any, trace: Trace) -> dict[str, Tensor]:
        """``score`` (g,C,B), and each stream's own logits under its name where it has them."""
        nodes = self.nodes(texts, images, folded, trace)
        vectors, outputs = [], {}
        for stream, (x, mask) in nodes.items():
            z, moments = self._read(stream, x, mask, folded, trace)  # (g,N,M,S)
            outputs |= pack(stream, moments)
            vectors.append(full(z.transpose(1, 2) if stream == "t2i" else z))  # (g,C,B,S)
        if self.concat:
            logits = self.sim_eval_w(torch.cat(vectors, -1)).squeeze(-1).float()
            return {"score": self.add_residual(logits, texts, images), **outputs}
        for stream, z in zip(self.streams, vectors, strict=True):
            logits = captions_first(self.reasoner(stream).sim_eval_w(z).squeeze(-1), "i2t")
            outputs[stream] = self.add_residual(logits, texts, images)
        own = [outputs[stream] for stream in self.streams]
        fuse = fuse_logits if self.config["fusion"] == "mean" else _mean_logit
        return {"score": fuse(*own) if len(own) == 2 else own[0], **outputs}

    def _read(self, stream: str, x: Tensor, mask: Tensor | None, folded: Any, trace: Trace) -> tuple[Tensor, Any]:
        reasoner = self.reasoner(stream)
        levels = folded[f"{stream}_levels"]
        if trace is None:  # without filtration only the global node is read after the last level
            x = reason(x, mask, levels, first_row=reasoner.SAF_module is None)
        else:
            for k, weights in enumerate(levels, start=1):
                found: dict[str, Tensor] = {}
                x = step(x, mask, weights, False, found)
                trace |= {f"{stream}_{name}_level{k}": value for name, value in (found | {"nodes": x}).items()}
        if reasoner.SAF_module is None:
            return x[..., 0, :], None
        z, beta, moments = reasoner.SAF_module(x, mask, stream, folded.get(f"{stream}_moments"))
        if trace is not None:
            trace[f"{stream}_saf_weights"] = beta
        return z, moments

    def run(
        self, queries: Prepared, gallery: Prepared, memory: int | None = None, folded: Any = None
    ) -> dict[str, Tensor]:
        """As in the base class; training with SAF readout also moves the running statistics, once."""
        if self.config["readout"] == "global":
            return super().run(queries, gallery, memory, folded)
        filtrations = {s: self.reasoner(s).SAF_module for s in self.streams}
        return run_with_moments(self, super().run, filtrations, queries, gallery, memory)

    def matrices(self, outputs: dict[str, Tensor]) -> dict[str, Tensor]:
        """The matrices the loss is taken on: the fused ``score`` and, with ``aux_streams``, each stream's own."""
        if self.concat or len(self.streams) == 1:
            return {"score": self.signal(outputs["score"])}
        own = {stream: self.signal(outputs[stream]) for stream in self.streams}
        plain = self.config["train_on"] == "probability" and self.config["fusion"] == "mean"
        fused = (own["t2i"] + own["i2t"]) / 2 if plain else self.signal(outputs["score"])
        return {"score": fused, **(own if self.aux_streams else {})}
