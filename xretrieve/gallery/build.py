"""Writing a new gallery: all of it, or nothing."""

from __future__ import annotations

import contextlib
import os
import warnings
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from xretrieve.data.base import RetrievalDataset
from xretrieve.data.patterns import Patterns
from xretrieve.errors import XRetrieveError
from xretrieve.gallery.encode import Encoder, encode_items, to_numpy
from xretrieve.gallery.matchers import coarse_entry, identity
from xretrieve.gallery.plan import make_plan
from xretrieve.gallery.sources import Sources
from xretrieve.gallery.store import MANIFEST, Store
from xretrieve.gallery.token_files import TokenSpool, token_dtype
from xretrieve.gallery.vector_index import MIN_TRAIN, GalleryIndex, Queries
from xretrieve.index import create_index
from xretrieve.index.recall import EFFORTS
from xretrieve.utils.files import atomic_folder, locked
from xretrieve.utils.paths import is_file, is_folder, is_there
from xretrieve.utils.precision import check

if TYPE_CHECKING:
    from xretrieve.data.cache import FeatureCache
    from xretrieve.matcher import Matcher

CAPTIONS = 200  # of a dataset, to measure an approximate index with


def check_out(out: str | Path, overwrite: bool = False) -> None:
    """Raise unless a gallery may be written at ``out``: never over something else, over a gallery only if told to."""
    out = Path(out)
    if is_there(out) and not is_file(out / MANIFEST) and (not is_folder(out) or any(out.iterdir())):
        raise XRetrieveError(f"{out} exists and is not a gallery; choose another name")
    if is_file(out / MANIFEST) and not overwrite:
        raise XRetrieveError(
            f"{out} exists; add to it (--add, Gallery.open(...).add) or replace it (--overwrite, overwrite=True)"
        )
    above = _nearest(out)
    if not is_folder(above) or not os.access(above, os.W_OK):  # said before an hour of encoding, not after it
        raise XRetrieveError(f"{out} cannot be made: {above} is not a folder that you may write to; give another --out")


def _nearest(out: str | Path) -> Path:
    """The folder above ``out`` that exists."""
    return next(folder for folder in Path(out).absolute().parents if is_there(folder))


def write_gallery(
    matcher: Matcher,
    source: Any,
    out: str | Path,
    coarse: Matcher | None,
    index: str,
    batch_size: int,
    cache: FeatureCache | None,
    progress: bool,
    overwrite: bool,
    tokens: str,
    recall: float | None,
    index_options: dict[str, Any],
    precision: str = "auto",
    patterns: Patterns | None = None,
) -> None:
    """Encode a source and write the gallery's folder; the arguments are those of :meth:`xretrieve.Gallery.build`."""
    create_index(index, 8, **index_options)  # a wrong name or option, or no faiss: said before an hour of encoding
    check_recall(recall, index, index_options)
    check_out(out, overwrite)
    token_dtype(tokens)  # so is a wrong type
    check(precision)
    whose = coarse_entry(matcher, coarse, index)
    plan = make_plan(source, [], Sources([], {}, patterns))
    spool = TokenSpool(_nearest(out), coarse is not None, tokens) if whose else None
    encoder = Encoder(matcher, coarse, tokens=spool is not None)
    items, vectors, failed = encode_items(encoder, plan.new, batch_size, cache, progress, spool)
    failed = plan.failed + failed
    if not items:
        raise XRetrieveError(f"none of the {len(failed)} pictures could be indexed{_commonest(failed)}")
    if index == "ivfpq" and len(items) < MIN_TRAIN:
        raise XRetrieveError(
            f"index ivfpq needs {MIN_TRAIN} pictures to train on, there are {len(items)}; use 'flat' or 'hnsw'"
        )
    if whose.get("by") == "none":
        index, index_options = "flat", {}  # vectors that choose nothing need no codes
    more: dict[str, Any] = dict(plan.about)
    if spool is not None:
        more |= {"coarse": whose, "tokens": {"dim": spool.dim, "dtype": tokens, "pooled": coarse is not None}}
        more |= {"precision": precision} if precision != "auto" else {}
    with _only_writer(out, overwrite), atomic_folder(out, replace=overwrite) as part:
        about = {"name": index, "options": index_options} | ({"target": recall} if recall is not None else {})
        store = Store.create(part, vectors.shape[1], identity(matcher), about, **more)
        store.change(items=items, vectors=vectors, tokens=spool, failed=failed)
        for note in GalleryIndex(store).write(lambda: _test_queries(coarse or matcher, source)):
            warnings.warn(note, stacklevel=3)


@contextlib.contextmanager
def _only_writer(out: str | Path, overwrite: bool) -> Iterator[None]:
    """A gallery that is there waits for those that add to it; one that came meanwhile is not replaced."""
    with locked(out) if Path(out).is_dir() else contextlib.nullcontext():
        check_out(out, overwrite)
        yield


def _commonest(failed: list[dict[str, str]]) -> str:
    """The reason that most pictures failed for, and the first of them: the others may be the odd broken file."""
    if not failed:
        return ""
    reason, count = Counter(entry["reason"] for entry in failed).most_common(1)[0]
    first = next(entry["path"] for entry in failed if entry["reason"] == reason)
    return f"; {count} of them, the first {first}: {reason}"


def check_recall(recall: float | None, index: str, options: dict[str, Any]) -> None:
    """Raise unless an index can be told to reach such a recall, and nothing else decides on its effort."""
    if recall is None:
        return
    if isinstance(recall, bool) or not isinstance(recall, (int, float)) or not 0 < recall <= 1:
        raise XRetrieveError(f"recall is {recall!r}; give the share of the nearest to find, such as 0.99")
    effort = EFFORTS.get(index, ("",))[0]
    if effort in options:
        raise XRetrieveError(f"recall={recall} chooses {effort} of index {index!r}; give one of them")


def _test_queries(matcher: Matcher, source: Any) -> Queries | None:
    """Queries that an approximate index is measured with: captions where there are some."""
    if not isinstance(source, RetrievalDataset) or not source.captions:
        return None
    rows = np.unique(np.linspace(0, len(source.captions) - 1, CAPTIONS).astype(int))
    return "captions", to_numpy(matcher.encode_texts([source.captions[row] for row in rows]).pooled)
