"""Small Fashion-IQ, Shoes, CIRR and product catalogues in their public layouts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from PIL import Image


def dump(path: Path, value: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value), encoding="utf-8")


def photo(path: Path, shade: int = 0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (16, 20), (shade * 7 % 256, shade % 256, 90)).save(path)


def write_fashion_iq(root: Path, leave_out: tuple[str, ...] = (), photos: bool = True) -> Path:
    """Six val images per category (``dress-v0`` ...), three pairs; shirt-train shares an image with toptee-val."""
    folder = root / "fashion_iq"
    for c in ("dress", "shirt", "toptee"):
        for split, letter in (("train", "t"), ("val", "v"), ("test", "s")):
            ids = [f"{c}-{letter}{i}" for i in range(6)]
            if (c, split) == ("shirt", "train"):
                ids[5] = "toptee-v1"
            pairs = [
                {"candidate": ids[0], "target": ids[1], "captions": ["is red.", "has no sleeves"]},
                {"candidate": ids[0], "target": ids[2], "captions": ["Is BLUE", ""]},
                {"candidate": ids[3], "target": ids[5], "captions": ["is longer", "is longer"]},
            ]
            if split == "test":
                pairs = [{k: v for k, v in pair.items() if k != "target"} for pair in pairs]
            dump(folder / f"captions/cap.{c}.{split}.json", pairs)
            dump(folder / f"image_splits/split.{c}.{split}.json", ids)
            for number, image in enumerate(ids):
                if photos and image not in leave_out:
                    photo(folder / "images" / f"{image}.{'png' if number == 4 else 'jpg'}", number)
    return folder


def write_shoes(root: Path, photos: bool = True) -> Path:
    """Five train and five eval images; one pair of each has its reference as target."""
    folder = root / "shoes"
    train, held = [f"img_a_{i}.jpg" for i in range(5)], [f"img_b_{i}.jpg" for i in range(5)]
    rows = [(n[1], n[0], "is red") for n in (train, held)] + [(n[2], n[2], "is the same") for n in (train, held)]
    rows.append((held[3], held[1], "has a heel"))
    named = [{"ImageName": t, "ReferenceImageName": r, "RelativeCaption": c} for t, r, c in rows]
    dump(folder / "relative_captions_shoes.json", named)
    dump(folder / "captions_shoes.json", [{"ImageName": train[0], "Caption": "black pumps"}])
    (folder / "train_im_names.txt").write_text("\n".join(train) + "\n")
    (folder / "eval_im_names.txt").write_text("\n".join(held) + "\n")
    for number, name in enumerate([*train, *held] if photos else ()):
        photo(folder / "womens_pumps" / str(number % 2) / name, number)
    return folder


def write_cirr(root: Path, photos: bool = True) -> Path:
    """Eight images a split; two pairs with subsets of six."""
    folder = root / "cirr"
    for split, place in (("train", "train"), ("val", "dev"), ("test1", "test1")):
        names = [f"{place}-{i}-0-img0" for i in range(8)]
        pairs = [
            {"pairid": 10 + r, "reference": names[r], "target_hard": names[t], "target_soft": {names[t]: 1.0},
             "caption": f"show {t}", "img_set": {"id": 1, "members": names[:6], "reference_rank": r, "target_rank": t}}
            for r, t in ((0, 1), (2, 5))
        ]  # fmt: skip
        if split == "test1":
            pairs = [{k: v for k, v in pair.items() if not k.startswith("target")} for pair in pairs]
        dump(folder / f"captions/cap.rc2.{split}.json", pairs)
        dump(folder / f"image_splits/split.rc2.{split}.json", {n: f"./{place}/{n}.png" for n in names})
        for number, name in enumerate(names if photos else ()):
            photo(folder / place / f"{name}.png", number)
    return folder


def product(number: int, title: str, **fields: str) -> dict[str, str]:
    row = {"gender_from_title": "Men", "master": "Apparel", "sub": "Topwear", "article": "Shirts", "colour": "Blue",
           "usage": "Casual"}  # fmt: skip
    return {"id": str(number), "title": title, **row, "image": f"images/{number}.png", **fields}


def write_products(root: Path, rows: list[dict[str, str]], copies: dict[int, int] | None = None) -> Path:
    """A catalogue; ``copies``: row number -> shade of its photo, for byte-identical ones."""
    folder = root / "products"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "products.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    for number, row in enumerate(rows):
        photo(folder / row["image"], (copies or {}).get(number, number))
    return folder
