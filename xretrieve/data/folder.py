"""The pictures of a folder, as people keep them: nested, mixed formats, names in any script."""

from __future__ import annotations

import os
from pathlib import Path

from xretrieve.errors import XRetrieveError
from xretrieve.utils.paths import is_folder, is_there

SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff"})
IF_PILLOW_CAN = frozenset({".heic", ".heif", ".avif"})


def picture_suffixes() -> frozenset[str]:
    """Lower-case suffixes that are taken as pictures; HEIC and AVIF only where the installed Pillow reads them."""
    from PIL import Image

    import xretrieve.data.pictures  # noqa: F401  teaches Pillow to read HEIC where it can be taught

    return SUFFIXES | (IF_PILLOW_CAN & set(Image.registered_extensions()))


def find_pictures(folder: str | Path) -> list[Path]:
    """All picture files under ``folder``, sorted by their path relative to it.

    Suffixes are compared without case. Hidden files and folders (a leading dot) are skipped, links to folders are not
    followed. A folder that is not there or holds no picture is an error.
    """
    folder = Path(folder)
    if not is_folder(folder):
        raise XRetrieveError(
            f"no folder {folder}" + (" (it is a file; give a list of paths)" if is_there(folder) else "")
        )
    suffixes = picture_suffixes()
    found = []
    for here, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        found += [
            Path(here, name) for name in files if not name.startswith(".") and Path(name).suffix.lower() in suffixes
        ]
    if not found:
        raise XRetrieveError(f"{folder} holds no pictures (looked for {', '.join(sorted(suffixes))} in it and below)")
    return sorted(found, key=lambda path: path.relative_to(folder).as_posix())
