"""The region phrases of Visual Genome in the shapes in which they are public, and in our own lines.

- ``rg_jsons/<image id>.json``, one region graph a file (Drill-down's download);
- ``region_graphs.json`` or ``region_descriptions.json``, one list of all images (visualgenome.org);
- ``vg_phrases.jsonl``, what `xretrieve data prepare visual_genome --extract` makes of these: read in seconds.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from xretrieve.data.annotations import NothingFoundError
from xretrieve.data.base import Region
from xretrieve.data.visual_genome.places import find, places
from xretrieve.errors import XRetrieveError
from xretrieve.utils.files import read_json
from xretrieve.utils.texts import BrokenJsonError, encoding_of, json_lines

LINES = "vg_phrases.jsonl"
PUBLIC = ("rg_jsons", "region_graphs.json", "region_descriptions.json")
Phrases = dict[int, Region]  # region id -> what is said of it, in the order of the turns
_CHUNK = 1 << 20
_GAP = re.compile(r"[\s,]*")


def clean(regions: Any, where: str) -> Phrases:
    """The phrases of one image as turns: lower-cased, exact repeats dropped, sorted by region id.

    Of two equal phrases the one that comes first in the file stays, whatever its id; white space counts.

    >>> raw = [{"region_id": 9, "x": 0, "y": 0, "width": 4, "height": 4, "phrase": "A dog"},
    ...        {"region_id": 3, "x": 1, "y": 1, "width": 2, "height": 2, "phrase": "a dog"},
    ...        {"region_id": 5, "x": 1, "y": 1, "width": 2, "height": 2, "phrase": "snow"}]
    >>> [(number, region.text) for number, region in clean(raw, "1.json").items()]
    [(5, 'snow'), (9, 'a dog')]
    """
    if not isinstance(regions, list):
        raise XRetrieveError(f"{where}: expected a list under 'regions'")
    kept: Phrases = {}
    said = set()
    for number, entry in enumerate(regions):
        try:
            phrase, key = entry["phrase"].lower(), int(entry["region_id"])
            box = tuple(float(entry[name]) for name in ("x", "y", "width", "height"))
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise XRetrieveError(
                f"{where}: region {number} needs region_id, x, y, width, height and phrase ({error!r})"
            ) from error
        if phrase not in said:
            said.add(phrase)
            kept[key] = Region(box, phrase)  # type: ignore[arg-type]
    return dict(sorted(kept.items()))


def read_phrases(folder: Path, ids: Sequence[int]) -> tuple[dict[int, Phrases], Path]:
    """The phrases of the images of a split, and where they were read; an image that is nowhere there is an error."""
    source = find_source(folder)
    wanted = set(ids)
    found: dict[int, Phrases] = {}
    for image, phrases in _entries(source, wanted):
        if image in found:
            raise XRetrieveError(f"{source}: image {image} is there twice")
        found[image] = phrases
        if len(found) == len(wanted):
            break
    lost = [image for image in ids if image not in found]
    if lost:
        raise XRetrieveError(
            f"{source}: no phrases of image {lost[0]} ({len(lost)} of the {len(ids)} listed images); "
            "is the download complete?"
        )
    return found, source


def find_source(folder: Path, names: Sequence[str] = (LINES, *PUBLIC)) -> Path:
    """The best of the files or folders that hold phrases."""
    for name in names:
        path = find(folder, name)
        if path is not None:
            return path
    raise NothingFoundError(
        f"visual_genome: no phrases; looked for {', '.join(names)} in {', '.join(map(str, places(folder)))}. "
        "`xretrieve data check visual_genome` says where to get them"
    )


def lines(folder: Path) -> Iterator[str]:
    """All images of the public files as lines of ours."""
    for image, phrases in _entries(find_source(folder, PUBLIC), None):
        rows = [[number, *region.box, region.text] for number, region in phrases.items()]
        yield json.dumps({"image_id": image, "regions": rows}, ensure_ascii=False) + "\n"


def _entries(source: Path, wanted: set[int] | None) -> Iterator[tuple[int, Phrases]]:
    if source.is_dir():
        yield from _from_folder(source, wanted)
    elif source.suffix == ".jsonl":
        yield from _from_lines(source, wanted)
    else:
        for number, entry in enumerate(json_items(source)):
            image = _image_id(entry, f"{source}: entry {number}")
            if wanted is None or image in wanted:
                yield image, clean(entry.get("regions"), f"{source}: image {image}")


def _from_folder(folder: Path, wanted: set[int] | None) -> Iterator[tuple[int, Phrases]]:
    if wanted is None:
        names: Iterable[int] = sorted(int(path.stem) for path in folder.glob("*.json") if path.stem.isdigit())
    else:
        names = (image for image in sorted(wanted) if (folder / f"{image}.json").is_file())
    for image in names:
        path = folder / f"{image}.json"
        entry = read_json(path)
        if not isinstance(entry, dict):
            raise XRetrieveError(f"{path}: expected an object with the key 'regions'")
        said = entry.get("image_id", entry.get("id", image))
        if said != image:
            raise XRetrieveError(f"{path}: it says that it is image {said}; rename it, or get the file again")
        yield image, clean(entry.get("regions"), str(path))


def _from_lines(path: Path, wanted: set[int] | None) -> Iterator[tuple[int, Phrases]]:
    number = 0
    try:
        for number, entry in json_lines(path):  # noqa: B007  named by the error below
            image = entry["image_id"]
            if wanted is None or image in wanted:
                yield image, {row[0]: Region(tuple(row[1:5]), row[5]) for row in entry["regions"]}
    except (BrokenJsonError, KeyError, TypeError, IndexError) as error:
        at = error.number if isinstance(error, BrokenJsonError) else number
        raise XRetrieveError(
            f"{path}: line {at} is broken; `xretrieve data prepare visual_genome --extract` writes the file"
        ) from error


def _image_id(entry: Any, where: str) -> int:
    image = entry.get("image_id", entry.get("id")) if isinstance(entry, dict) else None
    if not isinstance(image, int):
        raise XRetrieveError(f"{where}: expected an object with image_id (or id) and regions")
    return image


def json_items(path: Path) -> Iterator[Any]:
    """The objects of a JSON file that is one list, one at a time: the public files are larger than most memories."""
    decoder = json.JSONDecoder()
    with open(path, "rb") as handle:
        encoding = encoding_of(handle.read(4))
    with open(path, encoding=encoding) as handle:
        text, past = handle.read(_CHUNK), 0  # ``past``: characters before ``text``
        start = _GAP.match(text).end()  # type: ignore[union-attr]
        if text[start : start + 1] != "[":
            raise XRetrieveError(f"{path}: expected a JSON list of images")
        at = start + 1
        while True:
            at = _GAP.match(text, at).end()  # type: ignore[union-attr]
            if text[at : at + 1] == "]":
                return
            try:
                item, at = decoder.raw_decode(text, at)
            except json.JSONDecodeError as error:  # broken, or the rest of the item is not read yet
                more = handle.read(max(_CHUNK, len(text) - at))  # doubling: a long item is not parsed too often
                if not more:
                    raise XRetrieveError(
                        f"{path}: not valid JSON near character {past + error.pos} ({error.msg}; a download cut short?)"
                    ) from error
                past, text, at = past + at, text[at:] + more, 0
            else:
                yield item
