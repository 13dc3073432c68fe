"""What can be asked of the `scenes` generator."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass

from xretrieve.errors import XRetrieveError

VERSION = 1  # raised when the same options would give other pictures or words


@dataclass(frozen=True)
class SceneOptions:
    """Options of the generator; equal options give equal bytes."""

    train: int = 2000  # pictures of the train split
    val: int = 250
    test: int = 500
    seed: int = 0
    size: int = 96  # side of a picture in pixels
    min_objects: int = 2
    max_objects: int = 6
    families: float = 0.5  # share of pictures that have a near-duplicate in their split, 0 to 1
    turns: int = 10  # region captions per picture

    def __post_init__(self) -> None:
        for split in ("train", "val", "test"):
            if getattr(self, split) < 0:
                raise XRetrieveError(f"scenes: {split}={getattr(self, split)} pictures; write 0 or more")
        if not 48 <= self.size <= 1024:
            raise XRetrieveError(f"scenes: size={self.size} pixels; write 48 to 1024")
        if not 2 <= self.min_objects <= self.max_objects <= 8:
            raise XRetrieveError(
                f"scenes: min_objects={self.min_objects}, max_objects={self.max_objects}; "
                "write 2 <= min_objects <= max_objects <= 8"
            )
        if not 0 <= self.families <= 1:
            raise XRetrieveError(f"scenes: families={self.families} is a share; write 0 to 1")
        if self.turns < self.max_objects + 3:
            raise XRetrieveError(
                f"scenes: turns={self.turns} sentences cannot tell all near-duplicates of up to "
                f"{self.max_objects} objects apart; write turns={self.max_objects + 3} or more"
            )
        if self.turns > 20:
            raise XRetrieveError(f"scenes: turns={self.turns}; write at most 20")

    @property
    def key(self) -> str:
        """Ten hex digits that differ whenever the generated files would."""
        text = json.dumps({"version": VERSION, **asdict(self)}, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:10]
