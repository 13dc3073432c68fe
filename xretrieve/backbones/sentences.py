"""Sentences: an embedding and a GRU read up to the end of a sentence, the text encoder of HMRN and of Drill-down.

Sources: HMRN (arXiv 2306.14460), both directions; Drill-down (NeurIPS 2019), forward only.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.utils.rnn import pack_padded_sequence

from xretrieve.backbones.base import check_texts
from xretrieve.backbones.vocabulary import PAD, Vocabulary
from xretrieve.backbones.weights import load_strict, read_weights
from xretrieve.backbones.words import Words, read_vocabulary
from xretrieve.errors import XRetrieveError
from xretrieve.tokens import Tokens
from xretrieve.utils.recurrent import one_direction


class Sentences(Words):
    """One vector per sentence (``pooled``), no local tokens: the mean of both directions' outputs at the last word.

    There the backward direction has read the last word only: it is one step of its cell from a zero state, and one
    vector for all sentences that end alike (every sentence ends with ``<end>``). Only the forward direction is run.

    Args:
        vocabulary: of the words.
        word_dim, dim: widths of the embedding and of the vector.
        dropout: on the embedding.
        bidirectional: False has the forward direction alone, as Drill-down.
        xavier: start from Xavier-uniform weights, of the embedding too, and zero biases, as Drill-down.
    """

    def __init__(self, vocabulary: Vocabulary, word_dim: int = 300, dim: int = 256, dropout: float = 0.4,
                 bidirectional: bool = True, xavier: bool = False) -> None:  # fmt: skip
        super().__init__(vocabulary, word_dim, dim, dropout)
        self.name = "sentences"
        self.options = {"word_dim": word_dim, "dim": dim, "dropout": dropout, "bidirectional": bidirectional,
                        "xavier": xavier}  # fmt: skip
        if not bidirectional:
            self.cap_rnn = nn.GRU(word_dim, dim, batch_first=True)
        else:
            self.cap_rnn.weight_hh_l0_reverse.requires_grad_(False)
        for value in self.parameters() if xavier else ():
            nn.init.xavier_uniform_(value) if value.ndim > 1 else nn.init.zeros_(value)
        self._forward = (nn.GRU(word_dim, dim, batch_first=True, device="meta"),)  # a shell, in a tuple: not registered

    def constants(self) -> list[nn.Parameter]:
        """The backward direction's recurrent weights meet the zero state only."""
        return [self.cap_rnn.get_parameter("weight_hh_l0_reverse")] if self.options["bidirectional"] else []

    def prepare(self, items: Sequence[str]) -> dict[str, Tensor]:
        """Texts to ``ids (N,W)`` int64, padded with 0, and ``lengths (N,)``: no start word, the end counted."""
        check_texts(self.name, items)
        rows = [torch.tensor(self.vocabulary.encode(text)[1:]) for text in items]
        ids = nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=PAD)
        return {"ids": ids, "lengths": torch.tensor([len(row) for row in rows])}

    def forward(self, batch: dict[str, Tensor]) -> Tokens:
        """Tokens of N sentences, ``pooled`` (N,dim); ids beyond a length are ignored."""
        ids, lengths = batch["ids"], batch["lengths"]
        words = self.dropout(self.embed(ids))  # (N,W,word_dim)
        rows = torch.arange(len(ids), device=ids.device)
        place = lengths.to(ids.device) - 1
        sentence = self._last(words, lengths, rows, place).float()  # (N,dim)
        if self.options["bidirectional"]:
            sentence = (sentence + self._backward(words[rows, place], ids[rows, place])) / 2
        return Tokens.from_pooled(sentence)

    def _last(self, words: Tensor, lengths: Tensor, rows: Tensor, place: Tensor) -> Tensor:
        """The forward states (N,dim) at the last words."""
        if torch.compiler.is_compiling():  # no packed sequences in a graph
            return one_direction(self.cap_rnn, words)[rows, place]
        packed = pack_padded_sequence(words, lengths.cpu(), batch_first=True, enforce_sorted=False)
        names = [name for name, _ in self.cap_rnn.named_parameters() if not name.endswith("_reverse")]
        own: dict[str, Tensor] = {name: self.cap_rnn.get_parameter(name) for name in names}
        _, last = functional_call(self._forward[0], own, (packed,))  # (1,N,dim), in the order given
        return last[0]

    def _backward(self, words: Tensor, ids: Tensor) -> Tensor:
        """The backward outputs (N,dim) at the last words (N,word_dim), whose ids are (N,)."""
        if not (self.training or torch.compiler.is_compiling()):  # without dropout, equal words are equal vectors
            distinct, place = ids.unique(return_inverse=True)
            return self.backward_half(self.embed(distinct))[place]
        return self.backward_half(words)

    def backward_half(self, words: Tensor) -> Tensor:
        """One step of the backward cell from the zero state, (N,word_dim) -> (N,dim) float32."""
        rnn: Any = self.cap_rnn
        gates = nn.functional.linear(words, rnn.weight_ih_l0_reverse, rnn.bias_ih_l0_reverse).float()
        reset, update, new = gates.chunk(3, -1)
        reset_bias, update_bias, new_bias = rnn.bias_hh_l0_reverse.chunk(3)
        new = torch.tanh(new + torch.sigmoid(reset + reset_bias) * new_bias)
        return (1 - torch.sigmoid(update + update_bias)) * new

    def token_texts(self, items: Sequence[str]) -> list[list[str]]:
        """There are no local tokens."""
        return [[] for _ in items]


def create(
    rest: str = "",
    *,
    modality: str | None = None,
    weights: str | Path | None = None,
    assets: Path | None = None,
    vocab: str | Path | Vocabulary | None = None,
    captions: Sequence[str] | None = None,
    min_count: int = 4,
    word_dim: int = 300,
    dim: int = 256,
    dropout: float = 0.4,
    bidirectional: bool = True,
    xavier: bool = False,
    vectors: str | Path | None = None,
) -> Sentences:
    """The ``sentences`` backbone; the vocabulary is read from ``vocab`` or built from ``captions``."""
    if rest:
        raise XRetrieveError(f"sentences:{rest}: write sentences, it has no variants")
    vocabulary = read_vocabulary("sentences", assets, vocab, captions, min_count)
    backbone = Sentences(vocabulary, word_dim, dim, dropout, bidirectional, xavier)
    if vectors is not None:
        backbone.start_from(vectors)
    if weights is not None:
        load_strict(backbone, read_weights(weights), weights)
    return backbone


def names() -> list[str]:
    """One name, ``sentences``."""
    return [""]
