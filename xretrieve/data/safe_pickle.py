"""Reading the two kinds of pickle that public downloads of Visual Genome hold, without running anything in them.

A pickle is a program that may call any function it names. These readers resolve only the names written below; any other
is refused before anything is called. Protocols 0 to 5 and files of Python 2 can be read.
"""

from __future__ import annotations

import io
import pickle
import struct
from pathlib import Path
from typing import Any

import numpy as np

from xretrieve.errors import XRetrieveError

# What a damaged pickle raises, depending on where the damage is.
_BROKEN = (
    pickle.UnpicklingError,
    EOFError,
    ValueError,
    TypeError,
    KeyError,
    IndexError,
    AttributeError,
    OSError,
    MemoryError,
    OverflowError,
    struct.error,
    AssertionError,
)


class _RefusedError(Exception):
    """The pickle names something that it must not have."""


class _Vocabulary:
    """An empty holder; unpickling fills its ``__dict__``."""


def _reconstruct(kind: Any, shape: Any, code: Any) -> np.ndarray[Any, Any]:
    """The empty array whose content follows; numpy itself would take any shape here, and its memory."""
    if kind is not np.ndarray or tuple(shape) != (0,):
        raise _RefusedError(f"an array that starts with the shape {shape!r}")
    return np.ndarray.__new__(np.ndarray, (0,), "b")


def _frombuffer(buffer: Any, dtype: Any, shape: Any, order: Any, axis_order: Any = None) -> np.ndarray[Any, Any]:
    """The content of an array in protocol 5."""
    if np.dtype(dtype).hasobject:
        raise _RefusedError("an array of objects")
    array = np.frombuffer(buffer, dtype=dtype)
    if order == "K" and axis_order is not None:  # numpy 2.4: any order of the axes
        return array.reshape(shape).transpose(axis_order)
    return array.reshape(shape, order=order)


def _encode(text: Any, encoding: Any = "latin1", errors: Any = "strict") -> bytes:
    """How protocols 0 to 2 write bytes."""
    if encoding not in ("latin1", "latin-1"):
        raise _RefusedError(f"the encoding {encoding!r}")
    return str(text).encode("latin1")


ARRAYS = {
    **{(f"numpy.{core}.multiarray", "_reconstruct"): _reconstruct for core in ("core", "_core")},
    **{(f"numpy.{core}.numeric", "_frombuffer"): _frombuffer for core in ("core", "_core")},
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): np.dtype,
    ("_codecs", "encode"): _encode,
}
VOCABULARY = {("__main__", "Vocabulary"): _Vocabulary}


class _Reader(pickle.Unpickler):
    def __init__(self, content: bytes, allowed: dict[tuple[str, str], Any]) -> None:
        super().__init__(io.BytesIO(content), encoding="latin1")  # the text of Python 2 files, raw array bytes included
        self.allowed = allowed

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in self.allowed:
            raise _RefusedError(f"{module}.{name}")
        return self.allowed[module, name]


def read_pickle(path: str | Path, allowed: dict[tuple[str, str], Any], what: str) -> Any:
    """The object in a pickle that names nothing but ``allowed``.

    Raises:
        XRetrieveError: the file is not there, is cut short or damaged, or asks for something else; nothing has run.
    """
    path = Path(path)
    try:
        content = path.read_bytes()
    except OSError as error:
        raise XRetrieveError(f"{path}: cannot be read ({error.strerror})") from error
    try:
        return _Reader(content, allowed).load()
    except _RefusedError as error:
        raise XRetrieveError(
            f"{path}: not {what}: it asks for {error}, which is refused; nothing in it was run. "
            "Do not open it with other tools, get it again from its source"
        ) from None
    except _BROKEN as error:
        raise XRetrieveError(
            f"{path}: not {what}, or damaged ({type(error).__name__}: {error}); get it again"
        ) from error


def read_arrays(path: str | Path) -> dict[str, np.ndarray[Any, Any]]:
    """A pickled dict of arrays of numbers (`region_36_final/<id>.npy`)."""
    found = read_pickle(path, ARRAYS, "a pickled dict of arrays")
    if not isinstance(found, dict):
        raise XRetrieveError(f"{path}: expected a pickled dict of arrays, found {type(found).__name__}")
    arrays = {}
    for name, value in found.items():
        if not isinstance(name, str) or not isinstance(value, np.ndarray) or value.dtype.kind not in "fiub":
            raise XRetrieveError(f"{path}: {name!r} is no array of numbers; get the file again")
        arrays[name] = value
    return arrays


def read_vocabulary(path: str | Path) -> list[str]:
    """The words of a pickled ``Vocabulary`` (`vg_vocab_14284.pkl`) in the order of their numbers."""
    found = read_pickle(path, VOCABULARY, "a pickled Vocabulary")
    numbers = getattr(found, "__dict__", {}).get("word2idx") if isinstance(found, _Vocabulary) else None
    if not isinstance(numbers, dict) or not numbers:
        raise XRetrieveError(f"{path}: expected a pickled Vocabulary with word2idx")
    words: dict[int, str] = {}
    for word, number in numbers.items():
        if not isinstance(word, str) or type(number) is not int:
            raise XRetrieveError(f"{path}: word2idx has the entry {word!r}: {number!r}; expected a word and its number")
        words[number] = word
    if sorted(words) != list(range(len(numbers))):
        raise XRetrieveError(f"{path}: the numbers of its {len(numbers)} words are not 0 to {len(numbers) - 1}")
    return [words[i] for i in range(len(words))]
