"""Reading a split: its list, its phrases, and its pictures or region features."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from xretrieve.data.annotations import Annotations, ImageRecord, canonical_split
from xretrieve.data.base import FeatureRow, RetrievalDataset
from xretrieve.data.picture_index import PictureIndex
from xretrieve.data.safe_pickle import read_vocabulary
from xretrieve.data.visual_genome.features import RAW, converted
from xretrieve.data.visual_genome.phrases import LINES, Phrases, lines, read_phrases
from xretrieve.data.visual_genome.places import SPLITS, base, find, places, read_ids, split_ids
from xretrieve.errors import XRetrieveError, unknown
from xretrieve.utils.files import write_json
from xretrieve.utils.paths import expand, is_folder

LAYOUTS = ("regions", "photos")
PHOTOS = ("VG_100K", "VG_100K_2")
VOCABULARY = "vg_vocab_14284.pkl"


def load(
    root: str | Path | None,
    split: str,
    layout: str | None = None,
    *,
    turns: int = 10,
    allow_short: bool = False,
    photos: str | None = None,
    features: str | None = None,
) -> RetrievalDataset:
    """The images of a split whose picture or features are here; arguments as in :func:`annotations`."""
    return annotations(
        root, split, layout, turns=turns, allow_short=allow_short, photos=photos, features=features
    ).dataset()


def annotations(
    root: str | Path | None,
    split: str,
    layout: str | None = None,
    *,
    turns: int = 10,
    allow_short: bool = False,
    photos: str | None = None,
    features: str | None = None,
) -> Annotations:
    """Read a split; captions and regions are the same phrases, in the order of the turns.

    Args:
        root: the data root; it has ``visual_genome/``, or is Drill-down's data folder itself.
        split: ``train``, ``val`` or ``test``.
        layout: ``regions`` (converted by `xretrieve data prepare visual_genome --features`) or ``photos``;
            None takes the regions where they are there.
        turns: every image of the published lists has at least so many distinct phrases.
        allow_short: take images with fewer phrases too.
        photos: a folder of ``<id>.jpg``, in place of ``VG_100K`` and ``VG_100K_2``.
        features: the folder that `--features --out` wrote.
    """
    if layout is not None and layout not in LAYOUTS:
        raise unknown("layout", layout, LAYOUTS)
    if turns < 1:
        raise XRetrieveError(f"visual_genome: turns={turns}; write 1 or more")
    folder, split = base(root), canonical_split(split)
    ids = split_ids(folder, split)
    phrases, source = read_phrases(folder, ids)
    notes = _short(ids, phrases, turns, allow_short, source) + _seen(folder, split, ids)
    rows = converted(Path(features) if features else folder / "regions", split) if layout != "photos" else {}
    if layout is None:
        layout = "regions" if rows else "photos"
    if layout == "regions":
        pictures: dict[int, Path | FeatureRow] = dict(rows)
        sought = [str((Path(features) if features else folder / "regions") / split)]
    else:
        index = _pictures(folder, photos)
        pictures = {image: path for image in ids if (path := index.find([f"{image}.jpg"])) is not None}
        sought = index.sought
    records = [
        ImageRecord(
            str(image),
            pictures.get(image),
            [region.text for region in phrases[image].values()],
            [f"{image}#{number}" for number in phrases[image]],
            {"split": split, "image_id": image},
            list(phrases[image].values()),
        )
        for image in ids
    ]
    hint = ""
    if find(folder, RAW) is not None and not rows:
        hint = "The region files are there: `xretrieve data prepare visual_genome --features` makes them readable."
    return Annotations("visual_genome", split, layout, str(source), records, sought, hint, notes)


def found(root: str | Path | None = None) -> list[str]:
    """What lies under the root, one phrase per kind of file."""
    try:
        folder = base(root)
    except XRetrieveError:
        return []
    said = []
    lists = [split for split in SPLITS if find(folder, f"vg_{split}.txt") is not None]
    if lists:
        said.append(f"split lists ({', '.join(lists)})")
    for name in (LINES, "rg_jsons", "region_graphs.json", "region_descriptions.json", RAW, *PHOTOS, VOCABULARY):
        if find(folder, name) is not None:
            said.append(name)
    made = [split for split in SPLITS if converted(folder / "regions", split)]
    if made:
        said.append(f"converted region features ({', '.join(made)})")
    return said if lists else []


def extract(root: str | Path | None, out: str | Path | None = None) -> list[Path]:
    """Write what reads slowly, or only with care, in a plain form; returns the files.

    ``vg_phrases.jsonl`` from the public JSON, and ``vg_vocab_14284.json`` from the pickled vocabulary if it is there.

    Args:
        out: a folder; default the dataset's own.
    """
    from xretrieve.data.prepare import writing

    folder = base(root)
    target = Path(out) if out else folder
    written = [target / LINES]
    content = lines(folder)
    first = next(content, None)
    if first is None:
        raise XRetrieveError(f"{folder}: the phrase files are there, but hold no image")
    with writing(written[0]) as part, open(part, "w", encoding="utf-8") as handle:
        handle.write(first)
        handle.writelines(content)
    pickled = find(folder, VOCABULARY)
    if pickled is not None:
        words = read_vocabulary(pickled)
        written.append(target / Path(VOCABULARY).with_suffix(".json").name)
        with writing(written[1]) as part:
            numbers = {word: i for i, word in enumerate(words)}
            named = {str(i): word for i, word in enumerate(words)}
            write_json(part, {"word2idx": numbers, "idx2word": named, "idx": len(words)})
    return written


def _pictures(folder: Path, photos: str | None) -> PictureIndex:
    if photos is None:
        return PictureIndex([place / name for name in PHOTOS for place in places(folder)])
    chosen = expand(photos)
    if not is_folder(chosen):
        raise XRetrieveError(f"photos={photos!r}: no such folder")
    return PictureIndex([chosen])


def _short(ids: Sequence[int], phrases: dict[int, Phrases], turns: int, allow: bool, source: Path) -> list[str]:
    """The counts of the filter; a listed image with too few phrases is an error unless it is allowed."""
    short = [image for image in ids if len(phrases[image]) < turns]
    if short and not allow:
        raise XRetrieveError(
            f"{source}: image {short[0]} has {len(phrases[short[0]])} distinct phrases, fewer than turns={turns} "
            f"({len(short)} such images in the list); give allow_short=true, or a smaller turns"
        )
    total = sum(len(phrases[image]) for image in ids)
    said = f"{len(ids):,} listed images with {total:,} distinct phrases, {total / len(ids):.1f} each"
    return [f"{said}; {len(short):,} have fewer than {turns}" if short else f"{said}, none with fewer than {turns}"]


def _seen(folder: Path, split: str, ids: Sequence[int]) -> list[str]:
    """A warning where test images are not among those that the region detector never saw."""
    path = find(folder, "raw_test.txt") if split == "test" else None
    seen = set(ids) - set(read_ids(path)) if path is not None else set()
    if not seen:
        return []
    return [f"{len(seen)} test images are not in {path}: the public region detector was trained on them"]
