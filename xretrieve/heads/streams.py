"""What SGR, SAF and TSHSR share: global vectors, and the similarity nodes of both streams of a block of pairs."""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor, nn

from xretrieve.errors import unknown
from xretrieve.heads.attention import affinities, attend, attended_difference, attention_weights, swap_roles
from xretrieve.heads.base import l2
from xretrieve.heads.local import TEMPERATURES, LocalHead, Trace, captions_first, check_stream, roles
from xretrieve.heads.scoring import Items
from xretrieve.heads.similarity import GlobalVector, global_node, node_mask, region_count, similarity, xavier

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
    node_arrays = 8  # S-wide arrays per node alive at once, without and with gradients: what sizes the blocks
    node_arrays_grad = 24

    def __init__(self, config: dict[str, Any]) -> None:
        super().__init__(config)
        dim, dropout = config["dim"], config["dropout"]
        self.sim_dim = config["sim_dim"]
        if config["train_on"] not in ("probability", "logit"):
            raise unknown("train_on", str(config["train_on"]), ("probability", "logit"))
        self.v_global_w = GlobalVector(dim, dropout, region_count(config["region_norm"], config["regions"]))
        self.t_global_w = GlobalVector(dim, dropout)
        self.sim_tranglo_w = nn.Linear(dim, self.sim_dim)
        xavier(self.sim_tranglo_w)

    def single_stream(self, stream: str, temperature: float | None) -> None:
        """Set up a head of one stream: its name, its lambda and its local projection."""
        self.stream = check_stream(stream)
        self.streams = (stream,)
        self.temperatures = {stream: TEMPERATURES[stream] if temperature is None else temperature}
        self.sim_tranloc_w = nn.Linear(self.dim, self.sim_dim)
        xavier(self.sim_tranloc_w)

    def coarse_parts(self) -> list[nn.Module]:
        """Projections and global vectors."""
        return [*super().coarse_parts(), self.v_global_w, self.t_global_w]

    def image_vector(self, local: Tensor, mask: Tensor) -> Tensor:
        """V (B,D)."""
        return self.v_global_w(local, mask)

    def text_vector(self, local: Tensor, mask: Tensor) -> Tensor:
        """T (C,D)."""
        return self.t_global_w(local, mask)

    def signal(self, logits: Tensor) -> Tensor:
        """What the loss reads of a pair: its probability, or with ``train_on="logit"`` the logit itself."""
        return logits if self.config["train_on"] == "logit" else torch.sigmoid(logits)

    def matrices(self, outputs: dict[str, Tensor]) -> dict[str, Tensor]:
        """The matrix the loss is taken on, see :meth:`signal`."""
        return {"score": self.signal(outputs["score"])}

    def nodes(
        self, texts: Items, images: Items, linears: dict[str, nn.Linear], trace: Trace
    ) -> dict[str, tuple[Tensor, Tensor | None]]:
        """Nodes (g,N,M,1+q,S) and their mask (g,1,M,1+q) of each stream that ``linears`` names.

        The streams share the cosines and the global node. N counts the context items, M the query items.
        """
        cosines = affinities(images.local, texts.local)  # (g,B,R,C,L)
        shared = global_node(self.sim_tranglo_w, images.pooled, texts.pooled)  # (g,B,C,S)
        made = {}
        for stream, linear in linears.items():
            context, query = roles(stream, texts, images)
            a, first = (cosines, shared) if stream == "t2i" else (swap_roles(cosines), shared.transpose(1, 2))
            weights = attention_weights(a, self.temperatures[stream], context.mask)  # (g,N,k,M,q)
            gram = context.extra["gram"]  # (g,N,k,k)
            difference = attended_difference(weights, gram, context.local, query.local)  # (g,N,M,q,D)
            x = torch.cat([first[..., None, :], similarity(linear, difference)], -2)  # (g,N,M,1+q,S)
            made[stream] = x, node_mask(query.mask)
            if trace is not None:
                trace[f"{stream}_attention"] = weights.permute(0, 1, 3, 4, 2)
                trace[f"{stream}_context"] = l2(attend(weights, context.local))
                trace[f"{stream}_nodes"] = x
        return made

    def pair_bytes(self, words: int, regions: int) -> int:
        """An estimate in float32: D-wide differences, cosines and weights, S-wide arrays, node attention."""
        grad = torch.is_grad_enabled()
        wide, square, narrow = (4, 10, self.node_arrays_grad) if grad else (2, 5, self.node_arrays)
        total = 2 * self.dim * wide // 2
        for stream in self.streams:
            q = words if stream == "t2i" else regions
            total += q * self.dim * wide + words * regions * square + (1 + q) * (self.sim_dim + q) * narrow
        return 4 * total
