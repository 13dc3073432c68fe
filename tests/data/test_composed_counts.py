"""docs/composed_data.md: what the adapters read from the annotations. Running this file rewrites its table."""

from __future__ import annotations

from pathlib import Path

import pytest

from xretrieve.data import cirr, fashion_iq, products, shoes
from xretrieve.data.modifications import query_texts
from xretrieve.data.triplet_annotations import TripletAnnotations
from xretrieve.evaluation.composed_protocols import USUAL, find

PAGE = Path(__file__).parents[2] / "docs/composed_data.md"
MARK, END = "<!-- table made by python tests/data/test_composed_counts.py -->\n", "<!-- end of table -->\n"


def line(*cells: object) -> str:
    return "| " + " | ".join(f"{c:,}" if isinstance(c, int) else str(c) for c in cells) + " |\n"


def parts(read: TripletAnnotations) -> str:
    """Triplets by category, with the listed images, or by kind of edit."""
    groups = sorted({q.category or q.kind for q in read.queries} - {""})
    said = []
    for group in groups:
        number = sum(group in (q.category, q.kind) for q in read.queries)
        listed = read.galleries.get(f"original/{group}")
        said.append(f"{group} {number:,}" + (f" ({len(listed):,} images)" if listed is not None else ""))
    return ", ".join(said)


def tables(root: Path) -> str:
    """Counts of all splits, and the galleries and queries of every protocol."""
    found: dict[tuple[str, str], TripletAnnotations] = {}
    counts = line("dataset", "split", "images", "triplets", "of them", "notes") + line(*["---"] * 6)
    sets = {"fashion_iq": fashion_iq, "shoes": shoes, "cirr": cirr, "products": products}
    for name, module in sets.items():
        for split in ("train", "test") if name == "shoes" else ("train", "val", "test"):
            official = {"test": "test1"}.get(split, split)
            if name == "cirr" and not (root / f"cirr/captions/cap.rc2.{official}.json").is_file():
                pairs, images = cirr.OFFICIAL[official]
                counts += line(name, split, images, pairs, "", "official numbers; not read here, the test skips")
                continue
            kept = {"exclude_leaks": False} if (name, split) == ("fashion_iq", "train") else {}
            for options in ({}, kept) if kept else ({},):
                read = module.annotations(root, split, **options)
                found.setdefault((name, split), read)
                counts += line(name, split, len(read.images), len(read.queries), parts(read), "; ".join(read.notes))
    measured = line("protocol", "gallery", "triplets", "queries") + line(*["---"] * 4)
    for dataset, names in USUAL.items():
        modes = ("both-orders", "each") if dataset == "fashion_iq" else ()
        for name in [*names, *(f"{names[-1].rpartition('/')[0]}/{mode}" for mode in modes)]:
            protocol = find(name)
            split = "val" if dataset in ("fashion_iq", "cirr") else "test"
            if (dataset, split) not in found or protocol is None:
                continue
            read = found[dataset, split]
            sizes = {k: len(v) for k, v in read.galleries.items() if k.partition("/")[0] == protocol.rule}
            asked = sum(len(query_texts(q.texts, protocol.mode)) for q in read.queries)
            shown = ", ".join(f"{k.partition('/')[2]} {n:,}".strip() for k, n in sizes.items())
            measured += line(f"`{name}`", shown or "its list is not here", len(read.queries), asked)
    return f"{counts}\n{measured}"


def test_the_page_shows_what_the_adapters_read(data_root: Path) -> None:
    if not all((data_root / name).is_dir() for name in ("fashion_iq", "shoes", "cirr", "products")):
        pytest.skip(f"not all annotations are at {data_root}")
    assert PAGE.read_text(encoding="utf-8").partition(MARK)[2].partition(END)[0] == tables(data_root), (
        "run python tests/data/test_composed_counts.py"
    )


if __name__ == "__main__":
    from xretrieve.utils.files import data_root as place

    head, _, rest = PAGE.read_text(encoding="utf-8").partition(MARK)
    PAGE.write_text(head + MARK + tables(place()) + END + rest.partition(END)[2], encoding="utf-8")
