"""`FeatureCache`: tokens of items that were encoded before, shared by training, evaluation and galleries."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from xretrieve.data.cached import CachedTokens, RowTokens
from xretrieve.data.content import ContentKeys, text_key
from xretrieve.data.shards import Shard, ShardWriter, find_shards
from xretrieve.errors import DiskError, XRetrieveError, unknown
from xretrieve.utils.atomic import tidy_folder
from xretrieve.utils.disk import disk_reason
from xretrieve.utils.files import cache_root, write_json

if TYPE_CHECKING:
    from xretrieve.backbones.base import Backbone
Step = Callable[[int], None]
Add = Callable[[int, str], Step]
__all__ = ["CachedTokens", "FeatureCache", "RowTokens"]


class FeatureCache:
    """Features on disk, keyed by the backbone's fingerprint and each item's content.

    Args:
        root: folder; default ``features`` below ``XRETRIEVE_CACHE`` or ``~/.cache/xretrieve``.
    """

    def __init__(self, root: str | Path | None = None) -> None:
        self.root = Path(root) if root is not None else cache_root() / "features"

    def encode(
        self,
        backbone: Backbone,
        items: Sequence[Any],
        ids: Sequence[str] | None = None,
        batch_size: int = 64,
        progress: bool | Add = False,
        on_error: str = "raise",
    ) -> CachedTokens | RowTokens:
        """Tokens of the items; what is not in the cache is encoded and added, a shard at a time.

        Args:
            ids: what failures are called; default: the path, or the number of the item.
            progress: show a bar on stderr when that is a terminal; or what :func:`bars` gave, for a bar beside others.
            on_error: ``raise`` at the first item that cannot be read, or ``skip`` it (see ``kept`` and ``failed``).
        """
        if on_error not in ("raise", "skip"):
            raise unknown("on_error", on_error, ["raise", "skip"])
        if not len(items):
            raise XRetrieveError(f"{backbone.name}: nothing to encode")
        if not backbone.cacheable:
            return RowTokens(backbone, items)
        folder = self.root / backbone.fingerprint()[:40]
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise self._unwritable(error) from error
        keys = self._keys(backbone, items)
        known = _sound(_index(find_shards(folder)), keys)
        wanted = {k: item for k, item in zip(keys, items, strict=True) if isinstance(k, bytes) and k not in known[1]}
        broken: dict[bytes, str] = {}
        if on_error == "raise":
            for key in keys:
                if isinstance(key, XRetrieveError):
                    raise key
        if wanted:
            tidy_folder(folder)
            try:
                if not (folder / "about.json").exists():
                    write_json(folder / "about.json", {"backbone": backbone.name, "options": backbone.options})
                broken = _fill(backbone, wanted, folder, batch_size, progress, on_error == "skip")
            except DiskError as error:
                raise self._unwritable(error.__cause__ or error) from error
            known = _index(find_shards(folder))
        return self._collect(keys, known, broken, [str(i) for i in ids] if ids is not None else _names(items))

    def _unwritable(self, error: BaseException) -> DiskError:
        said = f"cannot write the feature cache at {self.root}: {disk_reason(error) or error}"
        return DiskError(f"{said}; set XRETRIEVE_CACHE to another place, or do without (xretrieve index --no-cache)")

    def _keys(self, backbone: Backbone, items: Sequence[Any]) -> list[bytes | XRetrieveError]:
        if backbone.modality == "text":
            wrong = next((item for item in items if not isinstance(item, str)), None)
            if wrong is not None:
                raise XRetrieveError(f"{backbone.name} encodes texts, not {type(wrong).__name__}")
            return [text_key(item) for item in items]
        return ContentKeys(self.root / "files.sqlite").of(items)

    @staticmethod
    def _collect(
        keys: list[bytes | XRetrieveError],
        known: tuple[list[Shard], dict[bytes, tuple[int, int]]],
        broken: dict[bytes, str],
        names: list[str],
    ) -> CachedTokens:
        shards, places = known
        kept, where, failed = [], [], []
        for i, key in enumerate(keys):
            if isinstance(key, XRetrieveError):
                failed.append((names[i], str(key)))
            elif key in broken:
                failed.append((names[i], broken[key]))
            else:
                kept.append(i)
                where.append(places[key])
        spot = np.array(where, dtype=np.int64).reshape(-1, 2)
        return CachedTokens(shards, spot[:, 0], spot[:, 1], np.array(kept, dtype=np.int64), failed)


def _names(items: Sequence[Any]) -> list[str]:
    return [str(item) if isinstance(item, (str, Path)) else f"item {i}" for i, item in enumerate(items)]


def _index(shards: list[Shard]) -> tuple[list[Shard], dict[bytes, tuple[int, int]]]:
    places: dict[bytes, tuple[int, int]] = {}
    for s, shard in enumerate(shards):
        for r, key in enumerate(shard.keys):
            places.setdefault(key.tobytes(), (s, r))
    return shards, places


def _sound(
    known: tuple[list[Shard], dict[bytes, tuple[int, int]]], keys: list[bytes | XRetrieveError]
) -> tuple[list[Shard], dict[bytes, tuple[int, int]]]:
    """The same without the shards that are needed and damaged."""
    shards, places = known
    used = {places[key][0] for key in keys if isinstance(key, bytes) and key in places}
    damaged = [number for number in used if not shards[number].sound()]
    if not damaged:
        return known
    return _sound(_index([shard for number, shard in enumerate(shards) if number not in damaged]), keys)


def _fill(
    backbone: Backbone, wanted: dict[bytes, Any], folder: Path, batch_size: int, progress: bool | Add, skip: bool
) -> dict[bytes, str]:
    from xretrieve.backbones.base import batch_to

    keys = list(wanted)
    chunks = [keys[i : i + batch_size] for i in range(0, len(keys), batch_size)]
    broken: dict[bytes, str] = {}
    writer = ShardWriter(folder)

    def ready(chunk: list[bytes]) -> tuple[Any, list[bytes]]:
        return _prepare(backbone, chunk, wanted, skip, broken)

    own = bars(progress) if isinstance(progress, bool) else nullcontext(progress)
    with backbone.inference(), ThreadPoolExecutor(1) as ahead, own as add:
        step = add(len(keys), f"encoding with {backbone.name}")
        coming = ahead.submit(ready, chunks[0])
        try:
            for i, chunk in enumerate(chunks):
                batch, good = coming.result()
                if i + 1 < len(chunks):
                    coming = ahead.submit(ready, chunks[i + 1])
                if good:
                    tokens = backbone(batch_to(batch, backbone.device))
                    writer.add(good, tokens.check_finite([str(wanted[k]) for k in good]))
                step(len(chunk))
        finally:  # an error or Ctrl-C keeps what was encoded
            writer.flush()
    return broken


def _prepare(
    backbone: Backbone, chunk: list[bytes], wanted: dict[bytes, Any], skip: bool, broken: dict[bytes, str]
) -> tuple[Any, list[bytes]]:
    try:
        return backbone.prepare([wanted[k] for k in chunk]), chunk
    except XRetrieveError:
        if not skip:
            raise
    good = []
    for key in chunk:  # find the broken ones
        try:
            backbone.prepare([wanted[key]])
            good.append(key)
        except XRetrieveError as error:
            broken[key] = str(error)
    return (backbone.prepare([wanted[k] for k in good]) if good else None), good


@contextmanager
def bars(shown: bool) -> Iterator[Add]:
    """Bars on stderr, if they are wanted and that is a terminal: called with a length and a text it adds a bar, and
    gives what is called with each number of steps. Threads may share it."""
    if not shown or not sys.stderr.isatty():
        yield lambda total, said: lambda steps: None
        return
    from rich.console import Console
    from rich.progress import Progress

    bar = Progress(console=Console(stderr=True))

    def add(total: int, said: str) -> Step:
        bar.start()
        task = bar.add_task(said, total=total)
        return lambda steps: bar.advance(task, steps)

    try:
        yield add
    finally:
        if bar.live.is_started:
            bar.stop()
