"""CLIP's byte-pair tokens without the open_clip package, whose import brings timm and torchvision.

The merges are the file that open_clip carries. Numbers: 256 bytes, the same at the end of a word, the merges in their
order, start and end.
"""

from __future__ import annotations

import gzip
import html
import re
from collections.abc import Sequence
from functools import lru_cache

import torch
from torch import Tensor

from xretrieve.backbones.open_clip_build import packaged
from xretrieve.errors import XRetrieveError

LAST = "</w>"  # marks the end of a word
MERGES = 49152 - 256 - 2  # of the lines of that file
START, END = "<start_of_text>", "<end_of_text>"
_ASCII = re.compile(rf"{START}|{END}|'s|'t|'re|'ve|'m|'ll|'d|[a-z]+|[0-9]|[^\sa-z0-9]+")


class ClipWords:
    """Texts to numbers, as open_clip's ``SimpleTokenizer`` that lowers the case.

    Args:
        context_length: numbers of a text, padded with 0 or cut.
    """

    kind = "SimpleTokenizer"  # in the fingerprint of a backbone

    def __init__(self, context_length: int = 77) -> None:
        self.context_length = context_length
        self._ranks = _merges()
        signs = list(_signs().values())
        self._numbers = {sign: number for number, sign in enumerate([*signs, *(sign + LAST for sign in signs)])}
        start = len(self._numbers) + len(self._ranks)
        self.all_special_ids = [start, start + 1]
        self._known = {START: [start], END: [start + 1]}  # words that were split before

    def __call__(self, texts: Sequence[str]) -> Tensor:
        """(N, context_length) int64."""
        start, end = self.all_special_ids
        rows = torch.zeros(len(texts), self.context_length, dtype=torch.long)
        for row, text in enumerate(texts):
            numbers = [start, *self.encode(text), end][: self.context_length]
            numbers[-1] = end
            rows[row, : len(numbers)] = torch.tensor(numbers)
        return rows

    def encode(self, text: str) -> list[int]:
        """Numbers of a text, without start and end."""
        return [number for word in _words(text) for number in self._split(word)]

    def decode(self, numbers: Sequence[int]) -> str:
        """The text of some numbers, a space after each word."""
        pieces = [*self._numbers, *(pair.replace(" ", "") for pair in self._ranks), START, END]
        of = {sign: byte for byte, sign in _signs().items()}
        raw = bytearray(of[sign] for sign in "".join(pieces[number] for number in numbers))
        return raw.decode("utf-8", errors="replace").replace(LAST, " ")

    def _split(self, word: str) -> list[int]:
        if word not in self._known:
            of, ranks = _signs(), self._ranks
            parts = [of[byte] for byte in word.encode("utf-8")]
            parts[-1] += LAST
            numbers = [self._numbers[part] for part in parts]
            while len(parts) > 1:
                pairs = [f"{a} {b}" for a, b in zip(parts, parts[1:], strict=False)]
                best = min(pairs, key=lambda pair: ranks.get(pair, MERGES))
                if best not in ranks:
                    break
                place = 0
                while place < len(parts) - 1:
                    if f"{parts[place]} {parts[place + 1]}" == best:
                        parts[place : place + 2] = [best.replace(" ", "")]
                        numbers[place : place + 2] = [len(self._numbers) + ranks[best]]
                    place += 1
            self._known[word] = numbers
        return self._known[word]


def _words(text: str) -> list[str]:
    plain = text.isascii() and "&" not in text and text.replace("\n", " ").replace("\t", " ").isprintable()
    if plain:  # there is nothing to mend in it
        return _ASCII.findall(text.lower())
    import ftfy
    import regex

    mended = html.unescape(html.unescape(ftfy.fix_text(text)))
    pattern = rf"{START}|{END}|'s|'t|'re|'ve|'m|'ll|'d|\p{{L}}+|\p{{N}}|[^\s\p{{L}}\p{{N}}]+"
    return regex.findall(pattern, " ".join(mended.split()).lower(), regex.IGNORECASE)


@lru_cache(maxsize=1)
def _merges() -> dict[str, int]:
    """Pairs, as ``"a b"``, and when each is merged."""
    path = packaged("bpe_simple_vocab_16e6.txt.gz")
    if path is None:
        raise XRetrieveError(
            "open_clip is not installed, whose tokenizer this model needs: pip install open_clip_torch"
        )
    with gzip.open(path, "rt", encoding="utf-8") as file:
        lines = file.read().split("\n")[1 : MERGES + 1]
    return {pair: rank for rank, pair in enumerate(lines)}


@lru_cache(maxsize=1)
def _signs() -> dict[int, str]:
    """Each byte as one printable sign, in the order of their numbers."""
    shown = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    hidden = [byte for byte in range(256) if byte not in shown]
    return {byte: chr(byte) for byte in shown} | {byte: chr(256 + place) for place, byte in enumerate(hidden)}
