"""Why a picture was found: attention between words and regions as numbers, as heat over the picture, as a page."""

from __future__ import annotations

from xretrieve.explain.attention import attention_of, found_words
from xretrieve.explain.heat import heat_map, overlay, whole_overlay

__all__ = ["attention_of", "found_words", "heat_map", "overlay", "whole_overlay"]
