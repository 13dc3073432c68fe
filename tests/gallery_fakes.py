"""A matcher that needs no weights: a picture is its mean colour, a text is the mean of the colours it names."""

from __future__ import annotations

import numpy as np
import torch
from PIL import Image as PILImage

from xretrieve.data.pictures import read_picture
from xretrieve.query import ImageText, MultiText, Text
from xretrieve.tokens import Prepared

COLOURS = {
    "red": (255, 0, 0),
    "green": (0, 255, 0),
    "blue": (0, 0, 255),
    "white": (255, 255, 255),
    "yellow": (255, 255, 0),
}


class FakeMatcher:
    def __init__(self, name="fake", fingerprint="f00d", source=""):
        self.name, self._fingerprint, self.source = name, fingerprint, source
        self.encoded = []
        self.stop_after = None  # raise KeyboardInterrupt once so many pictures were encoded

    def fingerprint(self):
        return self._fingerprint

    def encode_images(self, items, ids=None, batch_size=64, cache=None, progress=False):
        rows = []
        for item in items:
            if self.stop_after is not None and len(self.encoded) >= self.stop_after:
                raise KeyboardInterrupt
            rows.append(np.asarray(read_picture(item), np.float32).reshape(-1, 3).mean(0))
            self.encoded.append(item)
        return _prepared(rows)

    def encode_texts(self, texts, batch_size=256, cache=None):
        return _prepared([np.mean([COLOURS[w] for w in t.split() if w in COLOURS] or [(1, 1, 1)], 0) for t in texts])

    def encode_query(self, query):
        if isinstance(query, Text):
            return self.encode_texts([query.text])
        if isinstance(query, MultiText):
            return Prepared.from_pooled(self.encode_texts(list(query)).pooled.mean(0, keepdim=True))
        image = self.encode_images([query.image])
        if isinstance(query, ImageText):
            both = image.pooled + self.encode_texts([query.text]).pooled
            return Prepared.from_pooled(torch.nn.functional.normalize(both, dim=-1))
        return image


def _prepared(rows):
    return Prepared.from_pooled(
        torch.nn.functional.normalize(torch.tensor(np.array(rows), dtype=torch.float32), dim=-1)
    )


def paint(path, colour, size=(16, 12), **save):
    path.parent.mkdir(parents=True, exist_ok=True)
    PILImage.new("RGB", size, colour).save(path, **save)
    return path
