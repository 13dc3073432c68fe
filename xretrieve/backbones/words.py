"""Words: an embedding and a bidirectional GRU, the text encoder of SCAN, SGR, SAF and VSE++ (arXiv 1803.08024)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from xretrieve.backbones.base import Backbone, check_texts
from xretrieve.backbones.vocabulary import PAD, Vocabulary
from xretrieve.backbones.weights import load_strict, read_weights
from xretrieve.errors import XRetrieveError
from xretrieve.tokens import Tokens
from xretrieve.utils.dropout import Dropout
from xretrieve.utils.files import read_json
from xretrieve.utils.recurrent import Ends, ends_of, run_gru, run_one
from xretrieve.utils.written import written


class Words(Backbone):
    """Local tokens are the GRU states of every word, directions averaged; pooled is their mean.

    The states are not unit length unless ``normalize`` is set: the heads do that.
    ``embed`` and ``cap_rnn`` are the published names, so a published text encoder loads as it is.
    """

    def __init__(
        self,
        vocabulary: Vocabulary,
        word_dim: int = 300,
        dim: int = 1024,
        dropout: float = 0.4,
        normalize: bool = False,
    ) -> None:
        options = {"word_dim": word_dim, "dim": dim, "dropout": dropout, "normalize": normalize}
        super().__init__("words", "text", options)
        self.vocabulary, self.normalize = vocabulary, normalize
        self.local_dim = self.pooled_dim = dim
        self.embed = nn.Embedding(len(vocabulary), word_dim)
        nn.init.uniform_(self.embed.weight, -0.1, 0.1)
        self.dropout = Dropout(dropout)
        self.cap_rnn = nn.GRU(word_dim, dim, batch_first=True, bidirectional=True)
        self._ends: tuple[Any, Ends] | None = None  # what weights and marks were, and what was made of them

    def __getstate__(self) -> dict[str, Any]:
        """What is copied and pickled: not what can be made again."""
        return {**self.__dict__, "_ends": None}

    def prepare(self, items: Sequence[str]) -> dict[str, Tensor]:
        """Captions to ``ids (N,W)`` int64, padded with 0, and ``lengths (N,)``, start and end counted."""
        check_texts(self.name, items)
        rows = [torch.tensor(self.vocabulary.encode(text)) for text in items]
        ids = nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=PAD)
        return {"ids": ids, "lengths": torch.tensor([len(row) for row in rows])}

    def forward(self, batch: dict[str, Tensor]) -> Tokens:
        """Tokens (N,W,dim); only ``lengths`` says what is real, ids beyond it are ignored."""
        ids, lengths = batch["ids"], batch["lengths"]
        words = self.dropout(self.embed(ids))  # (N,W,word_dim)
        states = self._states(ids, words, lengths)  # (N,W,2dim)
        local = (states[..., : self.local_dim] + states[..., self.local_dim :]).float() / 2  # (N,W,dim), 0 beyond
        mask = torch.arange(ids.shape[1], device=ids.device) < lengths[:, None].to(ids.device)
        if self.normalize:
            # A real state is never exactly 0; padded ones get norm 1 before the root, whose gradient at 0 is infinite.
            local = local / (local.square().sum(-1, keepdim=True).masked_fill(~mask[..., None], 1).sqrt() + 1e-8)
        return Tokens.from_local(local, mask)

    def _states(self, ids: Tensor, words: Tensor, lengths: Tensor) -> Tensor:
        """What :func:`run_gru` gives; a single text in inference mode goes by what is kept of its two ends."""
        single = len(ids) == 1 and int(lengths) == ids.shape[1] > 1 and ids.device.type == "cpu" and not self.training
        now = written([*self.embed.parameters(), *self.cap_rnn.parameters()]) if single else None
        if now is None or now[0] is not None:  # another precision is in force
            return run_gru(self.cap_rnn, words, lengths)
        now = now, int(ids[0, 0]), int(ids[0, -1])
        kept = self._ends  # another thread may put its own there
        if kept is None or kept[0] != now:
            self._ends = kept = now, ends_of(self.cap_rnn, words[0, :1], words[0, -1:])
        return run_one(self.cap_rnn, words[0], kept[1])[None]

    def token_texts(self, items: Sequence[str]) -> list[list[str]]:
        """``<start>``, the words as they are read, ``<end>``; ``<zorilla>`` is a word that the vocabulary lacks."""
        check_texts(self.name, items)
        return [self.vocabulary.split(text) for text in items]

    def preprocessing(self) -> list[str]:
        """The vocabulary."""
        return self.vocabulary.words

    def assets(self, folder: Path) -> None:
        """The vocabulary, in the published layout."""
        self.vocabulary.save(folder / "vocab.json")

    def start_from(self, path: str | Path) -> int:
        """Set embeddings from a JSON file ``{word: [numbers]}``; returns how many words of the vocabulary it holds."""
        vectors = read_json(path)
        if not isinstance(vectors, dict) or not vectors:
            raise XRetrieveError(f"{path}: expected {{word: [numbers], ...}}")
        found = [word for word in self.vocabulary.words if word in vectors]
        wide = self.embed.embedding_dim
        for word in found or list(vectors)[:1]:
            if len(vectors[word]) != wide:
                raise XRetrieveError(
                    f"{path}: the vector of {word!r} has {len(vectors[word])} numbers but word_dim is "
                    f"{wide}; set word_dim={len(vectors[word])}"
                )
        if not found:
            raise XRetrieveError(f"{path}: none of its {len(vectors)} words is in the vocabulary")
        rows = [self.vocabulary.numbers[word] for word in found]
        with torch.no_grad():
            self.embed.weight[rows] = torch.tensor([vectors[word] for word in found], dtype=torch.float32)
        return len(found)


def read_vocabulary(
    name: str, assets: Path | None, vocab: str | Path | Vocabulary | None, captions: Sequence[str] | None,
    min_count: int,
) -> Vocabulary:  # fmt: skip
    """The vocabulary of a text backbone: saved with it, given, read from a file, or built from captions."""
    if assets is not None:
        vocab = assets / "vocab.json"
    if vocab is None and captions is None:
        raise XRetrieveError(f"{name}: give vocab=FILE (a *_vocab.json) or captions=LIST to build the vocabulary from")
    if vocab is None:
        return Vocabulary.build(captions or [], min_count)
    return vocab if isinstance(vocab, Vocabulary) else Vocabulary.load(vocab)


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
    dim: int = 1024,
    dropout: float = 0.4,
    normalize: bool = False,
    vectors: str | Path | None = None,
) -> Words:
    """The ``words`` backbone; the vocabulary is read from ``vocab`` or built from ``captions``."""
    if rest:
        raise XRetrieveError(f"words:{rest}: write words, it has no variants")
    vocabulary = read_vocabulary("words", assets, vocab, captions, min_count)
    backbone = Words(vocabulary, word_dim, dim, dropout, normalize)
    if vectors is not None:
        backbone.start_from(vectors)
    if weights is not None:
        load_strict(backbone, read_weights(weights), weights)
    return backbone


def names() -> list[str]:
    """One name, ``words``."""
    return [""]
