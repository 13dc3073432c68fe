"""TREC run and qrels files, so that trec_eval and its relatives can check the numbers.

trec_eval breaks ties by document id, not by the expected rank; without ties its recalls equal ours.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from xretrieve.evaluation.metrics import fold_members
from xretrieve.evaluation.ranks import RankCounts, top_k
from xretrieve.utils.files import write_text

_UNSAFE = re.compile(r"[\s%]")


def trec_id(name: str) -> str:
    """The id as one word: white space and % become %XX, so that different ids stay different.

    >>> trec_id("a dog.jpg")
    'a%20dog.jpg'
    """
    return _UNSAFE.sub(lambda m: "".join(f"%{b:02X}" for b in m[0].encode()), name)


def run_lines(
    queries: Sequence[str], docs: Sequence[str], scores: np.ndarray, tag: str = "xretrieve", depth: int = 100
) -> Iterable[str]:
    """Lines ``qid Q0 docid rank score tag``, best first, rank from 1. scores (Q, G)."""
    return ranked_lines(queries, docs, top_k(scores, depth), tag)


def ranked_lines(
    queries: Sequence[str], docs: Sequence[str], found: tuple[np.ndarray, np.ndarray], tag: str = "xretrieve"
) -> Iterable[str]:
    """The same from what :func:`~xretrieve.evaluation.ranks.top_k` gave: places and scores (Q, k)."""
    names = [trec_id(doc) for doc in docs]
    tag = trec_id(tag) or "xretrieve"
    for query, places, values in zip(queries, *(a.tolist() for a in found), strict=True):
        name = trec_id(query)
        for rank, (place, value) in enumerate(zip(places, values, strict=True), 1):
            yield f"{name} Q0 {names[place]} {rank} {value:.9g} {tag}\n"


def write_both(
    folder: str | Path,
    scores: np.ndarray,
    counts: RankCounts,
    image_ids: Sequence[str],
    caption_ids: Sequence[str],
    *,
    tag: str = "xretrieve",
    depth: int = 100,
) -> Path:
    """Write ``i2t.run``, ``i2t.qrels``, ``t2i.run`` and ``t2i.qrels``; with folds a query lists only its own fold.

    Args:
        scores: (N, C) images x captions.
        counts: gives the owner map and the folds.
        depth: lines per query.
    """
    folder, owner = Path(folder), counts.owner
    lines: dict[str, list[str]] = {name: [] for name in ("i2t.run", "i2t.qrels", "t2i.run", "t2i.qrels")}
    for rows, columns in fold_members(owner, len(image_ids), counts.folds):
        images, captions = image_ids[rows], [caption_ids[c] for c in columns]
        block = scores if counts.folds == 1 else scores[rows][:, columns]
        lines["i2t.run"] += run_lines(images, captions, block, tag, depth)
        lines["t2i.run"] += run_lines(captions, images, block.T, tag, depth)
    for caption, image in sorted(enumerate(owner.tolist()), key=lambda pair: (pair[1], pair[0])):
        lines["i2t.qrels"].append(f"{trec_id(image_ids[image])} 0 {trec_id(caption_ids[caption])} 1\n")
    lines["t2i.qrels"] = [
        f"{trec_id(c)} 0 {trec_id(image_ids[i])} 1\n" for c, i in zip(caption_ids, owner, strict=True)
    ]
    for name, content in lines.items():
        write_text(folder / name, "".join(content))
    return folder


def write_rounds(
    folder: str | Path,
    found: tuple[np.ndarray, np.ndarray],
    set_ids: Sequence[str],
    image_ids: Sequence[str],
    owner: np.ndarray,
    *,
    tag: str = "xretrieve",
) -> Path:
    """Write ``round01.run``, ``round02.run``, ... and ``rounds.qrels``.

    Args:
        found: the best images of each set after each round and their scores, (T, M, k) both.
        owner: (M,) the image of each set.
    """
    folder = Path(folder)
    for turn, ranking in enumerate(zip(*found, strict=True), start=1):
        write_text(folder / f"round{turn:02d}.run", "".join(ranked_lines(set_ids, image_ids, ranking, tag)))
    qrels = (f"{trec_id(s)} 0 {trec_id(image_ids[i])} 1\n" for s, i in zip(set_ids, owner, strict=True))
    write_text(folder / "rounds.qrels", "".join(qrels))
    return folder
