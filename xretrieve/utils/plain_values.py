"""Reading checkpoints of others: tensors, plain values and options, and nothing that runs.

A checkpoint is a pickle, a program that may call any function it names. `torch.load(weights_only=True)` resolves only
names that are written down; those of :data:`NAMES` are added, and none of them stands for what it names: each makes a
plain value of what the file says of it.
"""

from __future__ import annotations

import argparse
import pathlib
import pickle
import re
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np

from xretrieve.errors import XRetrieveError, first_line
from xretrieve.utils.paths import is_file

_LARGEST = 1 << 28  # bytes of one numpy array beside the weights


class _Type:
    """What stands for a numpy type: its letters, and the byte order that follows."""

    def __init__(self, code: str = "", *more: Any) -> None:
        self.code = code

    def __setstate__(self, state: Any) -> None:
        self.code = {"<": "<", ">": ">"}.get(state[1], "") + self.code

    @property
    def dtype(self) -> np.dtype[Any]:
        """The type; only numbers, truth values and texts are taken."""
        found = np.dtype(self.code)
        if found.kind not in "biufSU":
            raise ValueError(f"an array of {self.code!r}")
        return found


class _Array:
    """What stands for a numpy array until all is read."""

    value: np.ndarray[Any, Any] = np.zeros(0)

    def __setstate__(self, state: Any) -> None:
        _, shape, kind, fortran, content = state
        if not isinstance(kind, _Type) or not isinstance(content, bytes) or len(content) > _LARGEST:
            raise ValueError("an array of something else than numbers")
        self.value = np.frombuffer(content, kind.dtype).reshape(shape, order="F" if fortran else "C")


class _Named:
    """What stands for a type that is named and not used."""


def _array(*_: Any) -> _Array:
    return _Array()


def _scalar(kind: Any, content: Any = b"") -> Any:
    if not isinstance(kind, _Type) or not isinstance(content, bytes):
        raise ValueError("a numpy value of something else than a number")
    return np.frombuffer(content, kind.dtype)[0].item()


def _dict(*_: Any) -> OrderedDict[Any, Any]:
    return OrderedDict()


def _path(*parts: Any) -> str:
    return str(pathlib.PurePosixPath(*map(str, parts)))


def _windows_path(*parts: Any) -> str:
    return str(pathlib.PureWindowsPath(*map(str, parts)))


# (what is made of it, the name in the file)
NAMES: list[Any] = [
    argparse.Namespace,
    (argparse.Namespace, "types.SimpleNamespace"),
    (_dict, "collections.defaultdict"),
    *((OrderedDict, name) for name in ("easydict.EasyDict", "addict.addict.Dict", "attrdict.dictionary.AttrDict",
                                       "yacs.config.CfgNode", "munch.Munch")),
    *((_Named, f"{module}.{name}") for module in ("builtins", "__builtin__")
      for name in ("int", "float", "str", "list", "dict", "bool", "tuple")),
    *((_path, f"pathlib{part}.{name}") for part in ("", "._local") for name in ("PosixPath", "PurePosixPath")),
    *((_windows_path, f"pathlib{part}.{name}") for part in ("", "._local")
      for name in ("WindowsPath", "PureWindowsPath")),
    (_Type, "numpy.dtype"),
    (_Named, "numpy.ndarray"),
    *((make, f"numpy.{core}.multiarray.{name}") for core in ("core", "_core")
      for make, name in ((_array, "_reconstruct"), (_scalar, "scalar"))),
    _Array,
]  # fmt: skip


def load_plain(path: str | Path) -> Any:
    """What a ``.pth``, ``.pt``, ``.bin`` or ``.tar`` file of torch holds, on the CPU.

    numpy numbers become numbers, paths texts, dictionaries of every kind dictionaries, option namespaces stay.

    Raises:
        XRetrieveError: the file is not there, cut short, no checkpoint, or asks for anything else; nothing has run.
    """
    import torch

    if not is_file(path):
        raise XRetrieveError(f"no checkpoint file {path}")
    try:
        with torch.serialization.safe_globals(NAMES):
            return _plain(torch.load(path, map_location="cpu", weights_only=True))
    except pickle.UnpicklingError as error:
        asked = re.search(r"GLOBAL ([\w.]+)", str(error))
        what = f"asks for {asked[1]}" if asked else "is no checkpoint, or damaged"
        raise XRetrieveError(
            f"{path}: {what}; it was not read and nothing in it was run: only tensors, plain values and an option "
            "namespace are. Do not open it with other tools; ask its authors for a file of the weights alone"
        ) from error
    except OSError as error:
        raise XRetrieveError(f"{path}: cannot be read ({error.strerror or error})") from error
    except Exception as error:  # a damaged pickle may raise anything
        raise XRetrieveError(
            f"{path}: not a whole checkpoint file ({type(error).__name__}: {first_line(error, 120)}); copy it again"
        ) from error


def without_wrapper(name: str) -> str:
    """The name of a parameter without what data-parallel training and torch.compile put before it.

    >>> without_wrapper("module._orig_mod.fc.weight")
    'fc.weight'
    """
    while name.startswith(("module.", "_orig_mod.")):
        name = name.partition(".")[2]
    return name


def _plain(value: Any, depth: int = 0) -> Any:
    """The values of a tree with every stand-in replaced; containers are changed in place."""
    if depth > 200:
        raise ValueError("values nested too deeply")
    if isinstance(value, _Array):
        return value.value
    if isinstance(value, (_Type, _Named)) or value is _Named or value is _Type:
        return str(getattr(value, "code", value))
    if isinstance(value, argparse.Namespace):
        vars(value).update({key: _plain(item, depth + 1) for key, item in vars(value).items()})
    elif isinstance(value, dict):
        for key, item in value.items():
            value[key] = _plain(item, depth + 1)
    elif isinstance(value, list):
        value[:] = [_plain(item, depth + 1) for item in value]
    elif type(value) is tuple:
        return tuple(_plain(item, depth + 1) for item in value)
    return value
