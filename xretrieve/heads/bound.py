"""Exact search with little reasoning: an image is scored in full only where that can change the answer.

HMRN's score is ``c + l * reason`` with ``0 <= reason <= 1``: the cheap levels ``c`` are known for all images, so
``c <= score <= c + l``.

**Top K.** Images are visited by falling ``c``; theta is the K-th largest finished score, minus infinity before K are
finished. An image with ``c + l < theta`` is left out, and so is every later one. *Proof.* At least K images score theta
or more. One that was left out scores at most ``c + l < theta``, so K images beat it strictly: it is not among the K
best, and no tie is lost. All others were scored.

**Rank of one image** with score s: images with ``c > s`` are above it, those with ``c + l < s`` below; only the band
between is scored.

Both sides of a comparison are rounded: ``c`` may differ by a last bit from the one inside a finished score, whose
matrix products had other shapes. :data:`SLACK` is far above that, and widens the band.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from xretrieve.errors import XRetrieveError
from xretrieve.heads.base import Head
from xretrieve.heads.multi import MultiQueryHead
from xretrieve.heads.scoring import in_dtype, score_matrix, score_pairs
from xretrieve.tokens import Prepared

SLACK = {torch.float32: 1e-5, torch.bfloat16: 2e-2, torch.float16: 5e-3}
CHUNK = 16  # images that are scored between two looks at theta, until a quarter of those seen is more

# (sets (A,), images (A,C), theta (A,)) -> full scores (A,C), float32; anything below theta where that is certain
Finish = Callable[[Tensor, Tensor, Tensor], Tensor]


class TopK(NamedTuple):
    """The best images of each set.

    scores: (M,K) float32, falling.
    rows: (M,K) int64, images; equal scores in the order of the gallery.
    share: of all pairs, how many were scored in full.
    """

    scores: Tensor
    rows: Tensor
    share: float


class RankCounts(NamedTuple):
    """How many other images score above the right one of each set, and how many equal to it, (M,) int64; ``share`` as
    in :class:`TopK`."""

    greater: Tensor
    equal: Tensor
    share: float


def top_k(
    head: Head, queries: Prepared, gallery: Prepared, k: int, memory: int | None = None,
    dtype: torch.dtype | None = None, chunk: int = CHUNK,
) -> TopK:  # fmt: skip
    """The K best images of each set by the scores of its last round: the answer of scoring everything.

    Args:
        head: HMRN, or any other head, which is then scored in full.
        queries: M sets.
        gallery: N images.
        k: how many are wanted; all where N is smaller.
        memory, dtype: as in :func:`xretrieve.heads.scoring.score_matrix`.
        chunk: images of a set that are scored at a time at first, at least K.
    """
    if k < 1:
        raise XRetrieveError(f"top_k: k must be at least 1, got {k}")
    if not _bounded(head):
        scores = score_matrix(head, queries, gallery, memory, dtype)
        return TopK(*best(scores, None, min(k, len(gallery))), 1.0)
    with in_dtype(gallery.device, dtype):
        cheap, width = head.cheap(queries, gallery, memory)

    def finish(sets: Tensor, rows: Tensor, theta: Tensor) -> Tensor:
        return score_pairs(head, queries[sets], gallery, rows, memory, dtype)

    return bounded_top_k(cheap, width, finish, k, _slack(gallery, dtype), chunk)


def top_k_mean(
    members: Sequence[tuple[Head, Prepared, Prepared]], k: int, memory: int | None = None,
    dtype: torch.dtype | None = None, chunk: int = CHUNK,
) -> TopK:  # fmt: skip
    """:func:`top_k` of an ensemble: the mean of the members' scores, the published two directions of HMRN for example.

    Args:
        members: heads that have bounds (HMRN), each with its own M sets and N images.
        k, memory, dtype, chunk: as in :func:`top_k`.

    ``c`` is the mean of the members' and so is ``l``. A member is not asked for an image that the members before it
    have ruled out: of two, the second sees a band of half the width. ``share`` counts every member's scores.
    """
    if k < 1:
        raise XRetrieveError(f"top_k: k must be at least 1, got {k}")
    for head, _, _ in members:
        if not _bounded(head):
            raise XRetrieveError(f"top_k_mean: head {head.name!r} has no bounds; average its scores and sort them")
    with in_dtype(members[0][2].device, dtype):
        bounds = [head.cheap(queries, gallery, memory) for head, queries, gallery in members]
    slack, asked = _slack(members[0][2], dtype), 0

    def finish(sets: Tensor, rows: Tensor, theta: Tensor) -> Tensor:
        nonlocal asked
        least = torch.stack([cheap[sets[:, None], rows] for cheap, _ in bounds]).sum(0)  # of the sum of the scores
        room = torch.stack([width[sets] for _, width in bounds]).sum(0)[:, None]
        for (head, queries, gallery), (cheap, width) in zip(members, bounds, strict=True):
            open_ = least + room + len(members) * slack >= len(members) * theta[:, None]  # (A,C)
            count = int(open_.sum(1).max())
            if not count:
                break
            place = open_.to(torch.uint8).argsort(dim=1, descending=True, stable=True)[:, :count]
            own = rows.gather(1, place)
            full = score_pairs(head, queries[sets], gallery, own, memory, dtype)
            least = least.scatter_add(1, place, full - cheap[sets[:, None], own])
            room = room.expand(rows.shape).scatter_add(1, place, -width[sets, None].expand(place.shape))
            asked += own.numel()
        # what was ruled out on the way keeps its upper bound, which lies below theta
        return (least + room) / len(members)

    cheap, width = (torch.stack(parts).mean(0) for parts in zip(*bounds, strict=True))
    found = bounded_top_k(cheap, width, finish, k, slack, chunk)
    return TopK(found.scores, found.rows, asked / max(1, len(members) * cheap.numel()))


def bounded_top_k(
    cheap: Tensor, width: Tensor, finish: Finish, k: int, slack: float = SLACK[torch.float32], chunk: int = CHUNK
) -> TopK:
    """The K best of scores that are known to lie in ``[cheap, cheap + width]``.

    Args:
        cheap: (M,N) float32.
        width: (M,).
        finish: gives full scores.
        k: how many are wanted.
        slack: by how much rounding may move either side.
        chunk: images of a set that are finished at a time at first, at least K.
    """
    sets, images = cheap.shape
    k = min(k, images)
    order = cheap.argsort(dim=1, descending=True, stable=True)  # (M,N)
    most = cheap.gather(1, order) + width[:, None] + slack  # the largest score each image can have
    scores = cheap.new_full((sets, k), -torch.inf, dtype=torch.float32)
    rows = torch.full((sets, k), images, device=cheap.device)  # behind every image, until there is one
    active, start, done = torch.arange(sets, device=cheap.device), 0, 0
    while len(active) and start < images:
        stop = min(images, start + max(chunk, start // 4, 0 if start else k))
        wanted = most[active, start:stop] >= scores[active, -1:]  # a prefix: `most` falls
        stop = start + int(wanted.sum(1).max())  # no set needs more than this
        tried = order[active, start:stop]  # (A,C)
        full = finish(active, tried, scores[active, -1]).float()
        done += tried.numel()
        scores[active], rows[active] = best(
            torch.cat([scores[active], full], 1), torch.cat([rows[active], tried], 1), k
        )
        start = stop
        if start < images:
            active = active[most[active, start] >= scores[active, -1]]
    return TopK(scores, rows, done / max(1, sets * images))


def best(scores: Tensor, rows: Tensor | None, k: int) -> tuple[Tensor, Tensor]:
    """The K largest of each line, falling, and their rows; equal ones by row. (M,C), (M,C) or None -> (M,K), (M,K)."""
    if rows is None:
        found, place = scores.sort(dim=1, descending=True, stable=True)
        return found[:, :k], place[:, :k]
    rows, by_row = rows.sort(dim=1, stable=True)
    found, place = scores.gather(1, by_row).sort(dim=1, descending=True, stable=True)
    return found[:, :k], rows.gather(1, place[:, :k])


def rank_counts(
    head: Head, queries: Prepared, gallery: Prepared, target: Tensor, memory: int | None = None,
    dtype: torch.dtype | None = None,
) -> RankCounts:  # fmt: skip
    """How many images beat the right one of each set after its last round, with ties.

    Args:
        head, queries, gallery, memory, dtype: as in :func:`top_k`.
        target: (M,) int64, the right image of each set.
    """
    target = torch.as_tensor(target, device=gallery.device)
    if target.shape != (len(queries),) or not 0 <= int(target.min()) <= int(target.max()) < len(gallery):
        raise XRetrieveError(f"target must name an image 0 .. {len(gallery) - 1} for each of the {len(queries)} sets")
    right = score_pairs(head, queries, gallery, target[:, None], memory, dtype)  # (M,1)
    if _bounded(head):
        with in_dtype(gallery.device, dtype):
            cheap, width = head.cheap(queries, gallery, memory)
        slack = _slack(gallery, dtype)
        above = cheap - slack > right
        band = (cheap - slack <= right) & (cheap + width[:, None] + slack >= right)  # (M,N)
    else:
        cheap = score_matrix(head, queries, gallery, memory, dtype)
        above, band = torch.zeros_like(cheap, dtype=torch.bool), torch.ones_like(cheap, dtype=torch.bool)
    others = torch.arange(len(gallery), device=target.device) != target[:, None]
    above, band = above & others, band & others
    if not _bounded(head):
        return RankCounts(*_count(cheap, right, band), 1.0)
    greater, equal = above.sum(1), torch.zeros_like(target)
    sizes, order = band.sum(1).sort()
    scored, start = len(target), int((sizes == 0).sum())
    while start < len(order):  # sets with bands of like size go together: lists are as long as the longest
        longest = torch.clamp(sizes[start] * 5 // 4, min=CHUNK)
        stop = int(torch.searchsorted(sizes, longest, right=True))
        group = order[start:stop]
        rows = band[group].to(torch.uint8).argsort(dim=1, descending=True, stable=True)[:, : int(sizes[stop - 1])]
        full = score_pairs(head, queries[group], gallery, rows, memory, dtype)
        more, same = _count(full, right[group], band[group].gather(1, rows))
        greater[group] += more
        equal[group] = same
        scored, start = scored + rows.numel(), stop
    return RankCounts(greater, equal, scored / max(1, band.numel()))


def rank_rounds(
    head: MultiQueryHead, queries: Prepared, gallery: Prepared, target: Tensor, memory: int | None = None,
    dtype: torch.dtype | None = None,
) -> list[RankCounts]:  # fmt: skip
    """:func:`rank_counts` after every round 1 .. T, each with its own share."""
    rounds = range(1, queries.mask.shape[1] + 1)
    return [rank_counts(head, head.cut(queries, r), gallery, target, memory, dtype) for r in rounds]


def _count(scores: Tensor, right: Tensor, real: Tensor) -> tuple[Tensor, Tensor]:
    return ((scores > right) & real).sum(1), ((scores == right) & real).sum(1)


def _bounded(head: Head) -> bool:
    return hasattr(head, "cheap")


def _slack(gallery: Prepared, dtype: torch.dtype | None) -> float:
    device = gallery.device.type
    if dtype is None and torch.is_autocast_enabled(device):
        dtype = torch.get_autocast_dtype(device)
    return SLACK[dtype or torch.float32]
