"""Readers of TREC files, in the plainest way."""

from __future__ import annotations

from pathlib import Path


def read_run(path: Path) -> dict[str, list[tuple[str, float]]]:
    """Query id -> [(document id, score)], best first, ids as written."""
    out: dict[str, list[tuple[int, str, float]]] = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        query, _, document, rank, score, _ = line.split()
        out.setdefault(query, []).append((int(rank), document, float(score)))
    return {query: [(document, score) for _, document, score in sorted(hits)] for query, hits in out.items()}


def read_qrels(path: Path) -> dict[str, set[str]]:
    """Query id -> the relevant document ids."""
    out: dict[str, set[str]] = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        query, _, document, relevance = line.split()
        if relevance != "0":
            out.setdefault(query, set()).add(document)
    return out
