"""What every head does. A head knows no files and no backbones: it sees `Tokens` only."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from xretrieve.errors import QueryKindError, XRetrieveError
from xretrieve.heads.abilities import ABILITIES, Attention, Bounds, GroupLosses, PairLosses, PairStage, SetStage
from xretrieve.tokens import Prepared, Tokens
from xretrieve.utils.written import values_of, written

EPS = 1e-8


def l2(x: Tensor, eps: float = EPS) -> Tensor:
    """``x / (||x|| + eps)`` along the last axis, with a finite gradient at zero rows.

    The sum of squares is clamped at 1e-24 before the root: that changes no float32 value, and a padded (all-zero)
    row gets gradient 0 instead of 0 x inf = NaN.
    """
    return x / (x.square().sum(-1, keepdim=True).clamp(min=1e-24).sqrt() + eps)


def set_learning(part: nn.Module, learns: bool = True) -> None:
    """Switch a part's gradients on or off; what its modules list as ``constants()`` stays off in any case.

    Constants are parameters that a published model has and no score depends on: kept for loading and saving. Left
    trainable without a gradient they would stop distributed training.
    """
    part.requires_grad_(learns)
    for module in part.modules():
        constants: Callable[[], Iterable[nn.Parameter]] = getattr(module, "constants", tuple)
        for parameter in constants():
            parameter.requires_grad_(False)


def learn_coarse_only(head: Head) -> None:
    """Switch off the gradients of what the coarse vectors do not need: ``head.coarse_parts()`` go on learning."""
    wanted = _coarse_weights(head)
    for parameter in head.parameters():
        if id(parameter) not in wanted:
            parameter.requires_grad_(False)


def freeze_coarse(head: Head) -> None:
    """Switch off the gradients of ``head.coarse_parts()``, so that what is between the two sides learns alone."""
    frozen = _coarse_weights(head)
    for parameter in head.parameters():
        if id(parameter) in frozen:
            parameter.requires_grad_(False)
    if not any(parameter.requires_grad for parameter in head.parameters()):
        raise XRetrieveError(
            f"head {head.name!r} has no weights beside those of its coarse vectors, so nothing would learn; leave "
            "freeze_coarse out"
        )


def _coarse_weights(head: Head) -> set[int]:
    return {id(p) for part in head.coarse_parts() for p in part.parameters()}


def pad_sets(rows: Tensor, sizes: Sequence[int] | Tensor) -> tuple[Tensor, Tensor]:
    """Rows of M sets, one set after the other, as a padded batch. (S, ...) -> (M, T, ...) and the mask (M, T).

    >>> pad_sets(torch.tensor([1, 2, 3]), [1, 2])[0].tolist()
    [[1, 0], [2, 3]]
    """
    counts = torch.as_tensor(sizes, dtype=torch.long, device=rows.device)
    if not len(counts) or int(counts.min()) < 1 or int(counts.sum()) != len(rows):
        small = f"set {int((counts < 1).nonzero()[0])} is empty" if (counts < 1).any() else "they add up to another sum"
        raise XRetrieveError(f"{len(counts)} query sets of {len(rows)} sentences in all: {small}")
    mask = torch.arange(int(counts.max()), device=rows.device) < counts[:, None]  # (M,T)
    place = (counts.cumsum(0) - counts)[:, None] + torch.arange(mask.shape[1], device=rows.device)
    padded = rows[place.clamp(max=len(rows) - 1)]  # (M,T,...), by index: its gradient is a sum, not a copy per set
    return padded.masked_fill(~mask.view(*mask.shape, *[1] * (rows.ndim - 1)), 0), mask


class Head(nn.Module, ABC):
    """One task's model: one-sided preparation, and the scores of prepared queries against a prepared gallery.

    ``config`` holds the keyword arguments that rebuild the head (:func:`xretrieve.heads.create_head`); ``tasks`` says
    which front doors list it (:mod:`xretrieve.image_text`). ``indexable``: the inner product of the coarse vectors is
    the score, so an index of them answers queries. ``logits``: scores are logits of a probability. ``loss_weights``:
    weight in the loss of a matrix of ``training_scores``, by name, 1 where none is given.
    """

    name: str = ""
    tasks: tuple[str, ...] = ("image_text",)
    indexable: bool = True
    logits: bool = False
    loss_weights: Mapping[str, float] = {}

    def __init__(self, config: dict[str, Any]) -> None:
        super().__init__()
        self.config = config
        self._folded: tuple[Any, Any] | None = None  # what the weights were, and what was made of them

    def __getstate__(self) -> dict[str, Any]:
        """What is copied and pickled: not what can be made again."""
        return {**self.__dict__, "_folded": None}

    def fold(self) -> Any:
        """What depends on weights only and is made once per call; a head that scores token by token reads it in every
        block of pairs."""
        return None

    def folded(self) -> Any:
        """:meth:`fold`; in inference mode it is kept for the next call, until a weight is written to.

        Merging the weights and laying them out for oneDNN took a third of a search that re-ranks 175 pictures.
        """
        now = written(values_of(self))
        if now is None:
            return self.fold()
        kept = self._folded  # another thread may put its own there
        if kept is None or kept[0] != now:
            self._folded = kept = now, self.fold()
        return kept[1]

    @classmethod
    def reads(cls, side: str, options: dict[str, Any]) -> str:
        """What this head takes from the backbone of ``side`` (`image` or `text`): its `local` tokens or its `pooled`
        vector. It decides which width the head is built with."""
        return "local"

    # what it can do beyond that (:mod:`xretrieve.heads.abilities`): the head itself, or None ------------------------

    def __init_subclass__(cls, **more: Any) -> None:
        """A class that defines the method of an ability has it."""
        super().__init_subclass__(**more)
        for ability, method in ABILITIES.items():
            if method in vars(cls):
                setattr(cls, ability, property(lambda self: self))

    @property
    def pair_stage(self) -> PairStage | None:
        """Scores token by token; None: scores are inner products of the coarse vectors."""
        return None

    @property
    def pair_losses(self) -> PairLosses | None:
        """Losses of its own on the pairs of a batch."""
        return None

    @property
    def group_losses(self) -> GroupLosses | None:
        """Losses of its own on groups of a batch."""
        return None

    @property
    def set_stage(self) -> SetStage | None:
        """Reads the sentences of a query set together."""
        return None

    @property
    def bounds(self) -> Bounds | None:
        """Bounds that spare most of an exact scan."""
        return None

    @property
    def looks(self) -> Attention | None:
        """Who looks where."""
        return None

    def choices(self) -> list[float]:
        """Values of a constant weight of image and text that validation tries; none for other heads."""
        return []

    @property
    def coarse(self) -> bool:
        """Whether the cosine of the coarse vectors has been trained, so that it can pick candidates for this head."""
        return self.indexable

    @abstractmethod
    def prepare_queries(self, tokens: Tokens) -> Prepared:
        """All work that depends on the queries only; ``pooled`` of the result is the coarse vector (Q, D)."""

    @abstractmethod
    def prepare_gallery(self, tokens: Tokens) -> Prepared:
        """All work that depends on the gallery only; ``pooled`` of the result is the coarse vector (G, D)."""

    def pair(self, queries: Prepared, gallery: Prepared) -> Tensor:
        """The work that needs both sides: scores (Q, G). The default is the inner product of the coarse vectors."""
        return queries.pooled @ gallery.pooled.T

    def score(self, queries: Tokens, gallery: Tokens) -> Tensor:
        """Scores (Q, G); either side may be raw `Tokens` or already `Prepared`."""
        if not isinstance(queries, Prepared):
            queries = self.prepare_queries(queries)
        if not isinstance(gallery, Prepared):
            gallery = self.prepare_gallery(gallery)
        return self.pair(queries, gallery)

    def coarse_parts(self) -> list[nn.Module]:
        """The modules that make the coarse vectors."""
        return [self]

    def coarse_scores(self, queries: Prepared, gallery: Prepared) -> Tensor:
        """Inner products of the coarse vectors (Q, G), float32 whatever precision is in force."""
        with torch.autocast(queries.pooled.device.type, enabled=False):
            return queries.pooled.float() @ gallery.pooled.float().T

    def forward(self, queries: Tokens, gallery: Tokens) -> Tensor:
        """The same as :meth:`score` (what a distributed wrapper calls)."""
        return self.score(queries, gallery)

    def restore_gallery(self, local: Tensor, mask: Tensor, pooled: Tensor) -> Prepared:
        """What :meth:`prepare_gallery` gave, from what a gallery on disk keeps of it: (N,L,D), (N,L), (N,P). A head
        with extras makes them again."""
        return Prepared(local, mask, pooled)

    def image_query(self, image: Prepared) -> Prepared:
        """A picture (1 row of gallery items) becomes a query; the default looks for what is like it."""
        return image

    def only_coarse(self, refusal: str, *sides: Prepared) -> None:
        """For kinds of query that a head cannot score: an error, unless the sides are coarse vectors and no more."""
        if any(side.local.shape[1] for side in sides):
            raise QueryKindError(f"head {self.name!r} {refusal}")

    def combine_texts(self, texts: Prepared) -> Prepared:
        """Several prepared texts (T rows) become one query.

        The default averages the coarse vectors without renormalising: the score is then exactly the mean of the
        texts' own scores (the `mean_similarity` baseline).
        """
        return Prepared.from_pooled(texts.pooled.mean(0, keepdim=True))

    def combine_sets(self, texts: Prepared, sizes: Sequence[int] | Tensor) -> Prepared:
        """Prepared texts of M sets, one set after the other, become M queries.

        Args:
            texts: of all sets, one row each.
            sizes: how many of them each set has.

        Returns:
            ``local`` (M,T,D): the texts' coarse vectors in order, ``mask`` (M,T), and ``pooled`` (M,D): their mean
            without renormalising, so that the score is the mean of the texts' own scores.
        """
        local, mask = pad_sets(texts.pooled, sizes)
        return Prepared(local, mask, local.sum(1) / mask.sum(1, keepdim=True).to(local.dtype))

    def combine_image_text(self, image: Prepared, text: Prepared) -> Prepared:
        """A reference image (1 row) and a text (1 row) become one query; the default is the normalised sum."""
        return Prepared.from_pooled(torch.nn.functional.normalize(image.pooled + text.pooled, dim=-1))

    def query_weights(self, image: Prepared, text: Prepared) -> Tensor | None:
        """(M, 2): how much of the image and of the text is in each of M composed queries; the rows sum to 1. None where
        the head has no such weights. The default goes with that of :meth:`combine_image_text`: halves."""
        return image.pooled.new_full((len(image), 2), 0.5)

    def attribute_weights(self, image: Prepared, text: Prepared) -> dict[str, Tensor]:
        """Attribute -> (M, 2), how much of the image and of the text; empty for heads that read no attributes."""
        return {}
