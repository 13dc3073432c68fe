"""Scores of query sets after every round, for any head: `score_rounds`. Arrays are (T,N,M): round, image, set."""

from __future__ import annotations

import torch
from torch import Tensor

from xretrieve.errors import XRetrieveError
from xretrieve.heads.base import Head
from xretrieve.heads.scoring import in_dtype
from xretrieve.tokens import Prepared


def score_rounds(
    head: Head, queries: Prepared, gallery: Prepared, memory: int | None = None, dtype: torch.dtype | None = None
) -> Tensor:
    """Scores of every image for every query set after each of its sentences, (T,N,M) float32.

    The public orientation of :meth:`Head.score` is the other one: ``head.score(queries, gallery)`` is the last round
    transposed. A set of fewer sentences than T repeats its last round. T N M floats are made: ask for some sets at a
    time where that is much (``queries[start:stop]``).

    Args:
        head: a head over query sets, or one whose coarse vectors are its score (`dual`, `cosine`): round r is then the
            mean of the first r sentences' own scores, which equals the score of their mean vector.
        queries: M sets, of ``head.combine_sets``.
        gallery: N images, of ``head.prepare_gallery``.
        memory: bytes that the working arrays of one block may take; inputs and result come on top.
        dtype: ``torch.bfloat16`` or ``torch.float16`` for the matrix products; norms, softmaxes and scores stay
            float32. None keeps the precision that is in force.
    """
    with in_dtype(gallery.device, dtype):
        if head.set_stage is not None:
            return head.set_stage.score_rounds(queries, gallery, memory)
        if not head.indexable:
            raise XRetrieveError(
                f"head {head.name!r} scores single texts, not query sets; take the mean of its scores "
                "(mean_similarity), a rank fusion, or the sentences joined into one text"
            )
        if not queries.local.shape[1]:
            raise XRetrieveError(f"head {head.name!r}: these queries hold no sentences; make them with combine_sets")
        count = queries.mask.cumsum(1)[..., None].to(queries.local.dtype)  # (M,T,1)
        means = queries.local.cumsum(1) / count  # (M,T,D), padded sentences are zero
        return torch.matmul(gallery.pooled, means.permute(1, 2, 0)).float()  # (T,N,M)
