"""Ranks by counting: how many negatives beat the right answer. Nothing is sorted.

A rank is 0-based: #greater + #equal / 2 over the negatives only (the captions of other images, or the other images),
so a constant matrix gets the rank that a random order would give it on average, not 0.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from xretrieve.errors import XRetrieveError, unknown

TIE_RULES = ("expected", "optimistic", "pessimistic")

# One tile is read from memory once and compared four times from the core's own cache. 254 eight-byte words: the bytes
# of a word are counters (see _count), and 254 additions of 0 or 1 cannot overflow one of them; neither can 128 rows.
_ROWS, _COLUMNS = 128, 8 * 254


@dataclass
class RankCounts:
    """For every query, how many negatives score above its right answer and how many score the same.

    Args:
        i2t_greater, i2t_equal: (N,) int64, for each image among the captions of the other images.
        t2i_greater, t2i_equal: (C,) int64, for each caption among the other images.
        owner: (C,) int64, the image row of each caption.
        folds: the images were ranked in this many consecutive galleries of equal size.
    """

    i2t_greater: np.ndarray
    i2t_equal: np.ndarray
    t2i_greater: np.ndarray
    t2i_equal: np.ndarray
    owner: np.ndarray
    folds: int = 1

    def i2t(self, ties: str = "expected") -> np.ndarray:
        """(N,) float64, 0-based rank of each image's best own caption."""
        return apply_ties(self.i2t_greater, self.i2t_equal, ties)

    def t2i(self, ties: str = "expected") -> np.ndarray:
        """(C,) float64, 0-based rank of each caption's image."""
        return apply_ties(self.t2i_greater, self.t2i_equal, ties)

    @property
    def tied(self) -> int:
        """Queries whose right answer shares its score with a negative."""
        return int((self.i2t_equal > 0).sum() + (self.t2i_equal > 0).sum())


def image_to_text_ranks(scores: Any, owner: Any, ties: str = "expected") -> np.ndarray:
    """(N,) float64: 0-based rank of the best of each image's own captions among the other images' captions.

    Args:
        scores: (N, C) float32 or float64, images x captions, numpy or torch.
        owner: (C,) the image row of each caption.
        ties: ``expected`` (#greater + #equal / 2), ``optimistic`` (#greater) or ``pessimistic`` (#greater + #equal).

    >>> image_to_text_ranks(np.array([[0.9, 0.1, 0.5], [0.2, 0.3, 0.3]]), [0, 0, 1])
    array([0. , 0.5])
    """
    scores, owner = check_scores(scores, owner)
    best, own_best, _ = _positives(scores, owner)
    greater, at_least, _, _ = _finite_count(scores, best, None)
    return apply_ties(greater, at_least - greater - own_best, ties)


def text_to_image_ranks(scores: Any, owner: Any, ties: str = "expected") -> np.ndarray:
    """(C,) float64: 0-based rank of each caption's image among the other images; arguments as `image_to_text_ranks`.

    >>> text_to_image_ranks(np.array([[0.9, 0.1, 0.5], [0.2, 0.3, 0.3]]), [0, 0, 1])
    array([0., 1., 1.])
    """
    scores, owner = check_scores(scores, owner)
    _, _, positive = _positives(scores, owner)
    _, _, greater, at_least = _finite_count(scores, None, positive)
    return apply_ties(greater, at_least - greater - 1, ties)


def rank_counts(
    scores: Any,
    owner: Any,
    folds: int = 1,
    image_ids: Sequence[str] | None = None,
    caption_ids: Sequence[str] | None = None,
) -> RankCounts:
    """Both directions in one pass over the matrix.

    Args:
        scores: (N, C) float32 or float64, images x captions, numpy or torch; a transposed view costs no copy.
        owner: (C,) the image row of each caption.
        folds: rank inside this many galleries of N / folds consecutive images with their captions (COCO 1K: 5).
        image_ids, caption_ids: names for the error messages.
    """
    scores, owner = check_scores(scores, owner, image_ids, caption_ids)
    n, c = scores.shape
    if folds < 1 or n % folds:
        raise XRetrieveError(f"{n} images cannot be cut into {folds} folds of equal size; use the protocol `full`")
    empty = [np.empty(size, np.int64) for size in (n, n, c, c)]
    counts = RankCounts(empty[0], empty[1], empty[2], empty[3], owner, folds)
    size = n // folds
    for start in range(0, n, size):
        rows = slice(start, start + size)
        columns: Any = np.flatnonzero((owner >= start) & (owner < start + size))
        if len(columns) == columns[-1] - columns[0] + 1:
            columns = slice(int(columns[0]), int(columns[-1]) + 1)  # a view; shuffled captions need a copy
        block, block_owner = scores[rows][:, columns], owner[columns] - start
        best, own_best, positive = _positives(block, block_owner)
        try:
            greater, at_least, t2i_greater, t2i_at_least = _count(block, best, positive)
        except FloatingPointError:
            raise _not_finite(scores, image_ids, caption_ids) from None
        counts.i2t_greater[rows], counts.i2t_equal[rows] = greater, at_least - greater - own_best
        counts.t2i_greater[columns], counts.t2i_equal[columns] = t2i_greater, t2i_at_least - t2i_greater - 1
    return counts


