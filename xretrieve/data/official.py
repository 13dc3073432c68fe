"""COCO's own annotation files, ``captions_{train,val}2017.json``, and labelled boxes from a ``regions.jsonl``.

The 2014 files (``captions_val2014.json``) have the same form. Source: cocodataset.org/#format-data.
"""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path
from typing import Any

from xretrieve.data.annotations import Annotations, ImageRecord
from xretrieve.data.base import Region
from xretrieve.data.fields import read_name, read_texts
from xretrieve.data.picture_index import PictureIndex, coco_names
from xretrieve.errors import XRetrieveError, shown
from xretrieve.utils.files import read_json
from xretrieve.utils.paths import is_file
from xretrieve.utils.texts import BrokenJsonError, json_lines

OFFICIAL_SPLITS = ("train2017", "val2017", "train2014", "val2014")


def official_annotations(name: str, split: str, path: Path, pictures: PictureIndex) -> Annotations:
    """Read one official caption file; images come in the order of the file, captions in the order of their ids."""
    content = read_json(path)
    if not isinstance(content, dict) or not {"images", "annotations"} <= content.keys():
        raise XRetrieveError(f"{path}: expected an object with the keys 'images' and 'annotations'")
    for key in ("images", "annotations"):
        if not isinstance(content[key], list) or not all(isinstance(entry, dict) for entry in content[key]):
            raise XRetrieveError(f"{path}: {key!r} must be a list of objects; a download cut short?")
    texts: dict[str, list[tuple[int, str]]] = defaultdict(list)
    for number, annotation in enumerate(content["annotations"]):
        if not isinstance(annotation.get("caption"), str) or not annotation["caption"].strip():
            raise XRetrieveError(f"{path}: annotation {number} (id {annotation.get('id')}) has no text under 'caption'")
        where = f"{path}: annotation {number}"
        owner, own_id = read_name(annotation.get("image_id"), f"{where}: 'image_id'"), annotation.get("id")
        if not isinstance(own_id, int):
            raise XRetrieveError(f"{where}: 'id' must be a number, got {shown(own_id)}; mend or remove the entry")
        texts[owner].append((own_id, annotation["caption"].strip()))
    regions = read_regions(path.parent / "regions.jsonl")
    records = []
    for number, image in enumerate(content["images"]):
        key = read_name(image.get("id"), f"{path}: image {number}: 'id'")
        own = sorted(texts.pop(key, []))
        if not own:
            raise XRetrieveError(f"{path}: image {key} has no caption; every image needs one")
        filename = read_name(image.get("file_name"), f"{path}: image {number}: 'file_name'")
        records.append(
            ImageRecord(
                key,
                pictures.find(coco_names(filename)),
                [text for _, text in own],
                [str(i) for i, _ in own],
                {"split": split, "filename": filename},
                regions.get(key, []),
                filename,
            )
        )
    if texts:
        raise XRetrieveError(f"{path}: captions of image {next(iter(texts))}, which is not in its list of images")
    return Annotations(name, split, "official", str(path), records, pictures.sought)


def region_annotations(name: str, path: Path, pictures: PictureIndex) -> Annotations:
    """All photos of a ``regions.jsonl``, whatever their COCO split, with the captions and boxes that it holds."""
    records = []
    for entry in _lines(path):
        filename, key = Path(entry["image"]).name, entry["coco_id"]
        said = read_texts(entry.get("captions") or "", f"{path}: image {filename!r}: 'captions'")
        captions = [text.strip() for text in said if text.strip()]
        if not captions:
            raise XRetrieveError(f"{path}: image {filename!r} has no captions")
        records.append(
            ImageRecord(
                str(key),
                pictures.find([filename]),
                captions,
                [f"{key}#{k}" for k in range(len(captions))],
                {"split": entry.get("coco_split", "regions"), "filename": filename},
                _boxes(entry, path),
            )
        )
    return Annotations(name, "regions", "regions", str(path), records, pictures.sought)


def read_regions(path: Path) -> dict[str, list[Region]]:
    """Labelled boxes by COCO image id; an empty dict where the file is not there."""
    return {str(entry["coco_id"]): _boxes(entry, path) for entry in _lines(path)} if is_file(path) else {}


def _boxes(entry: dict[str, Any], path: Path) -> list[Region]:
    boxes = []
    said = entry.get("boxes") or []
    if not isinstance(said, list):
        raise XRetrieveError(f"{path}: image {entry['coco_id']}: 'boxes' must be a list, got {shown(said)}")
    for box in said:
        try:
            x, y, w, h = map(float, box["bbox"])
            boxes.append(Region((x, y, w, h), str(box["category"])))
        except (KeyError, TypeError, ValueError) as error:
            raise XRetrieveError(
                f"{path}: image {entry['coco_id']}: a box needs 'bbox' (4 numbers) and 'category', got {shown(box)}"
            ) from error
    return boxes


def _lines(path: Path) -> list[dict[str, Any]]:
    entries = []
    try:
        for number, entry in json_lines(path):
            if not isinstance(entry, dict) or not isinstance(entry.get("image"), str) or "coco_id" not in entry:
                raise XRetrieveError(f"{path}: line {number} is no region entry with image and coco_id")
            entries.append(entry)
    except BrokenJsonError as error:
        raise XRetrieveError(f"{path}: line {error.number} is no region entry with image and coco_id") from error
    return entries
