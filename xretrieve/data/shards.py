"""The files of the feature cache: shards of tokens that appear whole or not at all."""

from __future__ import annotations

import shutil
import time
import uuid
import warnings
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from xretrieve.tokens import Tokens
from xretrieve.utils.checksums import DamagedError, verify
from xretrieve.utils.files import atomic_folder

KEY_BYTES = 32
_SHARD_BYTES = 64 * 2**20
_SHARD_SECONDS = 30.0  # a killed run loses at most this much work
_LARGEST_HALF = 65504.0
_SOUND: set[Path] = set()  # shards whose checksums were right


class Shard:
    """Tokens of some items: ``keys (n,32)`` bytes, ``local (n,L,D)``, ``mask (n,L)``, ``pooled (n,P)``, memory-mapped.

    Only the path travels when it is pickled, so another process maps the files itself.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def _map(self, name: str) -> np.ndarray[Any, Any]:
        return np.load(self.folder / f"{name}.npy", mmap_mode="r", allow_pickle=False)

    @cached_property
    def keys(self) -> np.ndarray[Any, Any]:
        """(n,32) uint8, content hashes of the items."""
        return np.array(self._map("keys"))

    @cached_property
    def local(self) -> np.ndarray[Any, Any]:
        """(n,L,D) float16, or float32 where a value would not fit."""
        return self._map("local")

    @cached_property
    def mask(self) -> np.ndarray[Any, Any]:
        """(n,L) bool."""
        return self._map("mask")

    @cached_property
    def pooled(self) -> np.ndarray[Any, Any]:
        """(n,P) float32."""
        return self._map("pooled")

    def __getstate__(self) -> dict[str, Any]:
        return {"folder": self.folder}

    def sound(self) -> bool:
        """Whether its bytes are those that were written, looked at once by each process; if not, it is deleted."""
        if self.folder not in _SOUND:
            try:
                verify(self.folder, None)
            except DamagedError as error:
                warnings.warn(f"feature cache: {error}; it is deleted, and its items are encoded again", stacklevel=2)
                shutil.rmtree(self.folder, ignore_errors=True)
                return False
            _SOUND.add(self.folder)
        return True


def find_shards(folder: Path) -> list[Shard]:
    """All whole shards of a folder; one that cannot be read is left out with a warning (and encoded again)."""
    shards = []
    for path in sorted(folder.glob("shard-*")):
        shard = Shard(path)
        try:
            verify(path, 0)  # nothing is missing or cut
            n = len(shard.keys)
            if not n == len(shard.local) == len(shard.mask) == len(shard.pooled) or shard.keys.shape[1] != KEY_BYTES:
                raise ValueError("its arrays differ in length")
        except Exception as error:  # numpy passes on what the reader of its headers meets
            warnings.warn(f"feature cache: {path} is damaged and left out ({error}); delete it", stacklevel=2)
            continue
        shards.append(shard)
    return shards


class ShardWriter:
    """Collects tokens and writes a shard whenever enough memory or time has gone into them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._clear()

    def _clear(self) -> None:
        self._keys: list[bytes] = []
        self._parts: list[Tokens] = []
        self._bytes, self._since = 0, time.monotonic()

    def add(self, keys: list[bytes], tokens: Tokens) -> None:
        """Take the tokens of the items with these keys (the same order)."""
        self._keys += keys
        self._parts.append(_halved(tokens))
        self._bytes += self._parts[-1].local.nbytes + tokens.pooled.nbytes
        if self._bytes >= _SHARD_BYTES or time.monotonic() - self._since >= _SHARD_SECONDS:
            self.flush()

    def flush(self) -> None:
        """Write what was collected."""
        if not self._keys:
            return
        wide = any(p.local.element_size() == 4 for p in self._parts)
        parts = [Tokens(p.local.float(), p.mask, p.pooled) for p in self._parts] if wide else self._parts
        tokens = Tokens.cat(parts)
        # The name is random: two processes that fill the same cache never write the same folder.
        with atomic_folder(self.folder / f"shard-{uuid.uuid4().hex}", sealed=True, durable=False) as part:
            np.save(part / "keys.npy", np.frombuffer(b"".join(self._keys), dtype=np.uint8).reshape(-1, KEY_BYTES))
            np.save(part / "local.npy", tokens.local.numpy())
            np.save(part / "mask.npy", tokens.mask.numpy())
            np.save(part / "pooled.npy", tokens.pooled.numpy())
        self._clear()


def _halved(tokens: Tokens) -> Tokens:
    local, mask, pooled = tokens.local.float().cpu(), tokens.mask.cpu(), tokens.pooled.float().cpu()
    fits = local.numel() == 0 or float(local.abs().max()) <= _LARGEST_HALF
    return Tokens(local.half() if fits else local, mask, pooled)
