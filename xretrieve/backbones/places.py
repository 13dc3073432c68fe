"""Where the local tokens of a picture lie: a grid over the part that the model saw, or boxes."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

Fit = Literal["shortest", "longest", "squash"]
Size = tuple[int, int]  # width, height


@dataclass(frozen=True)
class Layout:
    """Places of one picture's local tokens.

    Args:
        grid: (rows, columns) of a grid whose cells run row by row; None where the tokens are boxes.
        area: what the grid covers, (left, top, right, bottom) in shares of the upright picture's width and height.
            A model that crops sees less than 0 to 1, one that pads sees more.
        boxes: (left, top, right, bottom) of every token as stored: pixels of the picture, or shares of it.

    >>> Layout((7, 7)).to_dict()
    {'grid': [7, 7], 'area': [0.0, 0.0, 1.0, 1.0], 'boxes': None}
    """

    grid: tuple[int, int] | None = None
    area: tuple[float, float, float, float] = (0.0, 0.0, 1.0, 1.0)
    boxes: tuple[tuple[float, float, float, float], ...] | None = None

    def to_dict(self) -> dict[str, Any]:
        """Lists and numbers."""
        lists = asdict(self) | {"area": [round(x, 4) for x in self.area]}
        lists["grid"] = list(self.grid) if self.grid else None
        lists["boxes"] = [[round(float(x), 4) for x in box] for box in self.boxes] if self.boxes else None
        return lists


def seen_area(picture: Size, target: Size, crop: Size, fit: Fit) -> tuple[float, float, float, float]:
    """What a model sees of a picture that is resized and then cropped, or padded, around its centre.

    Args:
        picture: its width and height.
        target: what it is resized to: its `shortest` or `longest` side fits the target's, or both (`squash`).
        crop: the size of the model's input.

    >>> seen_area((200, 100), (50, 50), (50, 50), "shortest")
    (0.25, 0.0, 0.75, 1.0)
    >>> seen_area((200, 100), (50, 50), (50, 50), "longest")
    (0.0, -0.5, 1.0, 1.5)
    """
    ratios = [wanted / side for wanted, side in zip(target, picture, strict=True)]
    if fit == "squash":
        resized = [float(side) for side in target]
    else:
        factor = max(ratios) if fit == "shortest" else min(ratios)
        resized = [side * factor for side in picture]
    left, top = ((side - kept) / 2 / side for side, kept in zip(resized, crop, strict=True))
    return left, top, 1 - left, 1 - top


def grid_shape(count: int, size: Size) -> tuple[int, int] | None:
    """(rows, columns) of ``count`` cells over an input of ``size``; None when they make no grid of its shape.

    >>> grid_shape(49, (224, 224)), grid_shape(8, (400, 200)), grid_shape(50, (224, 224))
    ((7, 7), (2, 4), None)
    """
    width, height = size
    rows = round((count * height / width) ** 0.5)
    return (rows, count // rows) if rows and rows * (count // rows) == count else None