def column_counts(
    scores: Any,
    owner: Any,
    image_ids: Sequence[str] | None = None,
    column_ids: Sequence[str] | None = None,
    what: str = "caption",
) -> tuple[np.ndarray, np.ndarray]:
    """For each column, how many of the other images score above its own image, and how many score the same.

    Args:
        scores: (N, C) float32 or float64, images x captions or query sets; images that no column asks for are fine.
        owner: (C,) the image row of each column.
        image_ids, column_ids, what: names for the error messages.
    Returns:
        two (C,) int64 arrays.

    >>> [a.tolist() for a in column_counts(np.array([[0.9, 0.1], [0.2, 0.3], [0.9, 0.3]]), [0, 1])]
    [[0, 0], [1, 1]]
    """
    scores, owner = _array(scores), np.asarray(owner, dtype=np.int64)
    positive = scores[owner, np.arange(len(owner))]
    try:
        _, _, greater, at_least = _count(scores, None, positive)
    except FloatingPointError:
        raise _not_finite(scores, image_ids, column_ids, what) from None
    return greater, at_least - greater - 1


def top_k(scores: Any, k: int, block: int = 1024) -> tuple[np.ndarray, np.ndarray]:
    """The k best columns of each row, best first; equal scores in column order.

    Args:
        scores: (Q, G) float32 or float64.
        k: how many; cut at G.
    Returns:
        indices (Q, k) int64 and their scores (Q, k).
    """
    scores = _array(scores)
    k = min(k, scores.shape[1])
    indices = np.empty((len(scores), k), np.int64)
    for start in range(0, len(scores), block):
        part = scores[start : start + block]
        found = np.argpartition(part, -k, axis=1)[:, -k:]  # (b,k) in no order
        last = np.take_along_axis(part, found, 1).min(1, keepdims=True)  # (b,1) the k-th best score
        for row in np.flatnonzero((part >= last).sum(1) > k):  # ties at the cut: which ones got in is arbitrary
            found[row] = np.argsort(-part[row], kind="stable")[:k]
        found.sort(1)  # column order, kept by the stable sort below among equal scores
        order = np.argsort(-np.take_along_axis(part, found, 1), axis=1, kind="stable")
        indices[start : start + block] = np.take_along_axis(found, order, 1)
    return indices, np.take_along_axis(scores, indices, 1)


