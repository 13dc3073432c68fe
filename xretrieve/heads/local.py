"""What the heads share that compare local tokens pair by pair: projection, blockwise pair stage, training scores."""

from __future__ import annotations

from abc import abstractmethod
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from xretrieve.errors import XRetrieveError, unknown
from xretrieve.heads.attention import gram_matrix
from xretrieve.heads.base import Head
from xretrieve.heads.scoring import MEMORY, TRAINING_MEMORY, Items, score_blocks, score_groups
from xretrieve.heads.similarity import Projection
from xretrieve.tokens import Prepared, Tokens

STREAMS = ("t2i", "i2t")  # a node per word; a node per region
TEMPERATURES = {"t2i": 9.0, "i2t": 4.0}
Trace = dict[str, Tensor] | None


class LocalHead(Head):
    """Base of SCAN, SGR, SAF and TSHSR. A subclass sets ``streams`` and writes :meth:`pairs`.

    Args:
        config: the constructor's keyword arguments; the projection's are read here.

    ``memory`` (bytes) bounds the working arrays of a block of pairs; None takes the defaults of scoring and training.
    """

    streams: tuple[str, ...]
    indexable = False  # V and T meet only inside the global node

    def __init__(self, config: dict[str, Any]) -> None:
        if config.get("text_project") is None:
            config["text_project"] = config["text_dim"] != config["dim"]
        super().__init__(config)
        self.dim = config["dim"]
        self.memory: int | None = None
        self.image, self.text = (
            Projection(side, config[f"{side}_dim"], config["dim"], config[f"{side}_project"], config[f"{side}_norm"],
                       config[f"{side}_dropout"])
            for side in ("image", "text")
        )  # fmt: skip

    @property
    def coarse(self) -> bool:
        """Whether a loss on the cosine of V and T was part of the training; without one it is untrained."""
        return bool(self.config["coarse"])

    @abstractmethod
    def image_vector(self, local: Tensor, mask: Tensor) -> Tensor:
        """The images' coarse vectors. (B,R,D), (B,R) -> (B,D)."""

    @abstractmethod
    def text_vector(self, local: Tensor, mask: Tensor) -> Tensor:
        """The captions' coarse vectors. (C,L,D), (C,L) -> (C,D)."""

    def prepare_gallery(self, tokens: Tokens) -> Prepared:
        """Images: unit vectors of the regions, the global vector, and the Gram matrix where regions are attended to."""
        local = self.image(tokens)
        return self._with_gram(local, tokens.mask, self.image_vector(local, tokens.mask), "t2i")

    def prepare_queries(self, tokens: Tokens) -> Prepared:
        """Captions: unit vectors of the words, the global vector, and the Gram matrix where words are attended to."""
        local = self.text(tokens)
        return self._with_gram(local, tokens.mask, self.text_vector(local, tokens.mask), "i2t")

    def restore_gallery(self, local: Tensor, mask: Tensor, pooled: Tensor) -> Prepared:
        """Images as :meth:`prepare_gallery` gives them, from regions (N,R,D), mask and global vectors on disk."""
        return self._with_gram(local, mask, pooled, "t2i")

    def _with_gram(self, local: Tensor, mask: Tensor, pooled: Tensor, stream: str) -> Prepared:
        return Prepared(local, mask, pooled, {"gram": gram_matrix(local)} if stream in self.streams else {})

    def coarse_parts(self) -> list[nn.Module]:
        """The projections; a subclass adds what pools."""
        return [self.image, self.text]

    def block(self, texts: Items, images: Items, folded: Any, trace: Trace = None) -> dict[str, Tensor]:
        """All pairs of a block: ``score`` (g,C,B) float32, and what else training needs.

        Products are computed in the precision of the local tokens; autocast has no say in it. ``trace`` collects
        intermediate arrays by name, and turns off savings that would leave some of them out.
        """
        with torch.autocast(texts.local.device.type, enabled=False):
            return self.pairs(texts, images, folded, trace)

    @abstractmethod
    def pairs(self, texts: Items, images: Items, folded: Any, trace: Trace) -> dict[str, Tensor]:
        """What :meth:`block` returns."""

    @abstractmethod
    def pair_bytes(self, words: int, regions: int) -> int:
        """Bytes of working arrays per pair, with gradients where they are enabled: an estimate, it sizes blocks."""

    def run(
        self, queries: Prepared, gallery: Prepared, memory: int | None = None, folded: Any = None
    ) -> dict[str, Tensor]:
        """The pair stage over everything, block by block: what :meth:`block` returns, as (C,B) tensors."""
        self._check(queries, gallery)
        function = partial(self.block, folded=self.folded() if folded is None else folded)
        memory = memory or self.memory or (TRAINING_MEMORY if torch.is_grad_enabled() else MEMORY)
        whole_rows = self.training and self.whole_rows
        return score_blocks(function, queries, gallery, self.pair_bytes, memory, whole_rows)

    @property
    def whole_rows(self) -> bool:
        """Whether training needs all images of a caption in one block (statistics over them)."""
        return False

    def pair(self, queries: Prepared, gallery: Prepared) -> Tensor:
        """Scores (Q,G) float32, made for ranking: logits, or SCAN's raw scores."""
        return self.run(queries, gallery)["score"]

    def run_groups(self, queries: Prepared, gallery: Prepared, groups: int) -> dict[str, Tensor]:
        """The pair stage within groups only, as (groups,c,b) tensors: rows lie group after group on both sides."""
        self._check(queries, gallery)
        if self.training and self.whole_rows:  # its statistics move caption by caption, over all images of a call
            rows = zip(torch.arange(len(queries)).chunk(groups), torch.arange(len(gallery)).chunk(groups), strict=True)
            each = [self.run(queries[texts], gallery[images]) for texts, images in rows]
            return {name: torch.stack([one[name] for one in each]) for name in each[0]}
        function = partial(self.block, folded=self.fold())
        return score_groups(function, queries, gallery, groups, self.pair_bytes, self.memory or TRAINING_MEMORY)

    def matrices(self, outputs: dict[str, Tensor]) -> dict[str, Tensor]:
        """The matrices the loss is taken on, from what :meth:`run` or :meth:`run_groups` returned."""
        return {"score": outputs["score"]}

    def training_scores(self, queries: Prepared, gallery: Prepared) -> dict[str, Tensor]:
        """:meth:`matrices` of all pairs, (Q,G) each."""
        return self.matrices(self.run(queries, gallery))

    def attention(self, text: Prepared, image: Prepared) -> dict[str, Tensor]:
        """Who looks where: per stream the weights (C,B,queries,context), for words over regions or the reverse."""
        trace: dict[str, Tensor] = {}
        with torch.no_grad():
            self.block(Items.of(text), Items.of(image), self.fold(), trace)
        found = {stream: trace[f"{stream}_attention"][0] for stream in self.streams}  # (N,M,q,k)
        return {stream: w.transpose(0, 1) if stream == "t2i" else w for stream, w in found.items()}

    def combine_texts(self, texts: Prepared) -> Prepared:
        """One text is itself; several cannot become one caption of this head. Their coarse vectors alone can."""
        if len(texts) == 1:
            return texts
        self.only_coarse(f"matches one caption with one picture; it takes no query of {len(texts)} texts. "
                          "Write them as one sentence, or search with a dual encoder", texts)  # fmt: skip
        return super().combine_texts(texts)

    def image_query(self, image: Prepared) -> Prepared:
        """Not a query this head can answer, unless by the coarse vector alone."""
        self.only_coarse("matches captions with pictures; it takes no query of a picture", image)
        return super().image_query(image)

    def combine_image_text(self, image: Prepared, text: Prepared) -> Prepared:
        """Not a query this head can answer, unless by the coarse vectors alone."""
        self.only_coarse("matches captions with pictures; it takes no query of a picture and a text", image, text)
        return super().combine_image_text(image, text)

    def _check(self, *sides: Prepared) -> None:
        for side in sides:
            if not side.local.shape[1]:
                raise XRetrieveError(
                    f"head {self.name!r} scores local tokens, but these prepared items hold none; prepare them with "
                    "this head and keep their local tokens"
                )


def captions_first(scores: Tensor, stream: str) -> Tensor:
    """A stream's own order (g,context items,query items) as (g,C,B) float32."""
    return (scores.transpose(1, 2) if stream == "t2i" else scores).float()


def roles(stream: str, texts: Items, images: Items) -> tuple[Items, Items]:
    """(context, query) of a stream."""
    return (images, texts) if stream == "t2i" else (texts, images)


def check_stream(stream: str) -> str:
    """A stream's name, or an error that lists them."""
    if stream not in STREAMS:
        raise unknown("stream", str(stream), STREAMS)
    return stream
