"""The triplet rule, version 1: which edits a catalogue offers, how they are said, and what fulfils them.

Every choice is a hash of the ids and values involved, so two implementations write identical files.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from xretrieve.data.products.catalogue import ATTRIBUTES, SEED, Product, draw

EDITS = ("colour", "pattern", "gender", "usage", "article")  # in the order of the file
TEMPLATES = {
    "colour": ("make it {new}", "{new} instead of {old}", "the same in {new}", "change the colour from {old} to {new}"),
    "pattern": ("make it {new}", "{new} instead of {old}", "the same but {new}",
                "change the pattern from {old} to {new}"),
    "gender": ("the same for {new}", "for {new} instead of {old}", "made for {new}, not {old}", "a version for {new}"),
    "usage": ("for {new} use", "{new} instead of {old}", "more {new}, less {old}",
              "change the use from {old} to {new}"),
    "article": ("{new} instead of {old}", "change it to {new}", "swap the {old} for {new}", "like this, but {new}"),
}  # fmt: skip
SAID = {"Multi": "multicoloured", "Unisex": "everyone", "solid": "plain"}
_KEYS = ("article", "gender", "usage", "colour", "pattern")


@dataclass(frozen=True)
class Record:
    """One triplet; ``positives`` are ids in ascending order, the target among them."""

    reference: str
    target: str
    edit: str
    old: str
    new: str
    text: str
    positives: tuple[str, ...]
    same_model: bool


def triplets(products: Sequence[Product], split: str) -> list[Record]:
    """All triplets of a split.

    Args:
        products: the deduped catalogue; only the eligible products of the split are used.
        split: ``train``, ``val`` or ``test``.
    """
    pool = sorted((p for p in products if p.split == split and p.eligible), key=lambda p: int(p.id))
    # edit -> the four kept values -> products: the candidates of a reference agree with it in everything else
    alike: dict[str, dict[tuple[str, ...], list[Product]]] = {edit: defaultdict(list) for edit in EDITS}
    same: dict[tuple[str, ...], list[Product]] = defaultdict(list)  # (article, gender, usage, colour) -> products
    for p in pool:
        same[tuple(getattr(p, a) for a in ATTRIBUTES)].append(p)
        for edit in EDITS:
            alike[edit][_kept(p, edit)].append(p)
    # edit -> the kept ones of (article, gender, usage, colour), and the new value -> products: what may be positive
    fits: dict[str, dict[tuple[str, ...], list[Product]]] = {edit: defaultdict(list) for edit in EDITS}
    for p in pool:
        for edit in EDITS:
            fits[edit][_goal(p, edit, getattr(p, edit))].append(p)
    records = []
    for r in pool:
        for edit in EDITS:
            for value, candidates in _values(r, edit, alike[edit][_kept(r, edit)], split):
                records.append(_record(r, edit, value, candidates, fits[edit][_goal(r, edit, value)]))
    return records


def digest(records: Sequence[Record]) -> str:
    """16 hex digits over all that the rule decides; docs and tests compare it."""
    lines = ["\t".join((t.reference, t.edit, t.new, t.target, t.text, " ".join(t.positives))) for t in records]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:16]


def _kept(p: Product, edit: str) -> tuple[str, ...]:
    kept = tuple(getattr(p, key) for key in _KEYS if key != edit)
    return (*kept, p.sub) if edit == "article" else kept


def _goal(p: Product, edit: str, value: str) -> tuple[str, ...]:
    return (*(getattr(p, a) for a in ATTRIBUTES if a != edit), value)


def _values(r: Product, edit: str, pool: Sequence[Product], split: str) -> list[tuple[str, list[Product]]]:
    """The values that are asked for, each with the candidates that have it."""
    if edit == "pattern" and not r.pattern:
        return []
    by_value: dict[str, list[Product]] = defaultdict(list)
    for p in pool:
        value = getattr(p, edit)
        if value != getattr(r, edit) and (value or edit != "pattern"):
            by_value[value].append(p)
    order = sorted(by_value, key=lambda v: draw(SEED, "value", edit, r.id, v))
    return [(v, by_value[v]) for v in order[: 3 if edit == "colour" and split == "train" else 1]]


def _record(r: Product, edit: str, value: str, candidates: list[Product], fitting: Sequence[Product]) -> Record:
    family = [p for p in candidates if p.model == r.model]
    target = min(family or candidates, key=lambda p: draw(SEED, "target", edit, r.id, p.id))
    template = TEMPLATES[edit][draw(SEED, "text", edit, r.id, value) % 4]
    text = template.format(old=_said(getattr(r, edit)), new=_said(value))
    positives = tuple(
        p.id for p in fitting
        if p.id != r.id and (edit == "pattern" or not p.pattern or not r.pattern or p.pattern == r.pattern)
    )  # fmt: skip
    return Record(r.id, target.id, edit, getattr(r, edit), value, text, positives, target.model == r.model)


def _said(value: str) -> str:
    return SAID.get(value, value.lower())
