"""The captioned photo sets of image-text matching differ in names only: one description, one way to read them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from xretrieve.data.annotations import SPLITS, Annotations, NothingFoundError, canonical_split
from xretrieve.data.base import RetrievalDataset
from xretrieve.data.karpathy import find_json, karpathy_annotations
from xretrieve.data.official import OFFICIAL_SPLITS, official_annotations, region_annotations
from xretrieve.data.picture_index import PictureIndex, coco_names
from xretrieve.data.precomp import find_stem, precomp_annotations
from xretrieve.errors import XRetrieveError, unknown
from xretrieve.utils.files import data_root
from xretrieve.utils.paths import expand, is_file, is_folder

STEMS: Mapping[str, tuple[str, ...]] = {"train": ("train",), "val": ("dev", "val", "devall"), "test": ("test",)}
COCO_STEMS: Mapping[str, tuple[str, ...]] = {**STEMS, "val": ("dev", "devall", "val"), "test": ("testall", "test")}


@dataclass(frozen=True)
class Classic:
    """Where one dataset's files are, in every public layout.

    Args:
        name: ``flickr8k``, ``flickr30k`` or ``mscoco``.
        json_name: the Karpathy file.
        folders: folder names under the data root.
        pictures: folders of photos, relative to those folders (and to the root).
        precomp: folder names of the region-feature layout under the data root.
        stems: caption file name parts by split.
        coco: also read COCO's official files, and match photos by their 2014 and 2017 names.
        borrow: other dataset whose photos may stand in: name -> (folder under the root, key of the json entry).
    """

    name: str
    json_name: str
    folders: tuple[str, ...]
    pictures: tuple[str, ...]
    precomp: tuple[str, ...]
    stems: Mapping[str, tuple[str, ...]] = field(default_factory=lambda: STEMS)
    coco: bool = False
    borrow: Mapping[str, tuple[str, str]] = field(default_factory=dict)

    @property
    def layouts(self) -> tuple[str, ...]:
        """Layouts that this dataset knows, in order of preference."""
        return ("karpathy", "precomp", *(("official", "regions") if self.coco else ()))

    def load(
        self,
        root: str | Path | None,
        split: str,
        layout: str | None = None,
        *,
        captions_per_image: int | None = None,
        dev_limit: int | None = None,
        photos: str | None = None,
        train: int | None = None,
        val: int | None = None,
        test: int | None = None,
    ) -> RetrievalDataset:
        """The images of a split that are on disk, with their captions; arguments as in :meth:`annotations`.

        Raises:
            XRetrieveError: no captions or no pictures, with what was looked for; broken files.
        """
        options: dict[str, Any] = {"captions_per_image": captions_per_image, "dev_limit": dev_limit, "photos": photos}
        return self.annotations(root, split, layout, **options, train=train, val=val, test=test).dataset()

    def annotations(
        self,
        root: str | Path | None,
        split: str,
        layout: str | None = None,
        *,
        captions_per_image: int | None = None,
        dev_limit: int | None = None,
        photos: str | None = None,
        train: int | None = None,
        val: int | None = None,
        test: int | None = None,
    ) -> Annotations:
        """Read a split; with ``layout=None`` the first layout that has captions and pictures, else captions.

        Args:
            root: the data root; None takes ``XRETRIEVE_DATA`` or ``./data``.
            split: ``train``, ``val``, ``test`` or a public alias; for COCO's official files e.g. ``val2017``.
            layout: one of :attr:`layouts`.
            captions_per_image: keep the first so many captions of each image (COCO has images with 6 or 7).
            dev_limit: cut the validation split after so many captions, as published loaders do (5,000).
            photos: a folder with the photos, or a dataset that shares them (flickr30k: ``flickr8k``).
            train, val, test: keep the first so many images of that split, for quick tries; no protocol that fixes the
                size of its gallery takes a part of it.
        """
        folder = data_root(root)
        if not is_folder(folder):
            raise XRetrieveError(f"no data root {str(folder)!r} (no such folder); give --root, root= or XRETRIEVE_DATA")
        if layout is not None and layout not in self.layouts:
            raise unknown("layout", layout, self.layouts)
        if photos is not None and layout == "precomp":
            raise XRetrieveError("photos= does not go with layout 'precomp', which has features instead of photos")
        official = self.coco and (split in OFFICIAL_SPLITS or split == "regions" or layout in ("official", "regions"))
        if not official and split not in SPLITS:
            raise unknown("split", str(split), [*SPLITS, *((*OFFICIAL_SPLITS, "regions") if self.coco else ())])
        found = self._official(folder, split, layout, photos) if official else {}
        found = found or ({} if official else self._classic(folder, split, layout, photos))
        if not found:
            raise NothingFoundError(
                f"{self.name}/{split}: no captions found; looked for {self._sought(folder, split, official)}"
            )
        usable = [a for a in found.values() if len(a.missing) < len(a.images)]
        chosen = usable[0] if usable else next(iter(found.values()))
        if not usable:
            chosen = replace(chosen, looked_for=[place for a in found.values() for place in a.looked_for])
        size = {"train": train, "val": val, "test": test}.get(chosen.split)
        return chosen.trim(captions_per_image).limit(dev_limit).first(size)

    def _classic(self, root: Path, split: str, layout: str | None, photos: str | None) -> dict[str, Annotations]:
        found: dict[str, Annotations] = {}
        source = find_json(self.json_name, self.places(root)) if layout in (None, "karpathy") else None
        if source:
            found["karpathy"] = self._karpathy(root, split, source, photos)
            if len(found["karpathy"].missing) < len(found["karpathy"].images):
                return found  # captions and pictures: no need to open the other layout
        if layout in (None, "precomp") and photos is None:
            stems = self._stems(split)
            for folder in self.precomp_folders(root):
                if find_stem(folder, stems):
                    found["precomp"] = precomp_annotations(self.name, split, folder, stems)
                    break
        return found

    def _karpathy(self, root: Path, split: str, source: str, photos: str | None) -> Annotations:
        key = "filename"
        if photos is not None and photos in self.borrow:
            other, key = self.borrow[photos]
            index = PictureIndex([root / other / "images"])
        else:
            index = self._pictures(root, photos)

        def locate(entry: dict[str, Any]) -> Path | None:
            filename = entry.get(key)
            if filename is None or not str(filename):
                return None
            return index.find(coco_names(str(filename)) if self.coco else [str(filename)])

        read = karpathy_annotations(self.name, split, source, locate, index.sought)
        for lender, (other, _) in self.borrow.items():
            if photos is None and len(read.missing) == len(read.images) and is_folder(root / other / "images"):
                read.hint = f"Some of them are also {lender} photos: photos={lender!r} evaluates on those."
        return read

    def _official(self, root: Path, split: str, layout: str | None, photos: str | None) -> dict[str, Annotations]:
        for folder in self.places(root):
            index = self._pictures(root, photos)
            if "regions" in (split, layout):
                if is_file(folder / "regions.jsonl"):
                    return {"regions": region_annotations(self.name, folder / "regions.jsonl", index)}
                continue
            named = split if split in OFFICIAL_SPLITS else f"{canonical_split(split)}2017"
            for path in (folder / f"captions_{named}.json", folder / "annotations" / f"captions_{named}.json"):
                if is_file(path):
                    return {"official": official_annotations(self.name, named, path, index)}
        return {}

    def found(self, root: str | Path | None) -> list[str]:
        """What lies under the root, one phrase per layout; nothing is opened, so broken files are not noticed here."""
        folder = data_root(root)
        said = []
        source = find_json(self.json_name, self.places(folder)) if is_folder(folder) else None
        photos = [p for place in self.places(folder) for sub in self.pictures if is_folder(p := place / sub)]
        if source:
            pictures = f"photos in {photos[0].relative_to(folder)}" if photos else "no photos"
            said.append(f"karpathy captions, {pictures}")
        for precomp in self.precomp_folders(folder):
            caps = [p.name.removesuffix("_caps.txt") for p in sorted(precomp.glob("*_caps.txt"))]
            ims = [p.name.removesuffix("_ims.npy") for p in sorted(precomp.glob("*_ims.npy"))]
            if caps:
                features = f"features ({', '.join(ims)})" if ims else "no features"
                said.append(f"precomp captions ({', '.join(caps)}), {features}")
        for place in self.places(folder) if self.coco else ():
            patterns = ("captions_*20*.json", "annotations/captions_*20*.json", "regions.jsonl")
            said += [str(path.relative_to(folder)) for pattern in patterns for path in sorted(place.glob(pattern))]
        return said

    def places(self, root: Path) -> list[Path]:
        """Folders that may hold the annotation file: the dataset's own, then the root."""
        return [*(root / name for name in self.folders), root]

    def precomp_folders(self, root: Path) -> list[Path]:
        """Folders that may hold the precomp layout; the root itself when it is one."""
        return [*(root / name for name in self.precomp), *([root] if root.name in self.precomp else [])]

    def _pictures(self, root: Path, photos: str | None) -> PictureIndex:
        if photos is not None:
            folder = expand(photos)
            if not is_folder(folder):
                known = f" (or one of: {', '.join(self.borrow)})" if self.borrow else ""
                raise XRetrieveError(f"photos={photos!r}: no such folder{known}")
            return PictureIndex([folder])
        return PictureIndex([place / sub for place in self.places(root) for sub in self.pictures])

    def _stems(self, split: str) -> list[str]:
        """Names to try: exactly the asked one first (``devall`` is not ``dev``), then those of its canonical split."""
        usual = self.stems[canonical_split(split)]
        first = [split] if split in ("dev", "devall", "testall") else []
        return list(dict.fromkeys([*first, *usual]))

    def _sought(self, root: Path, split: str, official: bool) -> str:
        places = ", ".join(str(p) for p in self.places(root))
        if official:
            file = "regions.jsonl" if split == "regions" else f"captions_{split}.json"
            return f"{file} in {places}"
        stems = " or ".join(f"{stem}_caps.txt" for stem in self._stems(split))
        return (
            f"{self.json_name} (or a *caption_datasets*.zip that holds it) in {places}, and {stems} in "
            f"{', '.join(str(f) for f in self.precomp_folders(root))}. "
            f"`xretrieve data check {self.name}` says where to get it"
        )
