"""Reading a catalogue as composed queries: its photos, titles, attributes, and the triplets of the rule."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Any

from xretrieve.data.annotations import ImageRecord, canonical_split
from xretrieve.data.products.catalogue import RULE, Product, dedupe, photo_hashes, read_catalogue
from xretrieve.data.products.rule import digest, triplets
from xretrieve.data.triplet_annotations import TripletAnnotations, TripletRecord, folder_of
from xretrieve.data.triplets import ComposedDataset
from xretrieve.errors import XRetrieveError
from xretrieve.utils.paths import expand, is_file

NAME, FILE = "products", "products.jsonl"


def load(root: str | Path | None, split: str, **options: Any) -> ComposedDataset:
    """The photos of a split that are here, with their queries; options as in :func:`annotations`."""
    return annotations(root, split, **options).dataset()


def annotations(
    root: str | Path | None,
    split: str,
    *,
    file: str | None = None,
    allow_missing: bool = False,
    train: int | None = None,
    val: int | None = None,
    test: int | None = None,
) -> TripletAnnotations:
    """Read a split. The gallery is every photo of it; only products with known attributes are asked for.

    An image's caption is its title; its metadata has ``item`` (colours of a model share it), the attributes, and
    ``tags`` (``article=Shirts`` ...) of what is known.

    Args:
        root: the data root with ``products/``, or the folder of the catalogue itself.
        split: ``train``, ``val`` or ``test``, cut by model.
        file: the catalogue, in place of ``products.jsonl``; its ``image`` paths start from its folder.
        allow_missing: see :class:`~xretrieve.data.triplets.ComposedDataset`.
        train, val, test: only the first so many photos of that split and the triplets among them, for quick tries.
    """
    split = canonical_split(split)
    path = expand(file) if file else folder_of(root, (NAME,), FILE, NAME) / FILE
    products, notes = _catalogue(str(path.resolve()), path.stat().st_mtime_ns if is_file(path) else 0)
    images = [p for p in products if p.split == split]
    size = {"train": train, "val": val, "test": test}[split]
    if size is not None and size < len(images):
        notes = [*notes, f"only the first {size:,} of {len(images):,} photos, as asked"]
        images = images[:size]
    records = triplets(images, split)
    queries = [
        TripletRecord(
            f"{t.reference}-{t.edit}-{t.new}", t.reference, t.target, (t.text,), t.edit, positives=t.positives,
            extra={"old": t.old, "new": t.new, "same_model": t.same_model},
        )
        for t in records
    ]  # fmt: skip
    said = [*notes, f"triplet rule {RULE}, file digest {digest(records)}, {sum(p.eligible for p in images):,} eligible"]
    listed = [
        ImageRecord(p.id, _photo(path.parent / p.image), [p.title], [f"{p.id}#title"], _metadata(p)) for p in images
    ]
    return TripletAnnotations(
        NAME, split, f"rule {RULE}", str(path), listed, [str(path.parent)], notes=said, queries=queries,
        galleries={"split": [p.id for p in images]}, allow_missing=allow_missing,
    )  # fmt: skip


def found(root: str | Path | None = None) -> list[str]:
    """What lies under the root, one phrase."""
    try:
        return [str(folder_of(root, (NAME,), FILE, NAME) / FILE)]
    except XRetrieveError:
        return []


@lru_cache(maxsize=2)  # the splits of a catalogue are read one after the other
def _catalogue(path: str, changed: int) -> tuple[list[Product], list[str]]:
    rows = read_catalogue(Path(path))
    hashes = photo_hashes(rows, Path(path).parent)
    products = dedupe(rows, hashes)
    notes = [f"{len(rows):,} rows, {len(products):,} after one photo was kept of each group of copies"]
    if len(hashes) < len(rows):
        notes.append(
            f"{len(rows) - len(hashes):,} photos are missing, so copies among them were not found and the triplets "
            "differ from those of the whole catalogue"
        )
    return products, notes


def _photo(path: Path) -> Path | None:
    return path if is_file(path) else None


def _metadata(p: Product) -> dict[str, Any]:
    values = {"article": p.article, "gender": p.gender, "usage": p.usage, "colour": p.colour, "pattern": p.pattern}
    known = [f"{name}={value}" for name, value in values.items() if value]
    return {"item": p.model, "title": p.title, "master": p.master, "sub": p.sub, **values, "eligible": p.eligible,
            "tags": known}  # fmt: skip
