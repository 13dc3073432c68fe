"""The built-in `scenes` pictures: drawn objects with captions, region captions and triplets; nothing to download."""

from xretrieve.data.scenes.load import found, load
from xretrieve.data.scenes.options import SceneOptions
from xretrieve.data.scenes.sheet import contact_sheet

__all__ = ["SceneOptions", "contact_sheet", "found", "load"]
