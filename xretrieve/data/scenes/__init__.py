"""The built-in `scenes` pictures: drawn objects with captions, region captions and triplets; no download, no licence."""

from xretrieve.data.scenes.load import load
from xretrieve.data.scenes.options import SceneOptions
from xretrieve.data.scenes.sheet import contact_sheet

__all__ = ["SceneOptions", "contact_sheet", "load"]
