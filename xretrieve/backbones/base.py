"""`Backbone`: raw items in, `Tokens` out. One file per source lies beside this one."""

from __future__ import annotations

import hashlib
import json
import threading
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from xretrieve.backbones.places import Layout
from xretrieve.backbones.weights import hash_state
from xretrieve.errors import XRetrieveError
from xretrieve.tokens import Tokens
from xretrieve.utils.files import atomic_folder, write_json

Batch = Any  # a tensor, or a dict of tensors


def batch_to(batch: Batch, device: torch.device | str) -> Batch:
    """Move what ``prepare`` gave to a device."""
    if isinstance(batch, Tensor):
        return batch.to(device, non_blocking=True)
    return {k: v.to(device, non_blocking=True) for k, v in batch.items()}


# The tokenizers of transformers set lengths in what all threads share: two at once are "Already borrowed".
TOKENIZING = threading.Lock()


def check_texts(name: str, items: Sequence[Any]) -> None:
    """Raise an error that names the first item that is not a text."""
    for row, text in enumerate(items):
        if not isinstance(text, str):
            raise XRetrieveError(f"{name}: item {row} is a {type(text).__name__}, not a text")


class Backbone(nn.Module, ABC):
    """One encoder of one modality.

    Args:
        name: what :func:`xretrieve.backbones.create_backbone` was called with, for example ``timm:mobilenetv2_100``.
        modality: ``image`` or ``text``.
        options: JSON values that, with the name, rebuild the architecture and the preprocessing (not the weights).

    Subclasses set ``local_dim`` and ``pooled_dim`` and write ``prepare`` and ``forward``.
    """

    local_dim: int
    pooled_dim: int
    cacheable = True  # False where items are already features on disk

    def __init__(self, name: str, modality: str, options: dict[str, Any]) -> None:
        super().__init__()
        self.name, self.modality, self.options = name, modality, options
        self.frozen = False
        self._hash: tuple[Any, str] | None = None

    @abstractmethod
    def prepare(self, items: Sequence[Any]) -> Batch:
        """Raw items (paths, PIL images, strings, feature rows) to CPU tensors. Thread safe, no gradient."""

    @abstractmethod
    def forward(self, batch: Batch) -> Tokens:
        """Tokens of a prepared batch on the backbone's device; differentiable unless frozen."""

    def example(self, items: int, tokens: int) -> Batch:
        """A prepared batch of made-up items, to trace the backbone with; the first has about so many tokens where items
        differ in that. The default is made of texts."""
        return self.prepare([" ".join(["a"] * max(1, tokens - i)) for i in range(items)])

    @property
    def network(self) -> nn.Module:
        """The module whose state is saved; its key names are those of a ``weights=`` file."""
        return self

    @property
    def device(self) -> torch.device:
        """Where the weights lie (the CPU when there are none)."""
        return next((p.device for p in self.parameters()), torch.device("cpu"))

    def assets(self, folder: Path) -> None:
        """Write what else is needed to rebuild this backbone offline (vocabulary, tokenizer, configuration)."""

    def preprocessing(self) -> Any:
        """JSON value that says how raw items become tensors; part of the fingerprint."""
        return None

    def token_texts(self, items: Sequence[Any]) -> list[list[str]]:
        """Of a text backbone: what each real local token of an item is, in order. What is no word of its vocabulary
        (markers of start and end, unknown words) stands in angle brackets. Empty lists where it cannot be said."""
        return [[] for _ in items]

    def cut(self, items: Sequence[Any]) -> list[tuple[int, int]]:
        """Of a text backbone: tokens that are read of each item, and tokens that it has. Empty where all are read."""
        return []

    def layout(self, items: Sequence[Any]) -> list[Layout | None]:
        """Of an image backbone: where the local tokens of each item lie, None where that is not known."""
        return [None] * len(items)

    def freeze(self) -> Backbone:
        """No gradients, and evaluation mode for good (dropout off, batch norm fixed); returns self."""
        self.frozen = True
        self.requires_grad_(False)
        return self.eval()

    def train(self, mode: bool = True) -> Backbone:
        """Training mode, except that a frozen backbone stays in evaluation mode."""
        super().train(mode and not self.frozen)
        return self

    @contextmanager
    def inference(self) -> Iterator[None]:
        """Evaluation mode without gradients; the mode is restored."""
        before = self.training
        if before:
            self.eval()
        try:
            with torch.no_grad():
                yield
        finally:
            if before:
                self.train()

    def encode(self, items: Sequence[Any], batch_size: int = 64) -> Tokens:
        """Tokens of any number of items, in evaluation mode and without gradients; the mode is restored.

        The next batch is prepared (decoded, tokenized) in a thread while this one is encoded.
        """
        if not len(items):
            raise XRetrieveError(f"{self.name}: nothing to encode")
        chunks = [items[i : i + batch_size] for i in range(0, len(items), batch_size)]
        parts = []
        if len(chunks) == 1:  # a thread would cost a search a tenth of its time
            with self.inference():
                return Tokens.cat([self(batch_to(self.prepare(items), self.device))])
        with self.inference(), ThreadPoolExecutor(1) as ahead:
            coming = ahead.submit(self.prepare, chunks[0])
            for following in [*chunks[1:], None]:
                batch = coming.result()
                if following is not None:
                    coming = ahead.submit(self.prepare, following)
                parts.append(self(batch_to(batch, self.device)))
        return Tokens.cat(parts)

    def fingerprint(self) -> str:
        """Hash of name, options, preprocessing, vocabulary and weights: equal fingerprints give equal tokens."""
        state = self.network.state_dict()
        # Hashing big weights takes seconds. Only frozen ones are remembered, as long as no tensor was written to.
        seen = self.frozen and not any(v.is_inference() for v in state.values())  # those of inference mode do not tell
        key = tuple((v.data_ptr(), v._version) for v in state.values()) if seen else None
        if key is None or self._hash is None or self._hash[0] != key:
            self._hash = (key, hash_state(self.network))
        about = [self.name, self.modality, self.options, self.preprocessing(), self._hash[1]]
        return hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()

    def save(self, folder: str | Path) -> None:
        """Write ``backbone.json``, ``model.safetensors`` and assets; the folder appears whole or not at all."""
        from safetensors.torch import save_file

        # Cloned: safetensors refuses tensors that share memory (tied embeddings).
        state = {k: v.detach().cpu().contiguous().clone() for k, v in self.network.state_dict().items()}
        with atomic_folder(folder) as part:
            save_file(state, part / "model.safetensors")
            self.describe(part)

    def describe(self, folder: Path) -> None:
        """Write what :meth:`save` does beside the weights: ``backbone.json`` and the assets."""
        about = {
            "format": 1,
            "name": self.name,
            "modality": self.modality,
            "frozen": self.frozen,
            "options": self.options,
        }
        write_json(folder / "backbone.json", about)
        self.assets(folder)

    def extra_repr(self) -> str:
        """Name, modality and widths."""
        return f"{self.name}, {self.modality}, local_dim={self.local_dim}, pooled_dim={self.pooled_dim}"
