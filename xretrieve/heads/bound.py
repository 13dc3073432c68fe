"""Exact search with little reasoning: an image is scored in full only where that can change the answer.

HMRN's score is ``c + l * reason`` with ``0 <= reason <= 1``: the cheap levels ``c`` are known for all images, so
``c <= score <= c + l``.

**Top K.** Images are visited by falling ``c``; theta is the K-th largest finished score, minus infinity before K are
finished. An image with ``c + l < theta`` is left out, and so is every later one. *Proof.* At least K images score theta
or more. One that was left out scores at most ``c + l < theta``, so K images beat it strictly: it is not among the K
best, and no tie is lost. All others were scored.

Both sides of a comparison are rounded: ``c`` may differ by a last bit from the one inside a finished score, whose
matrix products had other shapes. :data:`SLACK` is far above that, and widens the band.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

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