def check_scores(
    scores: Any, owner: Any, image_ids: Sequence[str] | None = None, caption_ids: Sequence[str] | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """The matrix and the owner map as numpy arrays, or an error that names the image or caption that does not fit."""
    scores = _array(scores)
    owner = np.asarray(owner.cpu() if hasattr(owner, "cpu") else owner, dtype=np.int64)
    n, c = scores.shape
    if owner.shape != (c,):
        raise XRetrieveError(
            f"scores are {n} images x {c} captions, but owner has shape {owner.shape}; it must be ({c},)"
        )
    if not n or not c:
        raise XRetrieveError(f"nothing to rank: {n} images and {c} captions")
    lost = np.flatnonzero((owner < 0) | (owner >= n))
    if len(lost):
        raise XRetrieveError(
            f"{_name('caption', lost[0], caption_ids)} has owner {owner[lost[0]]}, which is none of the {n} images "
            f"({len(lost)} such captions); every caption needs its image"
        )
    bare = np.flatnonzero(np.bincount(owner, minlength=n) == 0)
    if len(bare):
        raise XRetrieveError(
            f"{_name('image', bare[0], image_ids)} has no caption ({len(bare)} such images); leave it out or caption it"
        )
    return scores, owner


def _array(scores: Any) -> np.ndarray:
    if hasattr(scores, "detach"):
        dtype = str(scores.dtype)
        scores = scores.detach().cpu()
        scores = scores.numpy() if dtype != "torch.bfloat16" else scores.float().numpy().astype(np.float16)
    scores = np.asarray(scores)
    if scores.dtype == np.float16:
        raise XRetrieveError("scores in 16-bit floats have too many ties to rank; compute the last step in float32")
    if scores.dtype not in (np.float32, np.float64):
        scores = scores.astype(np.float64)
    if scores.ndim != 2:
        raise XRetrieveError(f"scores must be a matrix, got shape {scores.shape}")
    return scores


def apply_ties(greater: np.ndarray, equal: np.ndarray, ties: str) -> np.ndarray:
    """0-based ranks from the numbers of wrong answers above and level with the right one."""
    if ties not in TIE_RULES:
        raise unknown("tie rule", ties, TIE_RULES)
    return greater + equal * {"expected": 0.5, "optimistic": 0.0, "pessimistic": 1.0}[ties]


def _positives(scores: np.ndarray, owner: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Best own score of each image (N,), how many of its captions reach it (N,), own score of each caption (C,)."""
    positive = scores[owner, np.arange(len(owner))]
    best = np.full(len(scores), -np.inf, scores.dtype)
    with np.errstate(invalid="ignore"):  # NaN is reported with its pair by whoever counts
        np.maximum.at(best, owner, positive)
    return best, np.bincount(owner[positive == best[owner]], minlength=len(scores)), positive


def _count(scores: np.ndarray, rows: np.ndarray | None, columns: np.ndarray | None) -> tuple[np.ndarray, ...]:
    """#greater and #at least, per row against ``rows`` (N,) and per column against ``columns`` (C,); None skips a side.

    Raises FloatingPointError for a score that is not finite.
    """
    if not scores.flags.c_contiguous and scores.strides[0] < scores.strides[1]:  # a transposed view: swap the parts
        c, d, a, b = _count(scores.T, columns, rows)
        return a, b, c, d
    n, c = scores.shape
    by_row, by_column = np.zeros((2, n), np.int64), np.zeros((2, c), np.int64)
    flags = np.zeros((_ROWS, _COLUMNS), bool)
    words, bytes_ = flags.view(np.uint64), flags.view(np.uint8)
    for top in range(0, n, _ROWS):
        height = min(_ROWS, n - top)
        down = slice(top, top + height)
        for left in range(0, c, _COLUMNS):
            width = min(_COLUMNS, c - left)
            across = slice(left, left + width)
            flags[:, width:] = False
            tile, out = scores[down, across], flags[:height, :width]
            if not np.isfinite(tile, out=out).all():
                raise FloatingPointError
            for i, compare in enumerate((np.greater, np.greater_equal)):
                if rows is not None:
                    compare(tile, rows[down, None], out=out)
                    lanes = np.add.reduce(words[:height], axis=1)  # (h,) eight byte-wide counters in each word
                    by_row[i, down] += lanes.view(np.uint8).reshape(height, 8).sum(1, dtype=np.int64)
                if columns is not None:
                    compare(tile, columns[across], out=out)
                    by_column[i, across] += np.add.reduce(bytes_[:height, :width], axis=0, dtype=np.uint8)
    return (*by_row, *by_column)


def _finite_count(scores: np.ndarray, rows: np.ndarray | None, columns: np.ndarray | None) -> tuple[np.ndarray, ...]:
    try:
        return _count(scores, rows, columns)
    except FloatingPointError:
        raise _not_finite(scores, None, None) from None


def _name(what: str, row: int, ids: Sequence[str] | None) -> str:
    return f"{what} {ids[row]!r} (row {row})" if ids is not None else f"{what} row {row}"


def _not_finite(
    scores: np.ndarray, image_ids: Sequence[str] | None, caption_ids: Sequence[str] | None, what: str = "caption"
) -> XRetrieveError:
    bad = ~np.isfinite(scores)
    i, c = np.argwhere(bad)[0]
    return XRetrieveError(
        f"the score of {_name('image', i, image_ids)} and {_name(what, c, caption_ids)} is {scores[i, c]} "
        f"({int(bad.sum())} such pairs); no metric is defined, look at the features or the training"
    )
