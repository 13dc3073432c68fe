"""What all pixel backbones share: pictures are read and transformed in a small thread pool."""

from __future__ import annotations

import os
from abc import abstractmethod
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from xretrieve.backbones.base import Backbone
from xretrieve.backbones.places import Fit, Layout, Size, grid_shape, seen_area
from xretrieve.data.base import FeatureRow
from xretrieve.data.pictures import picture_size, read_picture
from xretrieve.errors import XRetrieveError

_THREADS = max(1, min(8, os.cpu_count() or 1))
THIN = 16  # times longer than wide: of a longer picture the middle is taken before it is enlarged


class ImageBackbone(Backbone):
    """A backbone that starts from pixels. Subclasses set ``cells``, the number of local tokens of a picture."""

    cells: int

    @abstractmethod
    def transform(self, picture: Image.Image) -> Tensor:
        """One RGB picture to a (3,H,W) tensor; all pictures get the same size."""

    def fit(self) -> tuple[Size, Size, Fit] | None:
        """How a picture becomes the input: what it is resized to, the size of the central crop, and which side fits
        (:func:`xretrieve.backbones.places.seen_area`). None: not known."""
        return None

    def example(self, items: int, tokens: int) -> Tensor:
        """Pictures of noise; how many tokens they have is the backbone's to say."""
        noise = np.random.default_rng(0)
        return self.prepare(
            [Image.fromarray(noise.integers(0, 256, (64, 64, 3), dtype=np.uint8)) for _ in range(items)]
        )

    def layout(self, items: Sequence[Any]) -> list[Layout | None]:
        """The grid of cells or patches over what is seen of each picture."""
        how = self.fit()
        grid = grid_shape(self.cells, how[1]) if how is not None else None
        if how is None or grid is None:
            return [None] * len(items)
        return [Layout(grid, seen_area(picture_size(item), *how)) for item in items]

    def prepare(self, items: Sequence[Any]) -> Tensor:
        """Paths or PIL images to one (N,3,H,W) tensor. A broken picture is an error that names the file."""
        # A pool per call: threads do not survive a fork, and making one costs far less than decoding a batch.
        with ThreadPoolExecutor(_THREADS) as pool:
            return torch.stack(list(pool.map(self._read, items)))

    def middle(self, picture: Image.Image) -> Image.Image:
        """A picture without what the central crop throws away, where that is nearly all of it.

        A line of 1 x 20,000 pixels would be enlarged to 224 x 4,480,000 before its middle is cut out. The middle is at
        the same place and scale as without this; pictures up to 16 times longer than wide are left as they are.
        """
        how = self.fit()
        kind = "shortest" if how is None else how[2]
        short, long = min(picture.size), max(picture.size)
        if kind == "squash" or long <= THIN * short or (kind == "longest" and how and short * min(how[0]) >= long):
            return picture
        kept = THIN * short + (long - THIN * short) % 2  # the same number of pixels goes on both sides
        start = (long - kept) // 2
        wide = picture.width > picture.height
        return picture.crop((start, 0, start + kept, short) if wide else (0, start, short, start + kept))

    def _read(self, item: Any) -> Tensor:
        if isinstance(item, FeatureRow):
            raise XRetrieveError(
                f"{self.name} reads pictures, but {item.path} holds region features; use the regions backbone"
            )
        picture = self.middle(read_picture(cast("str | Path | Image.Image", item)))
        try:
            return self.transform(picture)
        except Exception as error:  # one odd picture must not end the work on the others
            named = str(item) if isinstance(item, (str, Path)) else "the picture that was given"
            said = " ".join(str(error).split())[:160] or type(error).__name__
            raise XRetrieveError(f"{named}: {self.name} cannot take this picture ({said})") from error
