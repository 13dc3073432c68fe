"""The Karpathy layout: ``dataset_{flickr8k,flickr30k,coco}.json``, plain or inside a zip, beside a folder of photos.

Splits of Karpathy and Li, CVPR 2015 (arXiv 1412.2306). COCO's ``restval`` joins ``train``; a few copies of the
Flickr30K file say ``test2016`` for ``test``.
"""

from __future__ import annotations

import functools
import zipfile
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from xretrieve.data.annotations import SPLITS, Annotations, ImageRecord, canonical_split
from xretrieve.data.fields import read_name
from xretrieve.errors import XRetrieveError, unknown
from xretrieve.utils.paths import is_file, is_folder
from xretrieve.utils.texts import BrokenJsonError, decode, parse_json


def find_json(filename: str, folders: Sequence[Path]) -> str | None:
    """Where the annotation file is: a path, or ``archive.zip!member`` for one inside a zip; None when it is nowhere.

    Args:
        filename: for example ``dataset_flickr8k.json``.
        folders: looked through in order, first for the file itself, then for ``*caption_datasets*.zip``.
    """
    for folder in folders:
        if is_file(folder / filename):
            return str(folder / filename)
    for folder in folders:
        for archive in sorted(folder.glob("*caption_datasets*.zip")) if is_folder(folder) else []:
            for member in _members(archive):
                # macOS archives carry a shadow file ._name beside each real one
                if member.rsplit("/", 1)[-1] == filename and not member.startswith("__MACOSX"):
                    return f"{archive}!{member}"
    return None


def read_bytes(source: str) -> bytes:
    """The bytes of what :func:`find_json` found."""
    path, bang, member = source.partition(".zip!")
    try:
        if not bang:
            return Path(source).read_bytes()
        with zipfile.ZipFile(path + ".zip") as archive:
            return archive.read(member)
    except (zipfile.BadZipFile, zlib.error, OSError, EOFError, RuntimeError, KeyError) as error:
        if not bang:
            raise XRetrieveError(f"{source}: cannot be read ({error})") from error
        raise XRetrieveError(f"{path}.zip: {member} cannot be read ({error}); download the archive again") from error


def karpathy_annotations(
    name: str,
    split: str,
    source: str,
    locate: Callable[[dict[str, Any]], Path | None],
    looked_for: Sequence[str] = (),
) -> Annotations:
    """Read one split.

    Args:
        name: dataset name for messages and results.
        split: any public name of a split.
        source: what :func:`find_json` returned.
        locate: gives the picture of one image entry of the file (its dict), or None.
        looked_for: places that ``locate`` looks into, for messages.

    Raises:
        XRetrieveError: broken JSON or zip, missing keys, an unknown split name, an image without captions, an empty
            caption; each names the file and the image.
    """
    split = canonical_split(split)
    stat = Path(source.partition(".zip!")[0] + ".zip" if ".zip!" in source else source).stat()
    entries = _entries(source, stat.st_mtime_ns, stat.st_size)
    chosen = [(i, entry) for i, entry in enumerate(entries) if _split(entry, i, source) == split]
    records = [_record(entry, i, source, locate) for i, entry in chosen]
    if not records:
        raise XRetrieveError(f"{source}: no image of split {split!r} among its {len(entries):,} images")
    return Annotations(name, split, "karpathy", source, records, list(looked_for))


@functools.lru_cache(maxsize=1)  # train, val and test of one file are usually asked for in a row
def _entries(source: str, mtime_ns: int, size: int) -> list[dict[str, Any]]:
    try:
        content = parse_json(decode(read_bytes(source), source), source)
    except BrokenJsonError as error:
        raise XRetrieveError(f"{error} (a download cut short?)") from error
    images = content.get("images") if isinstance(content, dict) else None
    if not isinstance(images, list) or not all(isinstance(entry, dict) for entry in images):
        raise XRetrieveError(f"{source}: expected a JSON object whose key 'images' holds a list of image entries")
    return images


def _split(entry: dict[str, Any], i: int, source: str) -> str:
    split = _get(entry, "split", i, source)
    if not isinstance(split, str) or split not in SPLITS:
        raise XRetrieveError(f"{source}: image {i} ({entry.get('filename')!r}): {unknown('split', str(split), SPLITS)}")
    return SPLITS[split]


def _record(entry: dict[str, Any], i: int, source: str, locate: Callable[[dict[str, Any]], Path | None]) -> ImageRecord:
    filename = read_name(_get(entry, "filename", i, source), f"{source}: image {i}: 'filename'")
    sentences = _get(entry, "sentences", i, source)
    sentences = [sentences] if isinstance(sentences, str) else sentences
    if not isinstance(sentences, list) or not sentences:
        raise XRetrieveError(f"{source}: image {filename!r} has no sentences; every image needs a caption")
    captions, ids = [], []
    for k, sentence in enumerate(sentences):
        text = sentence.get("raw") if isinstance(sentence, dict) else sentence
        if not isinstance(text, str) or not text.strip():
            raise XRetrieveError(f"{source}: image {filename!r}: sentence {k} has no text under 'raw'")
        captions.append(text.strip())
        own = sentence.get("sentid") if isinstance(sentence, dict) else None
        ids.append(f"{filename}#{k}" if own is None else str(own))
    metadata = {"split": SPLITS[entry["split"]], "filename": filename}
    if "cocoid" in entry:
        metadata["cocoid"] = entry["cocoid"]
    return ImageRecord(filename, locate(entry), captions, ids, metadata, sought=filename)


def _get(entry: dict[str, Any], key: str, i: int, source: str) -> Any:
    if key not in entry:
        raise XRetrieveError(f"{source}: image {i} ({entry.get('filename', 'unnamed')!r}) has no key {key!r}")
    return entry[key]


def _members(archive: Path) -> list[str]:
    try:
        with zipfile.ZipFile(archive) as opened:
            return opened.namelist()
    except (zipfile.BadZipFile, OSError) as error:
        raise XRetrieveError(f"{archive}: not a readable zip ({error}); download it again") from error
