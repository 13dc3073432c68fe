"""Work worth doing once before training: the json out of its zip, a vocabulary, lean feature files, warm features."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from xretrieve.data import datasets
from xretrieve.data.annotations import NothingFoundError
from xretrieve.data.base import FeatureRow
from xretrieve.data.classic import Classic
from xretrieve.data.karpathy import find_json, read_bytes
from xretrieve.data.precomp import copies, feature_header, read_lines
from xretrieve.errors import XRetrieveError
from xretrieve.utils.arrays import load_npy
from xretrieve.utils.files import atomic_path, data_root

BLOCK_BYTES = 64 << 20  # read this much of a feature file at a time


def extract(name: str, root: str | Path | None, out: str | Path | None = None) -> list[Path]:
    """Write the dataset's json out of what the download keeps it in (a zip, large lists, a pickle); the files."""
    own = datasets.hook(name, "extract")
    return own(root, out) if own is not None else [extract_json(datasets.classic(name), root, out)]


def convert(
    name: str,
    root: str | Path | None,
    out: str | Path | None = None,
    *,
    replace: bool = False,
    splits: Sequence[str] = (),
    half: bool = False,
    progress: Callable[[Iterable[Any]], Iterable[Any]] = iter,
) -> Any:
    """Convert a dataset's region features into memory-mapped files; what was written.

    Args:
        out: where; default beside the originals where these are of another kind.
        replace: overwrite the originals where they are of the same kind (``*_ims.npy``).
        splits: of datasets with one file per image; default all.
        half: float16, where the dataset can.
    """
    own = datasets.hook(name, "convert")
    if own is not None:
        return own(root, out, splits or ("train", "val", "test"), half, progress)
    classic = datasets.classic(name)
    if half:
        raise XRetrieveError(f"--half is for datasets with one region file per image (visual_genome), not for {name}")
    if not replace and not out:
        raise XRetrieveError("--features: give --out ROOT for new files, or --replace to overwrite the old ones")
    return [str(path) for path in convert_folder(classic, root, out)]


def extract_json(classic: Classic, root: str | Path | None, out: str | Path | None = None) -> Path:
    """Write the dataset's json out of ``*caption_datasets*.zip``; returns the path, also when it was there already."""
    folder = data_root(root)
    source = find_json(classic.json_name, classic.places(folder))
    if source is None:
        raise XRetrieveError(
            f"no {classic.json_name} and no *caption_datasets*.zip that holds it in "
            f"{', '.join(str(p) for p in classic.places(folder))}"
        )
    if ".zip!" not in source:
        return Path(source)
    target = Path(out) if out else folder / classic.folders[0] / classic.json_name
    if target.is_dir():
        target = target / classic.json_name
    content = read_bytes(source)
    with writing(target) as part:
        part.write_bytes(content)
    return target


def build_vocabulary(
    name: str,
    root: str | Path | None = None,
    out: str | Path | None = None,
    min_count: int = 4,
    layout: str | None = None,
    **options: Any,
) -> tuple[Path, int]:
    """Build a vocabulary in the published layout from the train and val captions (never test); (path, words).

    Args:
        out: the file; default ``vocab/{name}_vocab.json`` under the data root.
        min_count: words seen less often become the unknown word.
    """
    from xretrieve.backbones.vocabulary import Vocabulary

    texts = datasets.captions(name, root, "train", layout, **options)
    try:
        texts = texts + datasets.captions(name, root, "val", layout, **options)
    except NothingFoundError:
        pass  # a training split alone is enough
    vocabulary = Vocabulary.build(texts, min_count=min_count)
    target = Path(out) if out else data_root(root) / "vocab" / f"{name}_vocab.json"
    with writing(target) as part:
        vocabulary.save(part)
    return target, len(vocabulary)


