"""The catalogue's triplets: by hand, against a slow second reading of the rule, and the real one's digests."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from tests.data.composed_files import product, write_products
from xretrieve.data import datasets
from xretrieve.data.products.catalogue import Product, dedupe, draw, pattern_of, photo_hashes, read_catalogue
from xretrieve.data.products.rule import EDITS, digest, triplets
from xretrieve.errors import XRetrieveError

ROWS = [
    product(10, "Acme Men Blue Shirt"),
    product(9, "Acme Men Red Shirt", colour="Red"),
    product(11, "Other Men Red Striped Shirt", colour="Red"),
    product(12, "Acme Women Blue Shirt", gender_from_title="Women"),
    product(13, "Acme Blue Shirt", gender_from_title=""),
    product(14, "Acme Men Multi Shirt", colour="Multi"),
    product(15, "Acme Men Printed Blue Shirt"),
    product(16, "Acme Men Plain Blue Shirt"),
]


def one_split(path: Path) -> list[Product]:
    """The catalogue as if all of it were test: small ones would leave most splits empty."""
    rows = read_catalogue(path / "products.jsonl")
    for row in rows:
        row.split = "test"
    return dedupe(rows, photo_hashes(rows, path))


def slow(pool: list[Product], split: str) -> Counter[tuple[str, str, str, tuple[str, ...]]]:
    """Reference, edit, value and positives by the words of the rule, in loops."""
    keys = ("article", "gender", "usage", "colour", "pattern")
    pool = [p for p in pool if p.eligible and p.split == split]
    found: Counter[tuple[str, str, str, tuple[str, ...]]] = Counter()
    for r in pool:
        for e in EDITS:
            values = set()
            for p in pool:
                same = all(getattr(p, k) == getattr(r, k) for k in keys if k != e)
                differs = getattr(p, e) != getattr(r, e)
                known = e != "pattern" or (p.pattern and r.pattern)
                if same and differs and known and (e != "article" or p.sub == r.sub):
                    values.add(getattr(p, e))
            limit = 3 if (e, split) == ("colour", "train") else 1
            for v in sorted(values, key=lambda v: draw(0, "value", e, r.id, v))[:limit]:
                fits = []
                for p in pool:
                    kept = all(getattr(p, k) == getattr(r, k) for k in keys[:4] if k != e)
                    contradicts = e != "pattern" and p.pattern and r.pattern and p.pattern != r.pattern
                    if p is not r and kept and getattr(p, e) == v and not contradicts:
                        fits.append(p.id)
                found[r.id, e, v, tuple(sorted(fits, key=int))] += 1
    return found


def test_the_rule_agrees_with_a_slow_reading(tmp_path: Path) -> None:
    titles = ["Acme Men {} Shirt", "Acme Men Striped {} Shirt", "Best Men Printed {} Shirt", "A {} Tee", "Solid {} Top"]
    rows = [
        product(
            100 + 17 * i % 97 + 100 * i,
            titles[i % 5].format(colour),
            colour=colour,
            gender_from_title=("Men", "Women", "")[i % 7 % 3],
            article=("Shirts", "Tshirts")[i % 11 // 6],
            usage=("Casual", "Sports")[i % 13 // 9],
        )
        for i in range(60)
        for colour in [("Blue", "Red", "Navy Blue", "Multi")[i // 5 % 4]]
    ]
    pool = one_split(write_products(tmp_path, rows))
    for split in ("test", "train"):
        for row in pool:
            row.split = split
        made = triplets(pool, split)
        assert Counter((t.reference, t.edit, t.new, t.positives) for t in made) == slow(pool, split)
        assert len({t.edit for t in made}) == 5 and all(t.target in t.positives for t in made)


def test_triplets_by_hand(tmp_path: Path) -> None:
    made = {(t.reference, t.edit): t for t in triplets(one_split(write_products(tmp_path, ROWS)), "test")}
    gender = made["10", "gender"]
    assert (gender.target, gender.new, gender.positives, gender.same_model) == ("12", "Women", ("12",), True)
    assert "women" in gender.text
    colour = made["10", "colour"]  # 11 is striped: no candidate (10's pattern is unknown), but no contradiction either
    assert (colour.target, colour.positives) in {("9", ("9", "11")), ("14", ("14",))} and colour.same_model
    assert made["15", "pattern"].target == "16" and made["15", "pattern"].text.count("plain") == 1
    assert ("10", "pattern") not in made and not any(t.reference == "13" for t in made.values())
    assert [t.reference for t in made.values()] == sorted((t.reference for t in made.values()), key=int)


def test_copies_become_one_and_contradicting_ones_are_not_asked_for(tmp_path: Path) -> None:
    pool = one_split(write_products(tmp_path, ROWS, copies={0: 1}))  # 10 and 9 share a photo, not a colour
    assert [p.id for p in pool] == ["9", "11", "12", "13", "14", "15", "16"]
    assert [p.id for p in pool if p.clash] == ["9"] and not pool[0].eligible


def test_titles_and_models(tmp_path: Path) -> None:
    rows = read_catalogue(write_products(tmp_path, [*ROWS, product(20, "Men Blue")]) / "products.jsonl")
    assert [rows[i].model for i in (0, 1, 3, 8)] == ["acme shirt", "acme shirt", "acme shirt", "id 20"]
    assert len({row.split for row in rows if row.model == "acme shirt"}) == 1
    assert pattern_of("Checkered Shirt") == "checked" and pattern_of("Plain striped") == ""


def test_a_split_is_a_dataset_whose_gallery_is_every_photo(tmp_path: Path) -> None:
    write_products(tmp_path, ROWS)
    split = read_catalogue(tmp_path / "products/products.jsonl")[0].split
    data = datasets.load("products", tmp_path, split)
    assert "13" in data.image_ids and data.captions[0].startswith("Acme") and data.metadata[0]["item"] == "acme shirt"
    assert "colour=Red" in data.metadata[data.image_ids.index("9")]["tags"]
    for t in data.triplets:
        assert t.target in t.positives and t.reference not in t.positives and data.image_ids[t.reference] != "13"


def test_triplets_of_the_first_photos_stay_among_them(tmp_path: Path) -> None:
    write_products(tmp_path, ROWS)
    split = read_catalogue(tmp_path / "products/products.jsonl")[0].split
    whole, part = (datasets.load("products", tmp_path, split, **kept) for kept in ({}, {split: 3}))
    assert part.image_ids == whole.image_ids[:3] and part.expected_images == 3
    assert 0 < len(part.triplets) < len(whole.triplets)
    assert "only the first 3 of" in part.notes[-2]


def test_bad_catalogues_name_line_and_key(tmp_path: Path) -> None:
    for row, message in (
        ({**ROWS[0], "colour": None}, "line 2: 'colour' must be there"),
        ({**ROWS[0], "id": "a1"}, "line 2: id 'a1' is no number"),
        (ROWS[1], "'9' occurs twice"),
    ):
        folder = write_products(tmp_path, [ROWS[1], row])
        with pytest.raises(XRetrieveError, match=message):
            read_catalogue(folder / "products.jsonl")
    (tmp_path / "products/products.jsonl").write_text("{broken\n")
    with pytest.raises(XRetrieveError, match="line 1: not valid JSON"):
        datasets.load("products", tmp_path, "test")


FACTS = {  # gallery, eligible, triplets, by edit, references, distinct targets, same model, digest
    "train": (6592, 6325, 29377, (18144, 1908, 3538, 2322, 3465), 6288, 5303, 5155, "91f58ada6d473f56"),
    "val": (1011, 957, 1882, (903, 217, 266, 138, 358), 936, 676, 510, "77ea48e50c2b8784"),
    "test": (1847, 1788, 4056, (1712, 327, 734, 538, 745), 1752, 1289, 887, "8ac750df7cf9828b"),
}


def test_the_real_catalogue_gives_the_published_triplets(data_root: Path) -> None:
    folder = data_root / "products"
    if not (folder / "products.jsonl").is_file():
        pytest.skip(f"no product catalogue at {folder}")
    rows = read_catalogue(folder / "products.jsonl")
    pool = dedupe(rows, photo_hashes(rows, folder))
    assert (len(rows), len(pool), sum(p.clash for p in pool), sum(p.eligible for p in pool)) == (9572, 9450, 11, 9070)
    assert len({p.model for p in pool}) == 3857
    for split, facts in FACTS.items():
        made = triplets(pool, split)
        here = [p for p in pool if p.split == split]
        edits = Counter(t.edit for t in made)
        assert facts == (
            len(here), sum(p.eligible for p in here), len(made), tuple(edits[e] for e in EDITS),
            len({t.reference for t in made}), len({t.target for t in made}), sum(t.same_model for t in made),
            digest(made),
        )  # fmt: skip
    first, positives = made[0], [len(t.positives) for t in made]
    assert (first.reference, first.old, first.new, first.target, first.text) == (
        "10017", "Blue", "Purple", "10777", "the same in purple")  # fmt: skip
    assert (round(sum(positives) / len(positives), 2), max(positives), positives.count(1)) == (4.91, 41, 1196)
