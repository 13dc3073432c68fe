"""What SGR, SAF and TSHSR share: global vectors, and the similarity nodes of both streams of a block of pairs."""

from __future__ import annotations

import math
from typing import Any, Literal

import torch
from torch import Tensor, nn

from xretrieve.errors import XRetrieveError, unknown
from xretrieve.heads.attention import affinities, attend, attended_norm, attention_weights, swap_roles
from xretrieve.heads.base import EPS, l2
from xretrieve.heads.compare import compare
from xretrieve.heads.dual import Side
from xretrieve.heads.local import TEMPERATURES, LocalHead, Trace, captions_first, check_stream, roles
from xretrieve.heads.precise import Affine, apply, full, lengths, unit
from xretrieve.heads.scoring import Items, product_dtype
from xretrieve.heads.similarity import GlobalVector, node_mask, region_count, xavier
from xretrieve.tokens import Prepared, Tokens

Stream = Literal["t2i", "i2t"]
TrainOn = Literal["probability", "logit"]
__all__ = ["Stream", "StreamHead", "Trace", "TrainOn", "captions_first"]


class StreamHead(LocalHead):
    """Encoders' projections, V and T, and W_glo; a subclass adds what reasons over the nodes.

    Args:
        config: the constructor's keyword arguments.
    """

    logits = True
    temperatures: dict[str, float]
    steps = 1  # of reasoning
    node_arrays = 5  # S-wide arrays per node alive at once; with gradients, those that are kept as well
    node_arrays_grad = 9

    def __init__(self, config: dict[str, Any]) -> None:
        super().__init__(config)
        dim, dropout = config["dim"], config["dropout"]
        self.sim_dim = config["sim_dim"]
        if config["train_on"] not in ("probability", "logit"):
            raise unknown("train_on", str(config["train_on"]), ("probability", "logit"))
        temperature = config["residual"]
        if temperature is not None and not 0 < temperature < math.inf:
            raise XRetrieveError(f"head {self.name!r}: residual is a temperature above 0, or null; got {temperature}")
        self.v_global_w = GlobalVector(dim, dropout, region_count(config["region_norm"], config["regions"]))
        self.t_global_w = GlobalVector(dim, dropout)
        self.sim_tranglo_w = nn.Linear(dim, self.sim_dim)
        xavier(self.sim_tranglo_w)
        self.pooled = nn.ModuleDict()  # of each side, where the coarse vectors hold the backbone's own as well
        for side in ("image", "text") if config["use_pooled"] else ():
            hidden = config["text_hidden"] if side == "text" else 0
            self.pooled[side] = Side(config[f"{side}_dim"], dim, "", "pooled", True, hidden, config[f"{side}_dropout"],
                                     config[f"{side}_norm"])  # fmt: skip
        if config["text_hidden"] and not config["use_pooled"]:
            raise XRetrieveError(f"head {self.name!r}: text_hidden is of the pooled vectors; it needs use_pooled: true")
        if config["use_pooled"] and config["residual"] is None and not config["coarse"]:
            raise XRetrieveError(
                f"head {self.name!r}: with use_pooled there must be something that reads the pooled vectors: residual, "
                "or a coarse_loss"
            )

    def single_stream(self, stream: str, temperature: float | None) -> None:
        """Set up a head of one stream: its name, its lambda and its local projection."""
        self.stream = check_stream(stream)
        self.streams = (stream,)
        self.temperatures = {stream: TEMPERATURES[stream] if temperature is None else temperature}
        self.sim_tranloc_w = nn.Linear(self.dim, self.sim_dim)
        xavier(self.sim_tranloc_w)

    def coarse_parts(self) -> list[nn.Module]:
        """Projections and global vectors."""
        return [*super().coarse_parts(), self.v_global_w, self.t_global_w, self.pooled]

    def prepare_gallery(self, tokens: Tokens) -> Prepared:
        """As in the base class; ``pooled`` is V (B,D), or with ``use_pooled`` both vectors, (B,2D) of unit length."""
        return self._join("image", tokens, super().prepare_gallery(tokens))

    def prepare_queries(self, tokens: Tokens) -> Prepared:
        """As in the base class; ``pooled`` is T (C,D), or with ``use_pooled`` both vectors, (C,2D) of unit length."""
        return self._join("text", tokens, super().prepare_queries(tokens))

    def _join(self, side: str, tokens: Tokens, prepared: Prepared) -> Prepared:
        if not self.pooled:
            return prepared
        width = self.config[f"{side}_dim"]
        if tokens.pooled.shape[1] != width:
            raise XRetrieveError(
                f"head {self.name!r}: use_pooled needs a {side} backbone whose pooled vector is as wide as its local "
                f"tokens; it gives {tokens.pooled.shape[1]} and {width}"
            )
        both = torch.cat([prepared.pooled, self.pooled[side](tokens)], 1) / math.sqrt(2)  # half of each cosine
        return Prepared(prepared.local, prepared.mask, both, prepared.extra)

    def image_vector(self, local: Tensor, mask: Tensor) -> Tensor:
        """V (B,D)."""
        return self.v_global_w(local, mask)

    def text_vector(self, local: Tensor, mask: Tensor) -> Tensor:
        """T (C,D)."""
        return self.t_global_w(local, mask)

    def read_out(self, *layers: nn.Linear) -> None:
        """Initial weights of what makes the logits: zero with ``residual``, so that the coarse vectors rank."""
        for layer in layers:
            xavier(layer)
            if self.config["residual"] is not None:
                nn.init.zeros_(layer.weight)

    def add_residual(self, logits: Tensor, texts: Items, images: Items) -> Tensor:
        """``logits`` (g,C,B), with the cosines of T and V over the temperature ``residual`` added where it is set."""
        if self.config["residual"] is None:
            return logits
        cosines = full(texts.pooled) @ full(images.pooled).transpose(1, 2)
        return logits + cosines / self.config["residual"]

    def signal(self, logits: Tensor) -> Tensor:
        """What the loss reads of a pair: its probability, or with ``train_on="logit"`` the logit itself."""
        return logits if self.config["train_on"] == "logit" else torch.sigmoid(logits)

    def matrices(self, outputs: dict[str, Tensor]) -> dict[str, Tensor]:
        """The matrix the loss is taken on, see :meth:`signal`."""
        return {"score": self.signal(outputs["score"])}

    def fold(self) -> dict[str, Any]:
        """W_glo; a subclass adds each stream's W_loc under the stream's name, and its own weights."""
        return {"global": Affine(self.sim_tranglo_w)}

    def nodes(
        self, texts: Items, images: Items, folded: dict[str, Any], trace: Trace
    ) -> dict[str, tuple[Tensor, Tensor | None]]:
        """Nodes (g,N,M,1+q,S) and their mask (g,1,M,1+q) of each stream, in the precision of the local tokens.

        The streams share the cosines and the global node. N counts the context items, M the query items.
        """
        cosines = affinities(images.local, texts.local)  # (g,B,R,C,L)
        shared = self.global_node(texts, images, folded["global"])  # (g,B,C,S)
        made = {}
        for stream in self.streams:
            context, query = roles(stream, texts, images)
            a, first = (cosines, shared) if stream == "t2i" else (swap_roles(cosines), shared.transpose(1, 2))
            weights = attention_weights(a, self.temperatures[stream], context.mask)  # (g,N,k,M,q)
            # the length of the attended vector, from the Gram matrix, divides the weights instead of the vector
            share = weights / (attended_norm(weights, context.extra["gram"])[:, :, None] + EPS)
            x = compare(share, context.local, query.local, folded[stream], first)  # (g,N,M,1+q,S)
            made[stream] = x, node_mask(query.mask)
            if trace is not None:
                trace[f"{stream}_attention"] = weights.permute(0, 1, 3, 4, 2)
                trace[f"{stream}_context"] = l2(attend(weights, context.local))
                trace[f"{stream}_nodes"] = x
        return made

    def global_node(self, texts: Items, images: Items, layer: Affine) -> Tensor:
        """The node of V and T, (g,B,C,S): an image's one context is V, with weight 1."""
        dtype = images.local.dtype
        (g, b, _), c = images.pooled.shape, texts.pooled.shape[1]
        one = images.pooled.new_ones(1, 1, 1, 1, 1).expand(g, b, 1, c, 1)
        first, second = images.pooled, texts.pooled
        if self.pooled:  # V and T are the first half
            first, second = (x[..., : self.dim] * math.sqrt(2) for x in (first, second))
        context, query = first.to(dtype)[:, :, None], second.to(dtype)[:, :, None]
        if not torch.is_grad_enabled():  # nothing to weigh
            y = apply((context - query.transpose(1, 2)).square_(), layer.weight, layer.bias)
            return unit(y, lengths(y), out=y)
        return compare(one, context, query, layer).squeeze(-2)

    def pair_bytes(self, words: int, regions: int) -> int:
        """S-wide arrays of the nodes, cosines and weights, node attention: an estimate of what a block holds."""
        grad = torch.is_grad_enabled()
        wide = self.node_arrays_grad if grad else self.node_arrays
        total = 0
        for stream in self.streams:
            n = 1 + (words if stream == "t2i" else regions)
            total += wide * n * self.sim_dim + (self.steps if grad else 2) * n * n
        narrow = (10 if grad else 6) * words * regions * len(self.streams)  # float32 in any case
        return total * product_dtype(self.sim_tranglo_w.weight.device).itemsize + 4 * narrow