def convert_features(folder: Path, stem: str, target: Path, lines_per_image: int = 5) -> bool:
    """Write ``{stem}_ims.npy`` as float32 with every image stored once; False when it is so already.

    Rows are streamed in blocks, so memory stays small for files of any size; ``target`` may be the file itself.
    """
    source = folder / f"{stem}_ims.npy"
    header = feature_header(source)
    captions = len(read_lines(folder / f"{stem}_caps.txt"))
    stride = copies(source, lines_per_image) if header.shape[0] == captions else 1
    if header.shape[0] != captions and header.shape[0] * lines_per_image != captions:
        raise XRetrieveError(
            f"{source} has {header.shape[0]:,} rows and {stem}_caps.txt {captions:,} captions; "
            f"neither one row per image nor {lines_per_image}"
        )
    if stride == 1 and header.dtype == np.float32 and target == source:
        return False
    rows = load_npy(source, mmap_mode="r")[::stride]
    step = max(1, BLOCK_BYTES // max(rows[0].nbytes, 1))
    with writing(target) as part:
        converted = np.lib.format.open_memmap(part, mode="w+", dtype=np.float32, shape=rows.shape)
        for start in range(0, len(rows), step):
            converted[start : start + step] = rows[start : start + step]
        converted.flush()
        del converted
    return True


def convert_folder(classic: Classic, root: str | Path | None, out: str | Path | None = None) -> list[Path]:
    """Convert every feature file of the dataset's precomp folder; returns those that were written.

    Args:
        out: another data root, which gets the folder with its captions and ids; None replaces the files in place.
    """
    folders = [f for f in classic.precomp_folders(data_root(root)) if f.is_dir()]
    if not folders:
        raise XRetrieveError(f"no {' or '.join(classic.precomp)} folder under {data_root(root)}")
    folder = folders[0]
    sources = sorted(folder.glob("*_ims.npy"))
    if not sources:
        raise XRetrieveError(f"{folder}: no *_ims.npy to convert")
    target = Path(out) / folder.name if out else folder
    written = []
    for source in sources:
        stem = source.name.removesuffix("_ims.npy")
        if convert_features(folder, stem, target / source.name):
            written.append(target / source.name)
        for extra in (f"{stem}_caps.txt", f"{stem}_ids.txt", "id_mapping.json") if target != folder else ():
            if (folder / extra).is_file():
                shutil.copyfile(folder / extra, target / extra)
    return written


def warm_features(
    name: str,
    root: str | Path | None,
    splits: Iterable[str],
    backbone: str,
    weights: str | None = None,
    progress: bool = False,
    backbone_options: dict[str, Any] | None = None,
    **options: Any,
) -> dict[str, dict[str, Any]]:
    """Encode pictures (or captions, for a text backbone) into the feature cache; counts and failures by split."""
    from xretrieve.backbones import create_backbone
    from xretrieve.data.cache import FeatureCache

    made = create_backbone(backbone, weights=weights, frozen=True, **(backbone_options or {}))
    done: dict[str, dict[str, Any]] = {}
    for split in splits:
        data = datasets.load(name, root, split, **options)
        if made.modality == "image" and isinstance(data.images[0], FeatureRow):
            raise XRetrieveError(f"{name}/{split} has region features; there are no pictures to encode")
        items = list(data.images) if made.modality == "image" else data.captions
        ids = data.image_ids if made.modality == "image" else data.caption_ids
        cached = FeatureCache().encode(made, items, ids=ids, progress=progress, on_error="skip")
        done[data.split] = {"encoded": len(cached), "failed": [f"{i}: {why}" for i, why in cached.failed]}
    return done


@contextlib.contextmanager
def writing(path: Path) -> Iterator[Path]:
    """:func:`atomic_path`, where a read-only folder or a full disk is one error that says to choose another place."""
    refuse_read_only(path)
    try:
        with atomic_path(path) as part:
            yield part
    except OSError as error:
        why = error.strerror or error
        raise XRetrieveError(f"cannot write {path} ({why}); choose another place with --out") from error


def refuse_read_only(path: Path) -> None:
    """An error where ``path`` would be written into a folder without any write permission.

    Such a folder is left alone even by an administrator, whom the system would not stop: data shared by several users
    is protected so, and containers usually run as root.
    """
    folder = next(parent for parent in path.absolute().parents if parent.exists())
    if not folder.stat().st_mode & 0o222:
        raise XRetrieveError(f"cannot write {path}: {folder} is read-only; choose another place with --out")
