"""The gallery: pictures' vectors, tokens and metadata in one folder on disk, and how they are searched."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from xretrieve.gallery.gallery import Gallery

__all__ = ["Gallery"]


def __getattr__(name: str) -> Any:
    if name == "Gallery":  # its parts are imported without it
        from xretrieve.gallery.gallery import Gallery

        return Gallery
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
