"""What tells the images and texts of a split again, whatever the layout they were read from."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any


def data_digests(ids: Sequence[str], metadata: Sequence[dict[str, Any]], texts: Sequence[str]) -> dict[str, str]:
    """What tells the same images and texts again in another layout: ``names`` and ``texts``, hashes for a report.

    A photo is called by its file's name without folders, suffix and COCO's words before the number; a text is its
    letters and digits, as region folders hold it in words cut apart.
    """
    names = [
        _plain_name(str((meta or {}).get("filename", i)))
        for i, meta in zip(ids, metadata or [{}] * len(ids), strict=True)
    ]
    letters = ("".join(filter(str.isalnum, text.casefold())) for text in texts)
    return {what: hashlib.sha256("\n".join(values).encode("utf-8", "replace")).hexdigest()[:16]
            for what, values in (("names", names), ("texts", letters))}  # fmt: skip


def _plain_name(name: str) -> str:
    stem = name.rsplit("/", 1)[-1].partition(".")[0]
    last = stem.rsplit("_", 1)[-1]
    return str(int(last)) if last.isdecimal() and (stem == last or stem.startswith("COCO_")) else stem
