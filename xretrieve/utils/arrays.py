"""Reading ``.npy`` files: numpy's own reader passes on whatever a damaged header makes of Python's parser."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import numpy as np

from xretrieve.errors import first_line


def load_npy(path: str | Path, mmap_mode: Literal["r", "c"] | None = None) -> np.ndarray[Any, Any]:
    """The array in a ``.npy`` file; no pickle is read.

    Raises:
        OSError: the file cannot be read.
        ValueError: it is no such file, or cut short; the message is one line.
    """
    try:
        array = np.load(path, mmap_mode=mmap_mode, allow_pickle=False)
    except OSError:
        raise
    except Exception as error:
        raise ValueError(first_line(error) or type(error).__name__) from error
    if not isinstance(array, np.ndarray):
        raise ValueError("an archive of arrays, not one array")
    return array
