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


def tiny_matcher(head="sgr", seed=0, image=None, **options):
    """A real, untrained matcher: a 3 x 3 grid over a tiny CNN (or the given image backbone), a BiGRU, any head.

    The head's weights are enlarged, so that scores differ by more than rounding.
    """
    import xretrieve as xr
    from xretrieve.matcher import Matcher, build_head

    torch.manual_seed(seed)
    image = image or xr.create_backbone(
        "timm:test_resnet", modality="image", size=96, crop=1.0, pretrained=False, frozen=True
    )
    captions = ["a red dog in the snow", "a blue sledge", "two green birds near yellow water"]
    text = xr.create_backbone("words", captions=captions, min_count=1, word_dim=8, dim=12)
    sizes = {"sim_dim": 6} if head in ("sgr", "saf", "tshsr", "hmrn") else {}
    built = build_head(head, image, text, dim=16, **sizes, **options)
    with torch.no_grad():
        for parameter in built.parameters():
            parameter.add_(0.4 * torch.randn_like(parameter))
    return Matcher(image, text, built, name=f"tiny-{head}")


def noise_photos(root, count, seed=0):
    """``count`` pictures of noise of changing sizes, 0.png, 1.png, ..."""
    rng = np.random.default_rng(seed)
    root.mkdir(parents=True, exist_ok=True)
    for i in range(count):
        coarse = rng.integers(0, 256, (4, 5 + i % 3, 3), dtype=np.uint8)
        PILImage.fromarray(coarse).resize((90 + 7 * i % 40, 70)).save(root / f"{i}.png")
    return root
