"""One scoring engine for all heads: every query against every item, or against its own list of candidates.

Work is cut into blocks of pairs that fit a memory budget. Items of like length share a block, so that little padding is
computed; results come back in the caller's order. When gradients are wanted, blocks are kept for the backward pass as
long as they fit the budget; the others are computed again there (activation checkpointing): scores and gradients are
the same.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from xretrieve.errors import XRetrieveError
from xretrieve.heads.base import Head
from xretrieve.tokens import Prepared, Tokens

MEMORY = 64 * 2**20  # bytes of a block's working arrays: on a CPU smaller blocks stay near its caches
TRAINING_BLOCK = 256 * 2**20  # the same where gradients are wanted: larger blocks, fewer sums of weight gradients
TRAINING_MEMORY = 3 * 2**30  # bytes of blocks that are kept for the backward pass
FEW = 8  # captions of a block at least, where so many are alike in length; then images are cut
WASTE = 1.1  # padded over real tokens within a block


@dataclass
class Items:
    """One side of a block. ``g`` groups of N items: local (g,N,L,D), mask (g,N,L) or None when every token is real,
    pooled (g,N,D), extra: tensors (g,N,...)."""

    local: Tensor
    mask: Tensor | None
    pooled: Tensor
    extra: dict[str, Tensor]

    @classmethod
    def of(cls, prepared: Prepared, groups: int = 1) -> Items:
        """Prepared items (g N rows) as ``groups`` of N; padding that no item needs is cut off."""
        prepared = prepared.trim()

        def split(x: Tensor) -> Tensor:
            return x.unflatten(0, (groups, -1))

        mask = None if bool(prepared.mask.all()) else split(prepared.mask)
        extra = {name: split(values) for name, values in prepared.extra.items()}
        return cls(split(prepared.local), mask, split(prepared.pooled), extra)


BlockFunction = Callable[[Items, Items], dict[str, Tensor]]


def score_matrix(
    head: Head, queries: Tokens, gallery: Tokens, memory: int | None = None, dtype: torch.dtype | None = None
) -> Tensor:
    """Scores of every query against every item, (Q,G) float32.

    Args:
        head: any head; work that depends on one side only has been done by ``prepare_*`` or is done first.
        queries, gallery: ``Prepared``, or raw ``Tokens``.
        memory: bytes that the working arrays of one block may take (approximately); inputs and result come on top.
            None takes the head's own budget.
        dtype: ``torch.bfloat16`` or ``torch.float16`` for the matrix products; norms, softmaxes and scores stay
            float32. None keeps the precision that is in force.
    """
    queries, gallery = _prepared(head, queries, gallery)
    with in_dtype(queries.device, dtype):
        if head.pair_stage is not None:
            return head.run(queries, gallery, memory)["score"].float()
        rows = max(1, (memory or MEMORY) // (4 * max(1, len(gallery))))
        parts = [head.pair(queries[i : i + rows], gallery).float() for i in range(0, len(queries), rows)]
    return torch.cat(parts) if parts else queries.pooled.new_zeros(0, len(gallery))


def score_pairs(
    head: Head, queries: Tokens, gallery: Tokens, candidates: Tensor, memory: int | None = None,
    dtype: torch.dtype | None = None,
) -> Tensor:  # fmt: skip
    """Scores of every query against its own candidates, (Q,K) float32: the second stage of a cascade.

    Args:
        head, queries, gallery, memory, dtype: as in :func:`score_matrix`.
        candidates: (Q,K) int64, rows of the gallery.
    """
    queries, gallery = _prepared(head, queries, gallery)
    candidates = torch.as_tensor(candidates, device=queries.device)
    if candidates.ndim != 2 or len(candidates) != len(queries) or candidates.is_floating_point():
        raise XRetrieveError(f"candidates must be whole numbers ({len(queries)},K), one row per query; they are "
                             f"{tuple(candidates.shape)} {candidates.dtype}")  # fmt: skip
    if candidates.numel() and not 0 <= int(candidates.min()) <= int(candidates.max()) < len(gallery):
        wrong = candidates[(candidates < 0) | (candidates >= len(gallery))][0]
        raise XRetrieveError(f"candidates name row {int(wrong)} of a gallery with {len(gallery)} rows")
    result = queries.pooled.new_zeros(candidates.shape, dtype=torch.float32)
    if not result.numel():
        return result
    with in_dtype(queries.device, dtype):
        if head.pair_stage is not None:
            return _listed(head, queries, gallery, candidates, memory or head.memory or MEMORY)
        rows = max(1, (memory or MEMORY) // (4 * max(1, len(gallery))))
        parts = []
        for i in range(0, len(queries), rows):
            used, place = candidates[i : i + rows].unique(return_inverse=True)
            parts.append(head.pair(queries[i : i + rows], gallery[used]).float().gather(1, place))
        return torch.cat(parts)


def score_blocks(
    function: BlockFunction, queries: Prepared, gallery: Prepared, pair_bytes: Callable[[int, int], int], memory: int,
    whole_rows: bool = False,
) -> dict[str, Tensor]:  # fmt: skip
    """Run a pair function block by block and join what it returns.

    Args:
        function: of texts (1,c,L,D) and images (1,b,R,D); returns scores (1,c,b) and, per text, values (1,c).
        queries, gallery: the texts (C) and the images (B).
        pair_bytes: bytes one pair of (words, regions) needs.
        memory: bytes of one block; where gradients are wanted, of all blocks that are kept for the backward pass.
        whole_rows: keep all images in every block (statistics over a caption's images).

    Returns:
        The same names with (C,B) or (C,) tensors in the caller's order.
    """
    if not len(queries) or not len(gallery):
        raise XRetrieveError(f"nothing to score: {len(queries)} queries, {len(gallery)} gallery items")
    by_row, row_lengths = _longest_first(queries)
    by_column, column_lengths = _longest_first(gallery)
    runner = _Runner(function, pair_bytes, memory)
    longest = int(column_lengths[0])

    def pairs(length: int) -> int:
        return max(1, runner.size // pair_bytes(length, longest))

    def rows(length: int) -> int:
        few = 1 if whole_rows else min(FEW, pairs(length))
        return max(few, pairs(length) // len(gallery))

    cuts = list(_cuts(row_lengths, rows))
    texts = _rows(queries, by_row, cuts)
    images = _cast(gallery if by_column is None else gallery[by_column])
    lines: list[dict[str, Tensor]] = []
    for (start, stop), text in zip(cuts, texts, strict=True):
        wide = len(gallery) if whole_rows else max(1, pairs(int(row_lengths[start])) // (stop - start))
        wide = math.ceil(len(gallery) / math.ceil(len(gallery) / wide))  # equal blocks
        columns = [(0, len(gallery))] if whole_rows else list(_cuts(column_lengths, lambda _, wide=wide: wide))
        alone, caption = len(cuts) * len(columns) == 1, Items.of(text)
        parts = [runner(caption, Items.of(image), alone) for image in _split(images, columns)]
        lines.append(_join(parts, 2))
    joined = {name: values[0] for name, values in _join(lines, 1).items()}
    return {name: _restore(values, by_row, by_column) for name, values in joined.items()}


def score_groups(
    function: BlockFunction, queries: Prepared, gallery: Prepared, groups: int,
    pair_bytes: Callable[[int, int], int], memory: int,
) -> dict[str, Tensor]:  # fmt: skip
    """Run a pair function on groups of items: no pair across groups is computed.

    Args:
        function: of texts (g,c,L,D) and images (g,b,R,D); returns scores (g,c,b).
        queries, gallery: ``groups * c`` texts and ``groups * b`` images, group after group.
        groups: how many.
        pair_bytes, memory: as in :func:`score_blocks`; as many groups as fit share a block.

    Returns:
        The same names with (groups,c,b) tensors.
    """
    if not groups or len(queries) % groups or len(gallery) % groups:
        raise XRetrieveError(f"{len(queries)} queries and {len(gallery)} gallery items make no {groups} equal groups")
    c, b = len(queries) // groups, len(gallery) // groups
    queries, gallery = _cast(queries.trim()), _cast(gallery.trim())
    runner = _Runner(function, pair_bytes, memory)
    size = max(1, runner.size // (pair_bytes(queries.local.shape[1], gallery.local.shape[1]) * c * b))
    parts = []
    for start in range(0, groups, size):
        n = min(size, groups - start)
        sides = (Items.of(queries[start * c : (start + n) * c], n), Items.of(gallery[start * b : (start + n) * b], n))
        parts.append(runner(*sides, alone=size >= groups))
    return _join(parts, 0)


class _Runner:
    """Runs a pair function on blocks. Where gradients are wanted, blocks are kept for the backward pass while they fit
    ``memory``; the others are computed again there. ``size`` is the bytes of a block."""

    def __init__(self, function: BlockFunction, pair_bytes: Callable[[int, int], int], memory: int) -> None:
        self.function, self.pair_bytes, self.left = function, pair_bytes, memory
        self.grad = torch.is_grad_enabled()
        self.size = min(memory, TRAINING_BLOCK) if self.grad else memory

    def __call__(self, texts: Items, images: Items, alone: bool) -> dict[str, Tensor]:
        (g, c, words, _), (_, b, regions, _) = texts.local.shape, images.local.shape
        self.left -= g * c * b * self.pair_bytes(words, regions)
        if not self.grad or alone or self.left >= 0:
            return self.function(texts, images)
        # no random numbers are drawn in the pair stage, so their state need not be kept
        return checkpoint(self.function, texts, images, use_reentrant=False, preserve_rng_state=False)


def _listed(head: Head, queries: Prepared, gallery: Prepared, candidates: Tensor, memory: int) -> Tensor:
    folded = head.folded()
    queries, gallery = _cast(queries), _cast(gallery)
    order, lengths = _longest_first(queries)
    regions, k = gallery.local.shape[1], candidates.shape[1]
    # the candidates' own tokens are gathered, which a matrix of all pairs never does
    own = sum(v[0].numel() * v.element_size() for v in (gallery.local, *gallery.extra.values())) if len(gallery) else 0

    def pairs(length: int) -> int:
        return max(1, memory // (head.pair_bytes(length, regions) + own))

    if order is not None:
        queries, candidates = queries[order], candidates[order]
    lines = []
    for start, stop in _cuts(lengths, lambda length: max(1, pairs(length) // k)):
        texts = Items.of(queries[start:stop], groups=stop - start)
        wide = min(k, max(1, pairs(int(lengths[start])) // (stop - start)))
        parts = []
        for left in range(0, k, wide):
            rows = candidates[start:stop, left : left + wide]
            images = Items.of(gallery[rows.reshape(-1)], groups=stop - start)
            parts.append(head.block(texts, images, folded)["score"][:, 0].float())  # (g,wide)
        lines.append(torch.cat(parts, 1))
    return _restore(torch.cat(lines), order, None)


def _prepared(head: Head, queries: Tokens, gallery: Tokens) -> tuple[Prepared, Prepared]:
    if not isinstance(queries, Prepared):
        queries = head.prepare_queries(queries)
    if not isinstance(gallery, Prepared):
        gallery = head.prepare_gallery(gallery)
    return queries, gallery


def in_dtype(device: torch.device | str, dtype: torch.dtype | None) -> contextlib.AbstractContextManager[object]:
    """Autocast to ``dtype``, off for float32; None leaves what is in force."""
    if dtype is None:
        return contextlib.nullcontext()
    return torch.autocast(torch.device(device).type, dtype=dtype, enabled=dtype != torch.float32)


def product_dtype(device: torch.device) -> torch.dtype:
    """The precision of the matrix products that is in force."""
    enabled = torch.is_autocast_enabled(device.type)
    return torch.get_autocast_dtype(device.type) if enabled else torch.float32


def _cast(items: Prepared) -> Prepared:
    """Local tokens in the precision of the matrix products, once and not once per block; the rest stays float32."""
    if not torch.is_autocast_enabled(items.device.type):
        return items
    return Prepared(items.local.to(product_dtype(items.device)), items.mask, items.pooled, items.extra)


def _rows(items: Prepared, order: Tensor | None, cuts: list[tuple[int, int]]) -> Iterable[Prepared]:
    """Consecutive blocks of items in their order. Without gradients each is copied when its turn comes, not all."""
    if torch.is_grad_enabled():
        return _split(_cast(items if order is None else items[order]), cuts)
    return (_cast(items[start:stop] if order is None else items[order[start:stop]].trim()) for start, stop in cuts)


def _split(items: Prepared, cuts: list[tuple[int, int]]) -> list[Prepared]:
    """Consecutive blocks of items; the gradient is joined once, where slices would add up arrays of full size."""
    if len(cuts) == 1:
        return [items]
    sizes = [stop - start for start, stop in cuts]
    extra = {name: values.split(sizes) for name, values in items.extra.items()}
    parts = zip(items.local.split(sizes), items.mask.split(sizes), items.pooled.split(sizes), strict=True)
    return [Prepared(*part, {name: values[i] for name, values in extra.items()}) for i, part in enumerate(parts)]


def _longest_first(items: Prepared) -> tuple[Tensor | None, Tensor]:
    """The order from long to short (None when all are equal), and the used lengths in that order (on the CPU)."""
    places = torch.arange(1, items.mask.shape[1] + 1, device=items.device)
    lengths = (items.mask * places).amax(1) if len(places) else items.mask.new_zeros(len(items), dtype=torch.long)
    lengths = lengths.clamp(min=1)  # holes in the mask count: a token's place decides what can be cut off
    if bool((lengths == lengths[0]).all()):
        return None, lengths.cpu()
    order = lengths.argsort(descending=True, stable=True)
    return order, lengths[order].cpu()


def _cuts(lengths: Tensor, size: Callable[[int], int]) -> Iterator[tuple[int, int]]:
    """Blocks (start, stop) of lengths sorted from long to short: at most ``size(longest)`` items, little padding."""
    start, total = 0, lengths.cumsum(0)
    while start < len(lengths):
        longest = int(lengths[start])
        stop = min(len(lengths), start + size(longest))
        real = total[start:stop] - (total[start] - longest)
        count = torch.arange(1, stop - start + 1)
        stop = start + int((longest * count <= WASTE * real).sum())  # holds for a prefix: lengths only fall
        yield start, stop
        start = stop


def _join(parts: list[dict[str, Tensor]], axis: int) -> dict[str, Tensor]:
    if len(parts) == 1:
        return parts[0]
    return {name: torch.cat([part[name] for part in parts], axis) for name in parts[0]}


def _restore(values: Tensor, by_row: Tensor | None, by_column: Tensor | None) -> Tensor:
    if by_row is not None:
        values = values[by_row.argsort()]
    if by_column is not None and values.ndim > 1:
        values = values[:, by_column.argsort()]
    return values
