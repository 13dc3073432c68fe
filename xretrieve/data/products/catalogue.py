"""The catalogue: its rows, what is derived from a title, copies of one photo, and the split by model."""

from __future__ import annotations

import hashlib
import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from xretrieve.errors import XRetrieveError
from xretrieve.utils.texts import json_lines

RULE = 1  # version of the rule; equal versions give equal triplets
SEED = 0  # part of the protocol: training seeds never change the data
FIELDS = ("id", "title", "gender_from_title", "master", "sub", "article", "colour", "usage", "image")
ATTRIBUTES = ("article", "gender", "usage", "colour")
MASTERS = ("Apparel", "Footwear", "Accessories")
PATTERNS = {
    "solid": "solid", "plain": "solid", "print": "printed", "prints": "printed", "printed": "printed",
    "stripe": "striped", "stripes": "striped", "striped": "striped",
    "check": "checked", "checks": "checked", "checked": "checked", "checkered": "checked",
}  # fmt: skip
PEOPLE = frozenset("men mens man women womens woman boys boy girls girl kids kid unisex".split())


@dataclass
class Product:
    """One photo of the catalogue; ``clash``: copies of it say different things."""

    id: str
    title: str
    gender: str
    master: str
    sub: str
    article: str
    colour: str
    usage: str
    image: str
    pattern: str
    model: str
    split: str
    clash: bool = False

    @property
    def eligible(self) -> bool:
        """Whether it may be reference, target or positive."""
        return bool(self.gender) and self.master in MASTERS and not self.clash


def draw(*parts: object) -> int:
    """SHA-256 over the parts joined by "|", as a number: the only source of chance in the rule."""
    return int.from_bytes(hashlib.sha256("|".join(map(str, parts)).encode()).digest(), "big")


def words(text: str) -> list[str]:
    """Lower-case words and numbers.

    >>> words("Nike Men's T-Shirt 2")
    ['nike', 'men', 's', 't', 'shirt', '2']
    """
    return re.findall(r"[a-z0-9]+", text.lower())


def pattern_of(title: str) -> str:
    """solid, printed, striped or checked; empty if the title names none or more than one.

    >>> pattern_of("Lee Men Striped Blue Shirt"), pattern_of("Check and stripe shirt")
    ('striped', '')
    """
    named = {PATTERNS[word] for word in words(title) if word in PATTERNS}
    return named.pop() if len(named) == 1 else ""


def read_catalogue(path: Path) -> list[Product]:
    """All rows, with their derived fields. A bad line is an error that names it and the key.

    Args:
        path: ``products.jsonl``, one object a line with the keys :data:`FIELDS`.
    """
    rows = []
    for number, row in json_lines(path):
        for key in FIELDS:
            if not isinstance(row, dict) or not isinstance(row.get(key), str):
                raise XRetrieveError(f"{path}, line {number}: {key!r} must be there and be text (it may be empty)")
        if not row["id"].isdecimal():
            raise XRetrieveError(f"{path}, line {number}: id {row['id']!r} is no number; the rule orders by it")
        rows.append(row)
    if not rows:
        raise XRetrieveError(f"{path}: no products in it")
    ids = [row["id"] for row in rows]
    if len(set(ids)) != len(ids):
        twice = next(i for n, i in enumerate(ids) if i in ids[:n])
        raise XRetrieveError(f"{path}: product {twice!r} occurs twice")
    colours = {word for row in rows for word in words(row["colour"])}
    return [_product(row, colours) for row in rows]


def _product(row: dict[str, str], colours: set[str]) -> Product:
    model = " ".join(w for w in words(row["title"]) if w not in colours and w not in PEOPLE) or f"id {row['id']}"
    part = draw(SEED, "split", model) % 1000
    return Product(
        row["id"], row["title"], row["gender_from_title"], row["master"], row["sub"], row["article"], row["colour"],
        row["usage"], row["image"], pattern_of(row["title"]), model,
        "train" if part < 700 else "val" if part < 800 else "test",
    )  # fmt: skip


def dedupe(products: Sequence[Product], hashes: dict[str, str]) -> list[Product]:
    """Products with byte-identical photos become one, that of the smallest id.

    Args:
        hashes: id -> hash of the photo's bytes; a product without one (its photo is absent) stays as it is.
    """
    copies: dict[str, list[Product]] = defaultdict(list)
    for product in products:
        copies[hashes.get(product.id, f"absent {product.id}")].append(product)
    kept = []
    for group in copies.values():
        first = min(group, key=lambda p: int(p.id))
        first.clash = len({tuple(getattr(p, a) for a in ATTRIBUTES) for p in group}) > 1
        kept.append(first)
    return sorted(kept, key=lambda p: int(p.id))


def photo_hashes(products: Iterable[Product], folder: Path) -> dict[str, str]:
    """id -> hash of the photo's bytes, for the photos that are here. Only photos of equal size are read."""
    sizes: dict[int, list[Product]] = defaultdict(list)
    for product in products:
        try:
            sizes[(folder / product.image).stat().st_size].append(product)
        except (OSError, ValueError):  # not there, or no name of a file
            continue
    found = {}
    for size, group in sizes.items():
        if len(group) == 1:
            found[group[0].id] = f"{size} alone"
            continue
        for product in group:
            found[product.id] = hashlib.sha256((folder / product.image).read_bytes()).hexdigest()
    return found
