"""Good bytes and good values, made wrong: the ways in which files are cut, mixed up and forged."""

from __future__ import annotations

import copy
import random
from typing import Any

ODD: list[Any] = [
    None, True, False, 0, -1, 2**31, 10**30, 1.5, 1e308, float("nan"), float("inf"), "", " ", "\0", "\ud800",
    "caf\udce9", "a\u2028b", "x" * 3000, "²", "../../etc/passwd", "{{7*7}}", "<script>", [], {}, [[]], [None],
    {"a": None}, ["x"] * 50,
]  # fmt: skip
PUT = (b"\xe9", "\u2028".encode(), b"\xed\xa0\x80", b"\r", b"[" * 40, b'"', b"\\u")


def spoil_bytes(rng: random.Random, content: bytes) -> bytes:
    """A few flips, a cut, something put in, doubled or blanked; another encoding; sometimes nothing is left."""
    data = bytearray(content)
    for _ in range(rng.choice((1, 1, 2, 8))):
        at = rng.randrange(len(data) + 1)
        size = min(len(data) - at, rng.choice((1, 2, 8, 64)))
        how = rng.randrange(9)
        if how == 0 and size:
            data[at] ^= 1 << rng.randrange(8)
        elif how == 1:
            del data[at:]
        elif how == 2:
            data[at:at] = rng.randbytes(size)
        elif how == 3:
            data[at : at + size] = bytes(size)
        elif how == 4:
            data[at : at + size] = b"\xff" * size
        elif how == 5:
            data[at:at] = data[at : at + size] * rng.choice((1, 50))
        elif how == 6:
            data[at : at + size] = rng.choice(PUT)
        elif how == 7:
            data[:0] = rng.choice((b"\xef\xbb\xbf", b"\xff\xfe", b"\xfe\xff", b"\x1f\x8b", b"PK\x03\x04"))
        elif how == 8 and rng.random() < 0.1:
            data.clear()
    return bytes(data)


def spoil_value(rng: random.Random, value: Any) -> Any:
    """A copy of plain values in which one to three places hold something else, or nothing."""
    value = copy.deepcopy(value)
    for _ in range(rng.choice((1, 1, 2, 3))):
        nodes: list[tuple[Any, Any]] = []
        _places(value, nodes)
        if not nodes:
            return rng.choice(ODD)
        node, key = rng.choice(nodes)
        how = rng.randrange(10)
        if how == 0:
            del node[key]
        elif how == 1 and isinstance(node, list):
            node.insert(0, copy.deepcopy(node[key]))
        elif how == 2:
            deep: Any = []
            for _ in range(rng.choice((3, 90, 300))):
                deep = [deep]
            node[key] = deep
        elif how == 3 and isinstance(node, dict):
            node[rng.choice(("", "²", "name", "\ud800", "x" * 300, "__class__"))] = node.pop(key)
        else:
            node[key] = copy.deepcopy(rng.choice(ODD))
    return value


def _places(value: Any, found: list[tuple[Any, Any]]) -> None:
    keys = list(value) if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ()
    for key in keys:
        found.append((value, key))
        _places(value[key], found)
