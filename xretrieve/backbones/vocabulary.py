"""`Vocabulary`: words to numbers, built from captions or read from the published ``*_vocab.json`` files."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from functools import lru_cache
from pathlib import Path

from xretrieve.backbones.word_tokens import words_of
from xretrieve.errors import XRetrieveError
from xretrieve.utils.files import read_json, write_json

PAD, START, END, UNKNOWN = 0, 1, 2, 3
_SPECIAL = ("<pad>", "<start>", "<end>", "<unk>")


def tokenize(text: str) -> list[str]:
    """Word tokens of the lower-cased line (:mod:`xretrieve.backbones.word_tokens`), those that nltk's
    ``word_tokenize(preserve_line=True)`` gives.

    The sentence splitter of plain ``word_tokenize`` needs a separate download; it differs only inside captions of two
    sentences.

    >>> tokenize("A man's dog can't swim.")
    ['a', 'man', "'s", 'dog', 'ca', "n't", 'swim', '.']
    """
    return list(_tokens(text.lower()))


@lru_cache(maxsize=1 << 16)  # epochs ask for the same captions again: tokenizing took a seventh of a step on features
def _tokens(text: str) -> tuple[str, ...]:
    return tuple(words_of(text))


class Vocabulary:
    """Words and their numbers; 0 pads, 1 starts and 2 ends a caption, 3 is any unknown word.

    >>> v = Vocabulary.build(["a dog", "a cat", "a dog"], min_count=2)
    >>> len(v), v.encode("a red dog")
    (6, [1, 4, 3, 5, 2])
    """

    def __init__(self, words: Sequence[str]) -> None:
        """``words``: all words in the order of their numbers, the four special ones first."""
        if tuple(words[:4]) != _SPECIAL:
            wanted = ", ".join(_SPECIAL)
            raise XRetrieveError(f"vocabulary: the first four words must be {wanted}, not {list(words[:4])}")
        self.words = list(words)
        self.numbers = {word: i for i, word in enumerate(self.words)}
        if len(self.numbers) != len(self.words):
            twice = next(w for w, n in Counter(self.words).items() if n > 1)
            raise XRetrieveError(f"vocabulary: {twice!r} is there twice")

    @classmethod
    def build(cls, captions: Iterable[str], min_count: int = 4) -> Vocabulary:
        """The words seen at least ``min_count`` times, most frequent first (equal counts by spelling)."""
        counts = Counter(token for caption in captions for token in tokenize(caption))
        kept = sorted((w for w, n in counts.items() if n >= min_count), key=lambda w: (-counts[w], w))
        if not kept:
            raise XRetrieveError(f"vocabulary: no word is seen {min_count} times in the captions; lower min_count")
        return cls([*_SPECIAL, *(w for w in kept if w not in _SPECIAL)])

    @classmethod
    def load(cls, path: str | Path) -> Vocabulary:
        """Read ``{"word2idx", "idx2word", "idx"}``, the layout of the published models."""
        value = read_json(path)
        try:
            numbers = value["word2idx"]
            words: list[str | None] = [None] * len(numbers)
            for word, number in numbers.items():
                words[number] = word
        except (AttributeError, KeyError, TypeError, IndexError, ValueError) as error:
            said = f"{path}: not a vocabulary; it needs word2idx with the numbers 0 .. words - 1"
            raise XRetrieveError(said) from error
        if None in words:
            raise XRetrieveError(f"{path}: no word has the number {words.index(None)}, another number is used twice")
        try:
            return cls(words)  # type: ignore[arg-type]
        except XRetrieveError as error:
            raise XRetrieveError(f"{path}: {error}") from error

    def save(self, path: str | Path) -> None:
        """Write the layout that :meth:`load` reads."""
        words = {str(i): w for i, w in enumerate(self.words)}
        write_json(path, {"word2idx": self.numbers, "idx2word": words, "idx": len(self.words)})

    def encode(self, text: str) -> list[int]:
        """Numbers of a caption, start and end included."""
        return [START, *(self.numbers.get(token, UNKNOWN) for token in tokenize(text)), END]

    def split(self, text: str) -> list[str]:
        """What each number of :meth:`encode` stands for; what is no known word is in angle brackets.

        >>> Vocabulary.build(["a dog"], min_count=1).split("A red dog")
        ['<start>', 'a', '<red>', 'dog', '<end>']
        """
        words = [token if token in self.numbers else f"<{token}>" for token in tokenize(text)]
        return [_SPECIAL[START], *words, _SPECIAL[END]]

    def __len__(self) -> int:
        return len(self.words)

    def __contains__(self, word: str) -> bool:
        return word in self.numbers
