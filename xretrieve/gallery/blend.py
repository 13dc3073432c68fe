"""One score from both stages: the first stage's and the head's, each standardised by what validation data showed.

Re-ranking by the head alone throws away what the first stage knows, which costs recall where the head is the weaker of
the two. `xretrieve tune` measures how many candidates are enough and which share of the head's score is best
(:mod:`xretrieve.evaluation.cascade`), and keeps both under ``cascade`` in ``gallery.json``.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from xretrieve.errors import XRetrieveError

Scale = tuple[float, float]  # mean, standard deviation


@dataclass(frozen=True)
class Tuned:
    """What was chosen for one gallery.

    Args:
        rerank: candidates, or ``all``.
        blend: share of the head's score, 0 (the first stage's alone) to 1 (the head's alone).
        coarse, head: mean and standard deviation of the scores among the candidates of a validation query.
        told: what was chosen and what it costs, as one sentence.
        weak: a search whose best score is lower found nothing that fits well.
    """

    rerank: int | str
    blend: float
    coarse: Scale
    head: Scale
    told: str = ""
    weak: float | None = None

    @classmethod
    def of(cls, info: dict[str, Any]) -> Tuned | None:
        """What ``gallery.json`` holds; None where nothing was measured."""
        kept = info.get("cascade")
        if kept is None:
            return None
        rerank = scaled(kept, info.get("count", 0))
        scales = tuple(kept["coarse"]), tuple(kept["head"])
        return cls(rerank, kept["blend"], *scales, told(kept, rerank), kept.get("weak"))

    def is_weak(self, best: float, share: float) -> bool:
        """Whether the best score of a search, blended with ``share``, is below what nearly all validation queries
        find."""
        return self.weak is not None and share == self.blend and best < self.weak

    def blended(self, coarse: np.ndarray, head: np.ndarray, share: float) -> np.ndarray:
        """One score from both (any shape, the same), float32."""
        return blended(coarse, head, self.coarse, self.head, share)


def scaled(kept: dict[str, Any], pictures: int) -> int | str:
    """Candidates for a gallery of so many pictures. Where it holds more than the validation split, as large a share of
    it: the first stage places a picture so much further down.

    >>> [scaled({"rerank": 10, "images": 1000}, many) for many in (200, 1000, 17449)]
    [10, 10, 175]
    """
    rerank, measured = kept["rerank"], kept.get("images", 0)
    if isinstance(rerank, str) or not 0 < measured < pictures:
        return rerank
    return math.ceil(rerank * pictures / measured)


def told(kept: dict[str, Any], rerank: int | str) -> str:
    """What `xretrieve tune` kept as one sentence: the number of candidates, and the recall that they lose.

    >>> told({"rerank": 50, "lost": 0.04, "ks": [1, 5, 10], "dataset": "flickr8k", "split": "val", "images": 1000}, 100)
    'auto: 100 candidates; 50 lost 0.04 points of R@1, R@5 or R@10 in the 1000 pictures of flickr8k/val'
    """
    if "lost" not in kept:
        return f"auto: {rerank} candidates"
    recalls = [f"R@{k}" for k in kept["ks"]]
    lost = f"{max(kept['lost'], 0.0):.2f} points of {', '.join(recalls[:-1])} or {recalls[-1]}"
    where = f"the {kept['images']} pictures of {kept['dataset']}/{kept['split']}"
    return f"auto: {rerank} candidates; {kept['rerank']} lost {lost} in {where}"


def blended(coarse: np.ndarray, head: np.ndarray, of_coarse: Scale, of_head: Scale, share: float) -> np.ndarray:
    """(1 - share) x the standardised first score + share x the standardised second, float32.

    >>> blended(np.array([0.5, 0.3]), np.array([10.0, 14.0]), (0.4, 0.1), (12.0, 2.0), 0.25).round(3).tolist()
    [0.5, -0.5]
    """
    first = (np.asarray(coarse, np.float32) - of_coarse[0]) / of_coarse[1]
    second = (np.asarray(head, np.float32) - of_head[0]) / of_head[1]
    return ((1 - share) * first + share * second).astype(np.float32)


def share_of(blend: float | str | None, tuned: Tuned | None, folder: object) -> float:
    """The share of the head's score that a search asks for: 1.0 means the head alone.

    Args:
        blend: as in :meth:`xretrieve.Gallery.search`.
        tuned: of the gallery.
        folder: of the gallery, for messages.
    """
    if blend is None:
        return tuned.blend if tuned is not None else 1.0
    if blend == "auto" and tuned is not None:
        return tuned.blend
    if blend != "auto" and (isinstance(blend, bool) or not isinstance(blend, (int, float)) or not 0 <= blend <= 1):
        raise XRetrieveError(
            f"blend is {blend!r}; give the share of the head's score, 0 (the first stage's alone) to 1, or 'auto'"
        )
    if tuned is None and blend != 1:
        raise XRetrieveError(
            f"blend={blend!r} needs a measurement of both scores: run `xretrieve tune {folder}` first, or leave it out"
        )
    return float(blend)
