"""Pieces of subword tokenizers as people read them."""

from __future__ import annotations


def piece(decoded: str, special: bool) -> str:
    """One decoded token, readable; what continues a word starts with ``+``, markers stand in angle brackets.

    >>> piece(" dog", False), piece("##gy", False), piece("[CLS]", True), piece("<|endoftext|>", True)
    ('dog', '+gy', '<CLS>', '<endoftext>')
    """
    text = decoded.strip()
    if special:
        return f"<{text.strip('<>[]|')}>"
    return "+" + text[2:] if text.startswith("##") else text
