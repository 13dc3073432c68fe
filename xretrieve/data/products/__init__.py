"""`products`: composed queries made from a catalogue with titles and attributes, by an exact rule."""

from xretrieve.data.products.load import annotations, found, load

__all__ = ["annotations", "found", "load"]
